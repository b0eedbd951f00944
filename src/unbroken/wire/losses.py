"""What of a question a dialect can't say: what is left out and reported, and what is refused.

The tables are in `wire/fields`; this module walks the JSON that a question was read from.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Struct

from unbroken.errors import LocalProtocolError
from unbroken.messages import Message, Native, Request, Tool
from unbroken.wire.fields import (
    REFUSED,
    UNKNOWN,
    Field,
    Outcome,
    Table,
    anthropic_messages,
    bedrock_converse,
    gemini,
    openai_chat,
    openai_responses,
    ours,
)


class Loss(Struct, frozen=True):
    """A field that could not be said: its path in the caller's JSON, and what became of it."""

    path: str
    outcome: Outcome
    value: Any = None


TABLES = {
    table.dialect: table
    for table in (
        openai_chat.TABLE,
        openai_responses.TABLE,
        anthropic_messages.TABLE,
        bedrock_converse.TABLE,
        gemini.TABLE,
    )
}
"""The tables of all dialects, by their names."""

OURS = ours.TABLE


def omitted(request: Request, target: Table, lacks: frozenset[str] = frozenset()) -> list[str]:
    """The paths of what a body in the dialect of `target` leaves out.

    `lacks` are words that this provider does not have, though its dialect does.
    """
    words = target.words - lacks
    found = (loss.path for loss in losses(request, target.dialect, words) if _is_omitted(loss))
    return list(dict.fromkeys(found))


def _is_omitted(loss: Loss) -> bool:
    return loss.outcome == "omitted"


def refuse_lost(
    request: Request, target: Table, name: str, lacks: frozenset[str] = frozenset()
) -> None:
    """Raise LocalProtocolError for the first field that can't be left out; `name` is the API's."""
    for loss in losses(request, target.dialect, target.words - lacks):
        if loss.outcome == "refused":
            shown = msgspec.json.encode(loss.value).decode()
            raise LocalProtocolError(
                f"{name} has no counterpart for {loss.path}={shown[:80]}: leave it out, or pass "
                f"the provider's own parameter in `extra`"
            )


def losses(request: Request, dialect: str, words: frozenset[str]) -> Iterator[Loss]:
    """Everything that a dialect with these words can't say."""
    if request.native is None:
        yield from _fields(_given(request), "", "", OURS, words)
    elif request.native.dialect != dialect:
        yield from _native(request.native, "", words)
    for message in request.messages:
        yield from _message(message, dialect, words)
    for place, tool in enumerate(request.tools or ()):
        yield from _tool(tool, place, dialect, words)


def _given(request: Request) -> dict[str, Any]:
    """What a library caller gave, by our own names."""
    values = ((name, getattr(request, name)) for name in OURS.fields if "[" not in name)
    return {name: value for name, value in values if value is not None}


def _message(message: Message, dialect: str, words: frozenset[str]) -> Iterator[Loss]:
    native = message.native
    if native is not None and native.dialect == dialect:
        return
    if native is None:
        yield from _parts(message, dialect, words)
        return
    table = TABLES.get(native.dialect)
    if table is None:
        return
    items = native.data if isinstance(native.data, list) else [native.data]
    for item in items:
        if isinstance(item, str):
            continue  # `input` of the Responses API may be a text
        top = isinstance(item, dict) and bool(item.keys() & _TOP)
        where = "" if top else _block_path(table.turns, item)
        yield from _fields(item, where, _shown(where), table, words)


_TOP = frozenset({"system", "instructions", "systemInstruction"})
"""Fields at the top of a body that are turns all the same."""


def _parts(message: Message, dialect: str, words: frozenset[str]) -> Iterator[Loss]:
    for part in message.parts:
        if isinstance(part, Native):
            if part.dialect != dialect:
                yield from _block(part, words)
            continue
        where = f"messages[].parts[{type(part).__struct_config__.tag}]"
        yield from _fields(msgspec.to_builtins(part), where, _shown(where), OURS, words)


def _block(part: Native, words: frozenset[str]) -> Iterator[Loss]:
    table = TABLES.get(part.dialect)
    path = part.kind if table is None else _block_path(table.blocks, part.data)
    field = REFUSED if table is None else table.find(path) or REFUSED
    yield Loss(_shown(path), field.outcome(words, part.data), part.data)


def _tool(tool: Tool, place: int, dialect: str, words: frozenset[str]) -> Iterator[Loss]:
    native = tool.native
    if native is None:
        shape = {"name": tool.name, "strict": tool.strict, "cache": tool.cache or None}
        yield from _fields(shape, f"tools[{tool.kind}]", "tools[*]", OURS, words)
    elif native.dialect != dialect and native.dialect in TABLES:
        shown = f"tools[{place}]" if tool.kind == "hosted" else "tools[*]"
        yield from _fields(native.data, f"tools[{tool.kind}]", shown, TABLES[native.dialect], words)


def _native(native: Native, path: str, words: frozenset[str]) -> Iterator[Loss]:
    table = TABLES.get(native.dialect)
    if table is not None:
        yield from _fields(native.data, path, path, table, words)


def _fields(
    data: Any, path: str, shown: str, table: Table, words: frozenset[str]
) -> Iterator[Loss]:
    """Walk the fields of an object whose own path is `path`."""
    if not isinstance(data, Mapping):
        yield from _walk(data, path, shown, table, words)
        return
    if path and (field := table.find(path)) and path not in _inner(table):
        yield from _loss(field, data, shown, words)
        return
    for name, value in data.items():
        dot = "." if path else ""
        yield from _walk(value, f"{path}{dot}{name}", f"{shown}{dot}{name}", table, words)


def _walk(value: Any, path: str, shown: str, table: Table, words: frozenset[str]) -> Iterator[Loss]:
    """Judge the value at a path; go deeper where the table does."""
    field, deeper = table.find(path), path in _inner(table)
    if field is None and not deeper:
        yield from _loss(REFUSED if path.endswith("]") else UNKNOWN, value, shown, words)
        return
    if field is not None:
        yield from _loss(field, value, shown, words)
    if not deeper:
        return
    if isinstance(value, list):
        for item in value:
            inner = _block_path(path, item)
            yield from _fields(item, inner, f"{shown}[*]", table, words)
    elif isinstance(value, Mapping):
        yield from _fields(value, path, shown, table, words)


def _loss(field: Field, value: Any, shown: str, words: frozenset[str]) -> Iterator[Loss]:
    outcome = field.outcome(words, value)
    if outcome != "translated":
        yield Loss(shown, outcome, value)


def _block_path(path: str, item: Any) -> str:
    """The path of an item in a list, with its type where it has one."""
    kind = item.get("type") if isinstance(item, Mapping) else None
    if path.endswith("[]"):
        return path
    if kind is None and isinstance(item, Mapping) and "role" in item:
        kind = "message"  # the Responses API's short form
    return f"{path}[{kind}]" if isinstance(kind, str) else f"{path}[]"


def _shown(path: str) -> str:
    """A path as it is reported: `[*]` for any place in a list."""
    out = path
    while "[" in out.replace("[*]", ""):
        at = next(i for i, c in enumerate(out) if c == "[" and not out.startswith("[*]", i))
        out = f"{out[:at]}[*]{out[out.index(']', at) + 1 :]}"
    return out


def _inner(table: Table) -> frozenset[str]:
    return _inner_paths(tuple(table.fields))


@lru_cache(maxsize=64)
def _inner_paths(paths: tuple[str, ...]) -> frozenset[str]:
    """All paths that have fields below them."""
    return frozenset(
        path[:at] for path in paths for at, char in enumerate(path) if char in ".[" and at
    )
