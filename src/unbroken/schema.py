"""JSON schemas: the strict form that providers can enforce, and whether a value fits one.

Strict means: every object names all its properties, requires each and allows no other (OpenAI:
"Structured outputs, supported schemas"; Anthropic asks for the same of `additionalProperties`).
The check knows the words that such schemas use; others are not checked.
"""

from collections.abc import Callable, Iterator
from typing import Annotated, Any

from msgspec import Meta, Struct, field

from unbroken.ready import ready

Schema = dict[str, Any]
Inner = Schema | bool

_IN_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_IN_NAMES = ("properties", "$defs", "definitions")


Count = Annotated[int, Meta(ge=0)]


class Shape(Struct, frozen=True):
    """What the words of a JSON schema hold, of those that are read here and in the simulator."""

    type: str | Annotated[list[str], Meta(min_length=1)] = ""
    format: str = ""
    enum: list[Any] = []
    minimum: float = 0
    maximum: float = 0
    exclusive_minimum: float | bool = field(default=0, name="exclusiveMinimum")  # bool: draft 4
    exclusive_maximum: float | bool = field(default=0, name="exclusiveMaximum")
    min_length: Count = field(default=0, name="minLength")
    max_length: Count = field(default=0, name="maxLength")
    min_items: Count = field(default=0, name="minItems")
    max_items: Count = field(default=0, name="maxItems")
    properties: dict[str, "Shape | bool"] = {}
    defs: dict[str, "Shape | bool"] = field(default_factory=dict, name="$defs")
    definitions: dict[str, "Shape | bool"] = {}
    any_of: list["Shape | bool"] = field(default_factory=list, name="anyOf")
    one_of: list["Shape | bool"] = field(default_factory=list, name="oneOf")
    all_of: list["Shape | bool"] = field(default_factory=list, name="allOf")
    prefix_items: list["Shape | bool"] = field(default_factory=list, name="prefixItems")
    items: "Shape | bool | list[Shape | bool]" = True


ready(Shape)  # not above the class: it holds itself


def resolved(schema: Inner, root: Schema) -> Schema:
    """The schema itself, or the one of the same document that its `$ref` names. What is no object,
    such as `true`, is the schema that says nothing.
    """
    if not isinstance(schema, dict):
        return {}
    ref = schema.get("$ref")
    if not isinstance(ref, str) or not ref.startswith("#"):
        return schema
    found: Any = root
    for name in ref.lstrip("#/").split("/") if ref.strip("#/") else ():
        plain = name.replace("~1", "/").replace("~0", "~")  # RFC 6901
        found = found.get(plain) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def inner(schema: Schema) -> Iterator[Inner]:
    """The schemas within a schema, one level down."""
    for word in _IN_NAMES:
        yield from schema.get(word, {}).values()
    for word in _IN_LISTS:
        yield from schema.get(word, ())
    if isinstance(schema.get("items"), dict):
        yield schema["items"]


def rebuilt(schema: Schema, build: Callable[[Schema], Schema]) -> Schema:
    """A copy, each schema one level down replaced by what `build` makes of it."""

    def built(value: Any) -> Any:
        return build(value) if isinstance(value, dict) else value

    made = dict(schema)
    for word in _IN_NAMES:
        if word in made:
            made[word] = {name: built(value) for name, value in made[word].items()}
    for word in _IN_LISTS:
        if word in made:
            made[word] = [built(value) for value in made[word]]
    if "items" in made:
        made["items"] = built(made["items"])
    return made


def rooted(schema: Schema) -> Schema:
    """The same schema with its own type at the root, where it only refers to a definition."""
    return {**resolved(schema, schema), **{k: v for k, v in schema.items() if k != "$ref"}}


def closed(schema: Inner) -> bool:
    """Whether every object in it says by name what it may hold."""
    if not isinstance(schema, dict):
        return schema is False
    free = schema.get("additionalProperties", False) is not False or "patternProperties" in schema
    nameless = schema.get("type") == "object" and "properties" not in schema
    return not free and not nameless and all(map(closed, inner(schema)))


