"""Messages in the shape of Anthropic's API (platform.claude.com/docs/en/api/messages).

Library callers may write this shape as plain dicts, and the dialect's codec reads and writes it.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from unbroken.messages.worded import read_each
from unbroken.parts import (
    CONVERSE,
    MESSAGES,
    Document,
    Image,
    Message,
    Native,
    Part,
    Reasoning,
    Role,
    Text,
    ToolResult,
    ToolUse,
)
from unbroken.ready import ready

_ONLY_HERE = frozenset({"tool_use", "tool_result", "thinking", "redacted_thinking"})
"""Block types that no other dialect has: what holds one is in this shape."""


def is_block(data: Mapping[str, Any]) -> bool:
    """Whether a content block is in Anthropic's shape and in no other."""
    kind = data.get("type")
    return "source" in data or (isinstance(kind, str) and kind in _ONLY_HERE)


_FAMILY = frozenset({MESSAGES, CONVERSE, ""})
"""Dialects whose signatures Claude understands; "" is what a library caller wrote."""


@ready
class _Source(Struct):
    type: str = ""
    media_type: str = ""
    data: str = ""
    url: str = ""
    file_id: str = ""
    content: Any = None


@ready
class _Block(Struct):
    """What is read of a content block; which fields count is said by `type`."""

    type: str
    text: str = ""
    source: Any = None
    title: str | None = None
    id: str = ""
    name: str = ""
    input: Any = None
    tool_use_id: str = ""
    is_error: bool | None = None
    content: str | list[dict[str, Any]] | None = None
    thinking: str = ""
    signature: str = ""
    data: str = ""
    cache_control: Any = None


@ready
class _Turn(Struct):
    role: str
    content: str | list[dict[str, Any]]


_ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system"}


def read_message(data: Mapping[str, Any]) -> Message:
    """Return the message that `data` says; msgspec.ValidationError if it is none."""
    turn = msgspec.convert(data, _Turn)
    if turn.role not in _ROLES:
        raise msgspec.ValidationError(f"role {turn.role!r} is not 'user' or 'assistant'")
    return Message(_ROLES[turn.role], read_content(turn.content), Native(MESSAGES, dict(data)))


def read_content(content: str | list[dict[str, Any]] | None) -> tuple[Part, ...]:
    """The parts of a string or a list of blocks."""
    if isinstance(content, str):
        return (Text(content),)
    return read_each(read_block, content or (), "content")


def read_block(data: dict[str, Any]) -> Part:
    """The part that a content block is; a Native where we have no word for it."""
    block = msgspec.convert(data, _Block)
    cache = ttl(block.cache_control)
    match block.type:
        case "text":
            return Text(block.text, cache)
        case "image" | "document" if block.source is not None:
            source = msgspec.convert(block.source, _Source)
            return _read_source(block, source, cache) or Native(MESSAGES, data)
        case "tool_use":
            arguments = msgspec.json.encode({} if block.input is None else block.input).decode()
            return ToolUse(block.id, block.name, arguments, cache=cache)
        case "tool_result":
            content: Any = block.content if isinstance(block.content, str) else ()
            content = content or read_content(block.content or [])
            failed = bool(block.is_error)
            return ToolResult(block.tool_use_id, content or "", failed, cache=cache)
        case "thinking":
            return Reasoning(block.thinking, block.signature, dialect=MESSAGES)
        case "redacted_thinking":
            return Reasoning(encrypted=block.data, dialect=MESSAGES)
    return Native(MESSAGES, data)


def _read_source(block: _Block, source: _Source, cache: str) -> Image | Document | None:
    url = source.url
    if source.type == "base64":
        url = f"data:{source.media_type};base64,{source.data}"
    elif source.type == "text":
        return Document(name=block.title or "", cache=cache, text=source.data)
    elif source.type not in ("url", "file"):
        return None
    if block.type == "image":
        return Image(url, "", cache, source.file_id)
    return Document(url, block.title or "", cache, source.file_id)


def ttl(cache_control: Any) -> str:
    """The time to live of a breakpoint; "" where there is none."""
    if not isinstance(cache_control, dict) or not cache_control:
        return ""
    return str(cache_control.get("ttl") or "5m")


# Outwards


def write_cache(cache: str) -> dict[str, Any]:
    """The field that sets a breakpoint, if one is wanted; five minutes is the API's default."""
    if not cache:
        return {}
    longer = {} if cache == "5m" else {"ttl": cache}
    return {"cache_control": {"type": "ephemeral", **longer}}


def is_signed(part: Reasoning) -> bool:
    """Whether Claude can take this reasoning back: unsigned thoughts are refused."""
    return bool(part.signature or part.encrypted) and part.dialect in _FAMILY


def write_reasoning(part: Reasoning) -> dict[str, Any]:
    """The block of reasoning that Claude signed."""
    if part.encrypted and not part.text:
        return {"type": "redacted_thinking", "data": part.encrypted}
    return {"type": "thinking", "thinking": part.text, "signature": part.signature}


def write_source(part: Image | Document) -> dict[str, Any]:
    """Where the bytes of an image or a document are."""
    if part.file_id:
        return {"type": "file", "file_id": part.file_id}
    if isinstance(part, Document) and part.text:
        return {"type": "text", "media_type": "text/plain", "data": part.text}
    if not part.url.startswith("data:"):
        return {"type": "url", "url": part.url}
    head, _, data = part.url[5:].partition(",")
    return {"type": "base64", "media_type": head.removesuffix(";base64"), "data": data}
