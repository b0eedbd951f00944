"""Makes data that fits a JSON schema: the answers to structured output and tool arguments."""

import itertools
from typing import Any

import msgspec

from unbroken.messages import Request
from unbroken.schema import Schema, resolved
from unbroken.simulator.rng import Rng

_DEEP = 4
"""Levels after which lists stay empty and choices end, for schemas may contain themselves."""

_DEEPEST, _MOST = 32, 10_000
"""Levels, and values of one document, after which nothing more is made: a schema can ask for any
number, or be endless.
"""

MAX_CHARACTERS = 256 * 1024
"""Size of a document, roughly. A short schema can ask for gigabytes: a list of a long constant."""

_OPTIONS = 64
"""Alternatives of an `anyOf` that are looked at."""

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


def document(request: Request, rng: Rng, room: int = MAX_CHARACTERS) -> str | None:
    """Return the answer as JSON text of about `room` characters at most; None if none is wanted."""
    wanted = request.response_format or {}
    if wanted.get("type") == "json_object":
        return '{"answer":"an example"}'
    if wanted.get("type") != "json_schema":
        return None
    schema = (wanted.get("json_schema") or {}).get("schema") or {}
    return msgspec.json.encode(value(schema, "value", rng, room)).decode()


def value(schema: Schema, name: str, rng: Rng, room: int = MAX_CHARACTERS) -> Any:
    """Return a value that the schema allows, called `name`; incomplete if it takes too much."""
    return _Player(schema, rng, room).value(schema, name, 0)


class _Player:
    def __init__(self, root: Schema, rng: Rng, room: int) -> None:
        self._root, self._rng = root, rng
        self._values, self._room = _MOST, room

    @property
    def _full(self) -> bool:
        return self._values <= 0 or self._room <= 0

    def value(self, schema: Schema, name: str, deep: int) -> Any:
        self._values -= 1
        self._room -= len(name) + _length_of_ref(schema)  # both take time to look at
        if self._full or deep > _DEEPEST:
            return None
        schema = resolved(schema, self._root)
        if "const" in schema:
            return self._copied(schema["const"])
        if schema.get("enum"):
            return self._copied(self._rng.pick(schema["enum"]))
        options = schema.get("anyOf") or schema.get("oneOf")
        if options:
            return self.value(self._choose(options, deep), name, deep + 1)
        kinds = schema.get("type", "string")
        kind = kinds if isinstance(kinds, str) else kinds[0]
        make = getattr(self, f"_{kind}") if kind in _KINDS else self._string
        return make(schema, name, deep)

    def _copied(self, value: Any) -> Any:
        """A value of the schema's own; None where there is no room for it."""
        self._room -= len(msgspec.json.encode(value))
        return value if self._room > 0 else None

    def _choose(self, options: list[Schema], deep: int) -> Schema:
        """The first one, or the simplest where it gets too deep."""
        if deep < _DEEP:
            return options[0]
        ends = [one for one in options[:_OPTIONS] if resolved(one, {}).get("type") == "null"]
        return ends[0] if ends else options[0]

    def _object(self, schema: Schema, _name: str, deep: int) -> dict[str, Any]:
        fields: dict[str, Schema] = schema.get("properties", {})
        named = itertools.takewhile(lambda _: not self._full, fields.items())
        return {key: self.value(inner, key, deep + 1) for key, inner in named}

    def _array(self, schema: Schema, name: str, deep: int) -> list[Any]:
        least = schema.get("minItems", 0 if deep >= _DEEP else 1)
        count = min(max(1, least), schema.get("maxItems", least + 1)) if deep < _DEEP else least
        made = itertools.takewhile(lambda _: not self._full, range(min(count, _MOST)))
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
        least = min(schema.get("minLength", 0), self._room)
        made = text.ljust(least, ".")[: schema.get("maxLength")]
        self._room -= len(made)
        return made


def _length_of_ref(schema: Any) -> int:
    ref = schema.get("$ref") if isinstance(schema, dict) else None
    return len(ref) if isinstance(ref, str) else 0


def _bound(schema: Schema, name: str, other: str, default: float) -> float:
    return next((float(schema[word]) for word in (name, other) if word in schema), default)
