"""JSON Schema: the strict form that providers can enforce, and the check of a value.

Strict means: every object names all its properties, requires each and allows no other (OpenAI:
"Structured outputs, supported schemas"; Anthropic asks for the same of `additionalProperties`).
The check is jsonschema-rs (docs/adr/0015): every keyword of drafts 4 to 2020-12.
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
    """The keywords of a JSON schema that are read here and in the simulator, with their types."""

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


# The check

_ENDS = 200
"""Characters kept at each end of a message: it repeats the value, which may be a whole document."""


def validator(schema: Any) -> Callable[[Any], str]:
    """Return a function that describes the first mismatch of a value, or returns "".

    Raises ValueError if `schema` is not a valid JSON Schema, or refers to a document outside of
    itself: nothing is ever fetched. Patterns can't backtrack without bound.
    """
    import jsonschema_rs

    try:
        check = jsonschema_rs.validator_for(schema, offline=True)
    except jsonschema_rs.ValidationError as error:
        raise ValueError(_described(error, "the schema")) from error

    def mismatch(value: Any) -> str:
        first = next(iter(check.iter_errors(value)), None)
        return "" if first is None else _described(first, "$")

    return mismatch


def find_mismatch(value: Any, schema: Any) -> str:
    """Describe the first thing in `value` that does not fit, with its place; "" if all fits."""
    return validator(schema)(value)


def _described(error: Any, root: str) -> str:
    """The place of the fault as a path, and what is wrong there."""
    steps = (f"[{at}]" if isinstance(at, int) else f".{at}" for at in error.instance_path)
    what = error.message
    if len(what) > 2 * _ENDS:
        what = f"{what[:_ENDS]}…{what[-_ENDS:]}"
    return f"{root}{''.join(steps)}: {what}"
