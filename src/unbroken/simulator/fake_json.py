"""Data that fits a JSON schema: what the simulated model answers when it is asked for some."""

from typing import Any

import msgspec

from unbroken.messages import Request
from unbroken.schema import Schema, resolved
from unbroken.simulator.rng import Rng

_DEEP = 4
"""Levels after which lists stay empty and choices end, for schemas may contain themselves."""

_DEEPEST, _MOST = 32, 10_000
"""Levels and values after which nothing more is made up: a schema can ask for any number, also for
one that has no end.
"""

_KINDS = {"object", "array", "integer", "number", "boolean", "null"}

_FORMATS = {
    "date-time": "2026-03-14T09:26:53Z",
    "date": "2026-03-14",
    "time": "09:26:53Z",
    "duration": "PT3M",
    "email": "ada@example.org",
    "hostname": "example.org",
    "uri": "https://example.org/",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uuid": "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
}


def document(request: Request, rng: Rng) -> str | None:
    """The answer as JSON text, if the request asks for one."""
    wanted = request.response_format or {}
    if wanted.get("type") == "json_object":
        return '{"answer":"an example"}'
    if wanted.get("type") != "json_schema":
        return None
    schema = (wanted.get("json_schema") or {}).get("schema") or {}
    return msgspec.json.encode(value(schema, "value", rng)).decode()


def value(schema: Schema, name: str, rng: Rng) -> Any:
    """Something that the schema allows; `name` is what it is called."""
    return _Player(schema, rng).value(schema, name, 0)


class _Player:
    def __init__(self, root: Schema, rng: Rng) -> None:
        self._root, self._rng = root, rng
        self._made = 0

    def value(self, schema: Schema, name: str, deep: int) -> Any:
        self._made += 1
        if self._made > _MOST or deep > _DEEPEST:
            return None
        schema = resolved(schema, self._root)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return self._rng.pick(schema["enum"])
        options = schema.get("anyOf") or schema.get("oneOf")
        if options:
            return self.value(self._choose(options, deep), name, deep + 1)
        kinds = schema.get("type", "string")
        kind = kinds if isinstance(kinds, str) else kinds[0]
        make = getattr(self, f"_{kind}") if kind in _KINDS else self._string
        return make(schema, name, deep)

    def _choose(self, options: list[Schema], deep: int) -> Schema:
        """The first one, or the simplest where it gets too deep."""
        ends = [one for one in options if resolved(one, {}).get("type") == "null"]
        return ends[0] if ends and deep >= _DEEP else options[0]

    def _object(self, schema: Schema, _name: str, deep: int) -> dict[str, Any]:
        fields = schema.get("properties", {})
        return {key: self.value(inner, key, deep + 1) for key, inner in fields.items()}

    def _array(self, schema: Schema, name: str, deep: int) -> list[Any]:
        least = schema.get("minItems", 0 if deep >= _DEEP else 1)
        count = min(max(1, least), schema.get("maxItems", least + 1)) if deep < _DEEP else least
        made = range(min(count, _MOST))
        return [self.value(schema.get("items", {}), name, deep + 1) for _ in made]

    def _integer(self, schema: Schema, _name: str, _deep: int) -> int:
        low = int(schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1))
        high = int(schema.get("maximum", schema.get("exclusiveMaximum", low + 9) - 1))
        return low + self._rng.below(max(1, high - low + 1))

    def _number(self, schema: Schema, _name: str, _deep: int) -> float:
        low = _bound(schema, "minimum", "exclusiveMinimum", 0)
        high = _bound(schema, "maximum", "exclusiveMaximum", low + 25)
        return low + (high - low) * (1 + self._rng.below(98)) / 100

    def _boolean(self, _schema: Schema, _name: str, _deep: int) -> bool:
        return self._rng.random() < 0.5

    def _null(self, _schema: Schema, _name: str, _deep: int) -> None:
        return None

    def _string(self, schema: Schema, name: str, _deep: int) -> str:
        text = _FORMATS.get(schema.get("format", ""), f"example {name}")
        return text.ljust(min(schema.get("minLength", 0), _MOST), ".")[: schema.get("maxLength")]


def _bound(schema: Schema, name: str, other: str, default: float) -> float:
    return next((float(schema[word]) for word in (name, other) if word in schema), default)
