"""Python functions as tools: the schema comes from the signature, the words from the docstring."""

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

import msgspec

_ARGUMENT = re.compile(r"^\s*(?::param\s+)?(\w+)\s*(?:\([^)]*\))?\s*:\s*(.+?)\s*$")
"""A line that describes a parameter, in Google's style or in Sphinx's."""


def describe(function: Callable[..., Any]) -> tuple[str, str, dict[str, Any]]:
    """Return name, description and JSON schema of a function.

    msgspec.ValidationError names a parameter that no schema can describe.
    """
    if not callable(function):
        raise msgspec.ValidationError(f"expected a tool, got {type(function).__name__}")
    name = getattr(function, "__name__", type(function).__name__)
    about = inspect.getdoc(function) or ""
    fields = [_field(name, parameter, hint) for parameter, hint in _parameters(function)]
    arguments = msgspec.defstruct(f"{name}_arguments", fields, kw_only=True)
    try:
        _, definitions = msgspec.json.schema_components([arguments])
    except TypeError as error:
        raise msgspec.ValidationError(f"{name}: {error}") from error
    inner = definitions.pop(arguments.__name__)
    inner.pop("title", None)
    _document(inner.get("properties", {}), about)
    if definitions:
        inner["$defs"] = definitions
    head = re.split(r"\n\s*(?:Args|Arguments|Parameters|Returns|Raises)\s*:|\n\s*:param", about)[0]
    return name, head.strip(), {**inner, "additionalProperties": False}


def call(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Call a function with what a model gave, read as the types that the function names.

    msgspec.ValidationError names an argument that does not fit.
    """
    fields = [_field("", parameter, hint) for parameter, hint in _parameters(function)]
    kind = msgspec.defstruct("arguments", fields, kw_only=True, forbid_unknown_fields=True)
    read = msgspec.convert(dict(arguments), kind)
    return function(**{name: getattr(read, name) for name in kind.__struct_fields__})


def _parameters(function: Callable[..., Any]) -> list[tuple[inspect.Parameter, Any]]:
    hints = get_type_hints(function, include_extras=True)
    found = inspect.signature(function).parameters.values()
    return [(parameter, hints.get(parameter.name, Any)) for parameter in found]


def _field(owner: str, parameter: inspect.Parameter, hint: Any) -> Any:
    if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
        raise msgspec.ValidationError(f"{owner}: a tool has named parameters, not {parameter}")
    if parameter.default is parameter.empty:
        return (parameter.name, hint)
    default = parameter.default
    plain = default is None or isinstance(default, bool | int | float | str | tuple)
    given = default if plain else msgspec.field(default_factory=lambda: default)
    return (parameter.name, hint, given)


def _document(properties: dict[str, Any], about: str) -> None:
    """Add to the parameters what the docstring says of them."""
    for line in about.splitlines()[1:]:
        found = _ARGUMENT.match(line)
        if found and found[1] in properties:
            properties[found[1]].setdefault("description", found[2])
