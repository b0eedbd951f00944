"""Pass-through of the fields of chat completions that this version does not model.

The idea: the typed decoders of the reader refuse a delta with a field that they do not know. Only
then is the chunk taken apart here, and what is known is read as always. What is left becomes an
`OtherEvent`, whose data is a chunk that says nothing else: OpenRouter's `reasoning_details` and
`images`, Groq's `executed_tools`, Gemini's `extra_content` of a call, audio, hosted tools, and
newer fields. A null or an empty list says nothing.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from unbroken.events import OtherEvent
from unbroken.response import Choice

DIALECT = "openai_chat"

_CALL = frozenset({"index", "id", "type", "function", "custom"})
_DELTA = frozenset(
    {
        "role",
        "content",
        "refusal",
        "reasoning",
        "reasoning_content",
        "tool_calls",
        "function_call",
        "annotations",
    }
)
# What every chunk and answer has around its choices, and what tells nothing of the answer.
_FRAME = frozenset(
    {
        "id",
        "object",
        "created",
        "model",
        "choices",
        "usage",
        "error",
        "system_fingerprint",
        "service_tier",
        "obfuscation",
        "provider",
        "x_groq",
        "base_resp",
        "type",
    }
)
_NOTHING = frozenset({b"null", b'""', b"[]", b"{}"})
# Strings that name a thing do not grow, though they come with every piece of it.
_NAMES = frozenset({"type", "index", "id", "name", "format", "role"})

Fields = dict[str, Raw]

_encode = msgspec.json.Encoder().encode
_fields = msgspec.json.Decoder(Fields).decode
_each = msgspec.json.Decoder(list[Fields] | None).decode
_some = msgspec.json.Decoder(Fields | None).decode


class Aside(Struct):
    """The unknown of one choice: of its delta, of each of its tool calls, of its logprobs."""

    delta: Fields = {}
    calls: list[Fields] = []
    logprobs: Raw | None = None


NO_ASIDE = Aside()


def taken_apart(data: bytes, logprobs: type) -> tuple[bytes, list[Aside]]:
    """A chunk without what is unknown, and the unknown of each of its choices.

    Raises msgspec.DecodeError if it is no chunk at all.
    """
    fields = _fields(data)
    choices = _each(fields.get("choices", b"null")) or []
    asides = [_aside(choice, logprobs) for choice in choices]
    return _encode({**fields, "choices": choices}), asides


def _aside(choice: Fields, logprobs: type) -> Aside:
    """Take what is unknown out of a choice."""
    aside = Aside()
    for key in ("delta", "message"):
        delta = _some(choice.get(key, b"null"))
        if not delta:
            continue
        aside.delta = aside.delta or _left(delta, _DELTA)
        calls = _each(delta.get("tool_calls", b"null"))
        if calls:
            aside.calls = [_left(call, _CALL) for call in calls]
            delta["tool_calls"] = _raw(calls)
        choice[key] = _raw({name: delta[name] for name in delta.keys() & _DELTA})
    likely = choice.get("logprobs")
    if likely is not None and not _is(likely, logprobs):
        aside.logprobs = choice.pop("logprobs")
    return aside


def _left(fields: Fields, known: frozenset[str]) -> Fields:
    """Take the unknown fields out; those that say something."""
    unknown = {name: fields.pop(name) for name in fields.keys() - known}
    return {name: raw for name, raw in unknown.items() if bytes(raw) not in _NOTHING}


def _is(raw: Raw, kind: type) -> bool:
    try:
        msgspec.json.decode(raw, type=kind | None)
    except msgspec.ValidationError:
        return False
    return True


def _raw(value: Any) -> Raw:
    return Raw(_encode(value))


def other(name: str, delta: dict[str, Any], choice: int, **more: Any) -> OtherEvent:
    """An event for something in a choice; its data is a chunk that holds nothing else."""
    chunk = {"choices": [{"index": choice, "delta": delta, **more}]}
    return OtherEvent(name, _encode(chunk).decode(), choice, DIALECT)


def unknown_of_call(at: int, choice: int, fields: Mapping[str, Any], *, ours: bool) -> OtherEvent:
    """What a function's call carries besides, or the call of a tool of another type.

    The SDKs expect a `function` in every fragment of a function's call.
    """
    function = {"function": {"arguments": ""}} if ours else {}
    name = fields.get("type") or next(iter(fields))
    return other(name, {"tool_calls": [{"index": at, **function, **fields}]}, choice)


def unknown_part(kind: str, part: Raw, choice: int) -> OtherEvent:
    """A part of a content that is a list. It is not written back: the SDKs take content as text."""
    return OtherEvent(kind, _encode(part).decode(), choice)


def unknown_chunk(data: bytes, event: str) -> OtherEvent | None:
    """A chunk without choices and usage, such as OpenAI's moderation; None if it says nothing."""
    fields = _fields(data)
    names = [n for n, raw in fields.items() if n not in _FRAME and bytes(raw) not in _NOTHING]
    name = event if event not in ("", "message") else next(iter(names), "")
    ping = "ping" in (event, _text(fields.get("type")))
    return OtherEvent(name, data.decode(), 0, DIALECT) if names and not ping else None


def _text(raw: Raw | None) -> str:
    return "" if raw is None else bytes(raw).decode().strip('"')


def around(body: bytes) -> list[OtherEvent]:
    """What stands beside the choices of a whole answer."""
    left = _left(_fields(body), _FRAME)
    return [
        OtherEvent(name, _encode({"choices": [], name: raw}).decode(), 0, DIALECT)
        for name, raw in left.items()
    ]


# Writing


def chunk_of(event: OtherEvent) -> Fields:
    """The chunk that the event stands for; empty if it is of another dialect."""
    return _fields(event.data) if event.dialect == DIALECT else {}


def folded(choice: Choice) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the others of a choice add to a whole answer: to its message, and around the choices."""
    message: dict[str, Any] = {}
    beside: dict[str, Any] = {}
    for kept in choice.others:
        fields: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(chunk_of(kept.event)))
        for inner in fields.pop("choices", None) or ():
            message = grown(message, inner.get("delta") or {})
        beside |= {name: value for name, value in fields.items() if name not in _FRAME}
    return message, beside


def grown(old: Any, new: Any) -> Any:
    """Two pieces as one: texts and lists go on, entries of a list are matched by `index`."""
    match old, new:
        case str(), str():
            return old + new
        case dict(), dict():
            same = {k: v if k in _NAMES else grown(old[k], v) for k, v in new.items() if k in old}
            return old | new | same
        case list(), list():
            return _listed(old, new)
    return new


def _listed(old: list[Any], new: list[Any]) -> list[Any]:
    made = list(old)
    for entry in new:
        index = entry.get("index") if isinstance(entry, dict) else None
        at = next((n for n, e in enumerate(made) if index is not None and _index(e) == index), None)
        if at is None:
            made.append(entry)
        else:
            made[at] = grown(made[at], entry)
    return made


def _index(entry: Any) -> Any:
    return entry.get("index") if isinstance(entry, dict) else None
