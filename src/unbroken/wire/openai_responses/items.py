"""The items of the Responses API: turns, calls and what came of them, both ways
(platform.openai.com/docs/api-reference/responses/create#responses-create-input).

One turn of the model is several items: reasoning, text, calls. They are read as one message, which
also puts parallel calls back into one turn.
"""

import base64
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from unbroken.errors import LocalProtocolError
from unbroken.messages import (
    RESPONSES,
    Audio,
    Document,
    Image,
    Message,
    Native,
    Part,
    Reasoning,
    Refusal,
    Role,
    Text,
    ToolResult,
    ToolUse,
)
from unbroken.messages.worded import read_each
from unbroken.ready import ready
from unbroken.wire.signed import unpack
from unbroken.wire.tool_names import flat_name

_ROLES: dict[str, Role] = {
    "user": "user",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
}
_OUTPUTS = frozenset({"function_call_output", "custom_tool_call_output", "local_shell_call_output"})


class _Piece(Struct):
    text: str | None = None


@ready
class _Item(Struct):
    """What is read of an item; which fields count is said by `type`."""

    type: str = "message"
    role: str = ""
    content: str | list[dict[str, Any]] | None = None
    id: str | None = None
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: str | None = None
    input: str | None = None
    action: Any = None
    output: Any = None
    summary: list[_Piece] | None = None
    encrypted_content: str | None = None


@ready
class _Part(Struct):
    type: str = ""
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    file_id: str | None = None
    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None
    detail: str | None = None


# Inwards


def read_input(said: str | list[dict[str, Any]]) -> tuple[Message, ...]:
    """The messages of an `input`. LocalProtocolError names an item that can't be read."""
    if isinstance(said, str):
        return (Message("user", (Text(said),), Native(RESPONSES, said)),)
    return tuple(_messages(said))


def _messages(items: list[dict[str, Any]]) -> Iterator[Message]:
    """One message for each turn: neighbours of the model's are one, and so are outputs."""
    role: Role | None = None
    parts: list[Part] = []
    native: list[Any] = []
    for (now, read), data in zip(read_each(_read_item, items, "input"), items, strict=True):
        if role is not None and (now != role or now in ("user", "system")):
            yield Message(role, tuple(parts), Native(RESPONSES, native))
            parts, native = [], []
        role = now
        parts += read
        if not any(isinstance(p, Reasoning) and p.dialect != RESPONSES for p in read):
            native.append(data)  # what was packed for the client means nothing to OpenAI
    if role is not None:
        yield Message(role, tuple(parts), Native(RESPONSES, native))


def _read_item(data: dict[str, Any]) -> tuple[Role, Sequence[Part]]:
    item = msgspec.convert(data, _Item)
    return _role(item), _parts(item, data)


def _role(item: _Item) -> Role:
    if item.type in _OUTPUTS:
        return "tool"
    if item.type != "message":
        return "assistant"
    if item.role not in _ROLES:
        raise msgspec.ValidationError(f"role {item.role!r} is none of {', '.join(_ROLES)}")
    return _ROLES[item.role]


def _parts(item: _Item, data: dict[str, Any]) -> Sequence[Part]:
    match item.type:
        case "message" if isinstance(item.content, str):
            return [Text(item.content)]
        case "message":
            return read_each(_part, _dicts(item.content), "content")
        case "reasoning":
            return [_reasoning(item)]
        case "function_call":
            name = flat_name(item.namespace or "", item.name or "")
            return [ToolUse(item.call_id or "", name, item.arguments or "")]
        case "custom_tool_call":
            name = flat_name(item.namespace or "", item.name or "")
            return [ToolUse(item.call_id or "", name, item.input or "", custom=True)]
        case "local_shell_call":
            action = msgspec.json.encode(item.action or {}).decode()
            return [ToolUse(item.call_id or "", "local_shell", action)]
        case kind if kind in _OUTPUTS:
            custom = kind == "custom_tool_call_output"
            return [ToolResult(item.call_id or item.id or "", _output(item.output), custom=custom)]
    return [Native(RESPONSES, data)]


def _dicts(content: Any) -> list[dict[str, Any]]:
    return content if isinstance(content, list) else []


