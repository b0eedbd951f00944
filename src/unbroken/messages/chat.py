"""Messages in the shape of OpenAI's chat completions
(platform.openai.com/docs/api-reference/chat/create).

Library callers write this shape as plain dicts, and the dialect's codec reads and writes it.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from unbroken.errors import LocalProtocolError
from unbroken.messages.anthropic import is_block, read_block, ttl
from unbroken.messages.worded import read_each
from unbroken.parts import (
    CHAT,
    Audio,
    Document,
    Image,
    Message,
    Native,
    Part,
    Reasoning,
    Refusal,
    ResultPart,
    Role,
    Text,
    ToolResult,
    ToolUse,
)
from unbroken.ready import ready


class _Function(Struct):
    name: str = ""
    arguments: str = ""


class _Custom(Struct):
    name: str = ""
    input: str = ""


class _Call(Struct):
    id: str = ""
    function: _Function | None = None
    custom: _Custom | None = None


@ready
class _Message(Struct):
    """What is read of a message; all else travels in its native."""

    role: str
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[_Call] | None = None
    function_call: _Function | None = None
    tool_call_id: str | None = None
    name: str | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    thinking_blocks: list[dict[str, Any]] | None = None
    refusal: str | None = None
    audio: dict[str, Any] | None = None


class _ImageUrl(Struct):
    url: str
    detail: str | None = None


class _File(Struct):
    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class _Recording(Struct):
    data: str
    format: str = "wav"


@ready
class _Part(Struct):
    type: str = ""
    text: str | None = None
    refusal: str | None = None
    image_url: _ImageUrl | str | None = None
    file: _File | None = None
    input_audio: _Recording | None = None
    cache_control: Any = None


_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}


def read_message(data: Mapping[str, Any]) -> Message:
    """Return the message that `data` says; msgspec.ValidationError if it is none."""
    read = msgspec.convert(data, _Message)
    role = _ROLES.get(read.role)
    if role is None:
        raise msgspec.ValidationError(f"role {read.role!r} is none of {', '.join(_ROLES)}")
    parts = (_result(read),) if role == "tool" else tuple(_turn(read))
    if not parts and not isinstance(read.content, str) and not data.keys() - _PLAIN:
        raise msgspec.ValidationError("a message needs `content` or `tool_calls`")
    mixed = isinstance(read.content, list) and any(map(is_block, read.content))
    return Message(role, parts, None if mixed else Native(CHAT, dict(data)))


_PLAIN = {"role", "content", "tool_calls"}


def _turn(read: _Message) -> Iterator[Part]:
    """What a turn says, in the order in which a model says it."""
    if read.thinking_blocks:
        yield from read_each(read_block, read.thinking_blocks, "thinking_blocks")
    elif text := read.reasoning_content or (isinstance(read.reasoning, str) and read.reasoning):
        yield Reasoning(text, dialect=CHAT)
    yield from _content(read.content)
    if read.refusal:
        yield Refusal(read.refusal)
    if read.audio is not None:
        yield Native(CHAT, {"audio": read.audio})
    yield from map(_call, read.tool_calls or ())
    if read.function_call is not None:  # the API's older form has no ids
        old = read.function_call
        yield ToolUse(f"call_{old.name}", old.name, old.arguments)


def _call(call: _Call) -> ToolUse:
    if call.custom is not None:
        return ToolUse(call.id, call.custom.name, call.custom.input, custom=True)
    function = call.function or _Function()
    return ToolUse(call.id, function.name, function.arguments)


def _result(read: _Message) -> ToolResult:
    id = read.tool_call_id or (read.name and f"call_{read.name}")
    if not id:
        raise msgspec.ValidationError("a tool message needs `tool_call_id`")
    if not isinstance(read.content, list):
        return ToolResult(id, read.content or "")
    parts: Any = read_each(_part, read.content, "content")
    return ToolResult(id, parts)


def _content(content: str | list[dict[str, Any]] | None) -> Sequence[Part]:
    if isinstance(content, list):
        return read_each(_part, content, "content")
    return [Text(content)] if content else []


def _part(data: dict[str, Any]) -> Part:
    """A content part. Blocks of Anthropic's are read too: some clients mix both shapes."""
    if is_block(data):
        return read_block(data)
    read = msgspec.convert(data, _Part)
    cache = ttl(read.cache_control)
    if read.type in ("text", "input_text", "output_text") and read.text is not None:
        return Text(read.text, cache)
    if read.type == "refusal" and read.refusal is not None:
        return Refusal(read.refusal)
    if read.type in ("image_url", "input_image") and read.image_url is not None:
        image = read.image_url
        image = _ImageUrl(image) if isinstance(image, str) else image
        return Image(image.url, image.detail or "", cache)
    if read.type == "file" and read.file is not None:
        return _document(read.file, cache)
    if read.type == "input_audio" and read.input_audio is not None:
        sound = read.input_audio
        return Audio(f"data:audio/{sound.format};base64,{sound.data}", cache)
    if read.type in _KNOWN:
        raise msgspec.ValidationError(f"a content part of type {read.type!r} is incomplete")
    return Native(CHAT, data)