def strict(schema: Schema) -> Schema | None:
    """The strict form; None where there is none, as for a mapping with free keys."""
    root = rooted(schema)
    named = root.get("type") == "object" and "prefixItems" not in root
    return _strict(root, root, ()) if named and closed(root) else None


def _strict(schema: Schema, root: Schema, within: tuple[str, ...]) -> Schema:
    """`within` are the references that are being written out, for some lead back to themselves."""
    ref = schema.get("$ref")
    if isinstance(ref, str) and ref in within:
        return {"$ref": ref}
    if isinstance(ref, str) and len(schema) > 1:  # a reference may have nothing beside it
        beside = {k: v for k, v in schema.items() if k != "$ref"}
        return _strict({**resolved(schema, root), **beside}, root, (*within, ref))
    made = rebuilt(schema, lambda one: _strict(one, root, within))
    made.pop("default", None)  # what is always there needs none
    if "oneOf" in made:
        made["anyOf"] = made.pop("oneOf")
        made.pop("discriminator", None)
    if "properties" in made:
        made |= {"additionalProperties": False, "required": list(made["properties"])}
    return made


# Whether a value fits

_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: (
        (isinstance(value, int) and not isinstance(value, bool))
        or (isinstance(value, float) and value.is_integer())
    ),
}

# A word of the schema, the Python types it speaks of, and the rule.
_BOUNDS: dict[str, tuple[Any, Callable[[Any, Any], bool]]] = {
    "minimum": (int | float, lambda value, bound: value >= bound),
    "maximum": (int | float, lambda value, bound: value <= bound),
    "exclusiveMinimum": (int | float, lambda value, bound: value > bound),
    "exclusiveMaximum": (int | float, lambda value, bound: value < bound),
    "minLength": (str, lambda value, bound: len(value) >= bound),
    "maxLength": (str, lambda value, bound: len(value) <= bound),
    "minItems": (list, lambda value, bound: len(value) >= bound),
    "maxItems": (list, lambda value, bound: len(value) <= bound),
}


def fault(value: Any, schema: Any, root: Schema | None = None, at: str = "$") -> str:
    """The first thing in `value` that does not fit, with its place; empty if all fits."""
    if not isinstance(schema, dict):
        return "" if schema is not False else f"{at}: nothing may stand here"
    top = schema if root is None else root
    if "$ref" in schema:
        return fault(value, resolved(schema, top), top, at)
    return next(filter(None, _faults(value, schema, top, at)), "")


def _faults(value: Any, schema: Schema, root: Schema, at: str) -> Iterator[str]:
    yield _of_kind(value, schema, at)
    for word, (kind, holds) in _BOUNDS.items():
        if word in schema and isinstance(value, kind) and not holds(value, schema[word]):
            yield f"{at}: {word} is {schema[word]}"
    for word in ("anyOf", "oneOf"):
        options = [fault(value, one, root, at) for one in schema.get(word, ())]
        yield options[0] if options and all(options) else ""
    for one in schema.get("allOf", ()):
        yield fault(value, one, root, at)
    if isinstance(value, dict):
        yield from _of_object(value, schema, root, at)
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield fault(item, schema.get("items", True), root, f"{at}[{number}]")


def _of_kind(value: Any, schema: Schema, at: str) -> str:
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_TYPES[kind](value) for kind in kinds if kind in _TYPES):
        return f"{at}: not of type {' or '.join(kinds)}"
    if "const" in schema and value != schema["const"]:
        return f"{at}: not {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{at}: not one of {', '.join(map(repr, schema['enum']))}"
    return ""


def _of_object(value: Schema, schema: Schema, root: Schema, at: str) -> Iterator[str]:
    known = schema.get("properties", {})
    for name in schema.get("required", ()):
        yield "" if name in value else f"{at}: {name!r} is missing"
    for name, item in value.items():
        wanted = known.get(name, schema.get("additionalProperties", True))
        yield fault(item, wanted, root, f"{at}.{name}")
