"""JSON schemas as Anthropic takes them for structured outputs (platform.claude.com, the limits).

Bounds of numbers, lengths and lists are refused by the API. The official SDKs move them into the
description, where the model reads them; so do we.
"""

from typing import Any

from unbroken.errors import LocalProtocolError
from unbroken.schema import rebuilt

_REFUSED = frozenset(
    {
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "maxItems",
        "uniqueItems",
        "minProperties",
        "maxProperties",
    }
)


def supported(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema in the words the API knows; LocalProtocolError for objects with free keys."""
    made = rebuilt(schema, supported)
    told = {name: made.pop(name) for name in made.keys() & _REFUSED}
    if made.get("minItems", 0) > 1:
        told["minItems"] = made.pop("minItems")
    if told:
        bounds = ", ".join(f"{name}: {told[name]}" for name in sorted(told))
        made["description"] = f"{made.get('description', '')} ({bounds})".strip()
    if "oneOf" in made:
        made["anyOf"] = made.pop("oneOf")
        made.pop("discriminator", None)
    return _closed(made) if made.get("type") == "object" else made


def _closed(made: dict[str, Any]) -> dict[str, Any]:
    if "properties" not in made or made.get("additionalProperties", False) is not False:
        raise LocalProtocolError(
            "response_format: Anthropic's structured outputs know no object with free keys: name "
            "its properties, or use a list of objects with a key and a value"
        )
    return {**made, "additionalProperties": False}