_KNOWN = {"text", "refusal", "image_url", "file", "input_audio"}


def _document(file: _File, cache: str) -> Document:
    return Document(file.file_data or "", file.filename or "", cache, file.file_id or "")


# Outwards


def write_message(message: Message, *, parts: bool = True) -> list[dict[str, Any]]:
    """The messages that say one of ours: tool results first, each in a message of its own.

    Without `parts`, texts are joined: some servers know no other content.
    """
    pictures: list[Part] = []
    results = [part for part in message.parts if isinstance(part, ToolResult)]
    shaped = [_result_message(result, pictures, parts=parts) for result in results]
    said = [*pictures, *(part for part in message.parts if _is_said(part))]
    calls = [_write_call(part) for part in message.parts if isinstance(part, ToolUse)]
    if said or calls or not shaped:
        role = "user" if message.role == "tool" else message.role
        content = _write_content(said, has_calls=bool(calls), parts=parts)
        shaped.append({"role": role, "content": content})
        if calls:
            shaped[-1]["tool_calls"] = calls
    return shaped


_SAID = (Text, Image, Document, Audio, Refusal)


def _is_said(part: Part) -> bool:
    own = isinstance(part, Native) and part.dialect == CHAT and "type" in part.data
    return own or isinstance(part, _SAID)


def _result_message(result: ToolResult, pictures: list[Part], *, parts: bool) -> dict[str, Any]:
    """A tool message. Documents and recordings can't stand in it: they go into the next turn."""
    if isinstance(result.content, str):
        content: Any = result.content
    else:
        here = [p for p in result.content if isinstance(p, Text | Image)]
        pictures += [p for p in result.content if isinstance(p, Document | Audio)]
        content = _write_content(here, has_calls=False, parts=parts)
    return {"role": "tool", "tool_call_id": result.id, "content": content}


def _write_call(call: ToolUse) -> dict[str, Any]:
    if call.custom:
        return {"id": call.id, "type": "custom", "custom": _named(call, "input")}
    return {"id": call.id, "type": "function", "function": _named(call, "arguments")}


def _named(call: ToolUse, word: str) -> dict[str, str]:
    return {"name": call.name, word: call.arguments}


def _write_content(said: "list[Any]", *, has_calls: bool, parts: bool) -> Any:
    """A plain string wherever it can be one: older compatible servers know nothing else."""
    texts = [part for part in said if isinstance(part, Text | Refusal)]
    if len(texts) == len(said) and (len(said) <= 1 or not parts):
        text = "\n".join(part.text for part in texts)
        return text or (None if has_calls else "")
    return [_write_part(part) for part in said]


def _write_part(part: ResultPart | Refusal) -> dict[str, Any]:
    match part:
        case Text(text=text):
            return {"type": "text", "text": text}
        case Refusal(text=text):
            return {"type": "refusal", "refusal": text}
        case Image(url="", file_id=file_id):
            raise LocalProtocolError(f"chat completions take images by URL, not by id {file_id!r}")
        case Image(url=url, detail=detail):
            image = {"url": url} | ({"detail": detail} if detail else {})
            return {"type": "image_url", "image_url": image}
        case Document():
            return {"type": "file", "file": _write_file(part)}
        case Audio(url=url):
            head, _, data = url.partition(";base64,")
            return {"type": "input_audio", "input_audio": {"data": data, "format": head[11:]}}
        case Native(data=data):
            return dict(data)


def _write_file(document: Document) -> dict[str, Any]:
    if document.file_id:
        return {"file_id": document.file_id}
    if document.text:
        raw = base64.b64encode(document.text.encode()).decode()
        data = f"data:text/plain;base64,{raw}"
        return {"filename": document.name or "document.txt", "file_data": data}
    if not document.url.startswith("data:"):
        raise LocalProtocolError("chat completions take documents as data:...;base64, not by URL")
    return {"filename": document.name or "document.pdf", "file_data": document.url}