def _reasoning(item: _Item) -> Reasoning:
    packed = unpack(item.encrypted_content)
    if packed is not None:
        return packed
    text = "\n\n".join(piece.text or "" for piece in item.summary or ())
    return Reasoning(text, encrypted=item.encrypted_content or "", dialect=RESPONSES)


def _output(output: Any) -> Any:
    """A text, or parts; anything else is written as the JSON that it is."""
    if isinstance(output, list) and all(isinstance(part, dict) for part in output):
        return read_each(_part, output, "output")
    return output if isinstance(output, str) else msgspec.json.encode(output).decode()


def _part(data: dict[str, Any]) -> Any:
    part = msgspec.convert(data, _Part)
    if part.type == "input_image" and (part.image_url or part.file_id):
        return Image(part.image_url or "", part.detail or "", file_id=part.file_id or "")
    if part.type == "input_file":
        url = part.file_data or part.file_url or ""
        return Document(url, part.filename or "", file_id=part.file_id or "")
    if part.refusal is not None:
        return Refusal(part.refusal)
    return Native(RESPONSES, data) if part.text is None else Text(part.text)


# Outwards


def write_items(message: Message) -> Iterator[Any]:
    """The items of a message: as they were read, or written from its parts."""
    native = message.native_of(RESPONSES)
    if isinstance(native, list):
        yield from native
        return
    said: list[dict[str, Any]] = []
    role = "user" if message.role == "tool" else message.role
    results = [part for part in message.parts if isinstance(part, ToolResult)]
    others = [part for part in message.parts if not isinstance(part, ToolResult)]
    for part in (*results, *others):
        if isinstance(part, _SAID):
            said.append(_write_part(part, role))
            continue
        if said:
            yield {"type": "message", "role": role, "content": said}
            said = []
        yield from _write_item(part)
    if said:
        yield {"type": "message", "role": role, "content": said}


_SAID = (Text, Image, Document, Refusal, Audio)


def _write_item(part: Part) -> Iterator[dict[str, Any]]:
    match part:
        case ToolUse(custom=True):
            named = {"call_id": part.id, "name": part.name, "input": part.arguments}
            yield {"type": "custom_tool_call", **named}
        case ToolUse():
            named = {"call_id": part.id, "name": part.name, "arguments": part.arguments}
            yield {"type": "function_call", **named}
        case ToolResult(custom=custom):
            kind = "custom_tool_call_output" if custom else "function_call_output"
            yield {"type": kind, "call_id": part.id, "output": _write_output(part)}
        case Reasoning(dialect="openai-responses", encrypted=encrypted) if encrypted:
            summary = [{"type": "summary_text", "text": part.text}] if part.text else []
            yield {"type": "reasoning", "summary": summary, "encrypted_content": encrypted}
        case Native(dialect="openai-responses", data=data):
            yield data


def _write_output(result: ToolResult) -> Any:
    if isinstance(result.content, str):
        return result.content
    return [_write_part(part, "user") for part in result.content]


def _write_part(part: Any, role: str) -> dict[str, Any]:
    match part:
        case Text(text=text):
            return {"type": "output_text" if role == "assistant" else "input_text", "text": text}
        case Refusal(text=text):
            return {"type": "refusal", "refusal": text}
        case Image(file_id=file_id):
            where = {"file_id": file_id} if file_id else {"image_url": part.url}
            return {"type": "input_image", **where, "detail": part.detail or "auto"}
        case Document():
            return {"type": "input_file", **_write_file(part)}
        case Native(dialect="openai-responses", data=data):
            return dict(data)
    kind = type(part).__name__.lower()
    raise LocalProtocolError(f"the Responses API takes no {kind} in a conversation")


def _write_file(document: Document) -> dict[str, Any]:
    if document.file_id:
        return {"file_id": document.file_id}
    if document.text:
        raw = base64.b64encode(document.text.encode()).decode()
        data = f"data:text/plain;base64,{raw}"
        return {"filename": document.name or "document.txt", "file_data": data}
    if document.url.startswith("data:"):
        return {"filename": document.name or "document.pdf", "file_data": document.url}
    return {"file_url": document.url}
