"""The content blocks of Converse, both ways (docs.aws.amazon.com/bedrock: ContentBlock)."""

import base64
import re
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from unbroken.errors import LocalProtocolError
from unbroken.messages import (
    CONVERSE,
    Audio,
    Document,
    Image,
    Message,
    Native,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolResult,
    ToolUse,
)
from unbroken.messages.anthropic import is_signed
from unbroken.messages.worded import read_each
from unbroken.ready import ready
from unbroken.wire.tool_names import as_function
from unbroken.wire.turns import data_url

_FORMATS = {
    "application/pdf": "pdf",
    "text/plain": "txt",
    "text/markdown": "md",
    "text/html": "html",
    "text/csv": "csv",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
}
_TYPES = {format_: kind for kind, format_ in _FORMATS.items()}
_IMAGES = frozenset({"png", "jpeg", "gif", "webp"})
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9\s\-()\[\]]+")


# Outwards


def write_blocks(parts: Iterable[Part]) -> list[dict[str, Any]]:
    """The blocks of a turn. A breakpoint of the cache is a block after the one that it ends."""
    blocks: list[dict[str, Any]] = []
    for part in parts:
        written = _write(part)
        blocks += written
        if written and (cache := getattr(part, "cache", "")):
            blocks.append({"cachePoint": _cache_point(cache)})
    return blocks


def _cache_point(cache: str) -> dict[str, str]:
    return {"type": "default"} | ({} if cache == "5m" else {"ttl": cache})


def _write(part: Part) -> list[dict[str, Any]]:
    match part:
        case Text(text=text) | Refusal(text=text):
            return [{"text": text}] if text else []
        case Image():
            return [{"image": _media(part, "images", _IMAGES, "image/")}]
        case Audio():
            return [{"audio": _media(part, "recordings", None, "audio/")}]
        case Document():
            return [{"document": _document(part)}]
        case ToolUse():
            return [{"toolUse": _tool_use(as_function(part))}]
        case ToolResult():
            return [{"toolResult": _tool_result(part)}]
        case Reasoning():
            return [{"reasoningContent": _reasoning(part)}] if is_signed(part) else []
        case Native(dialect=dialect, data=data):
            return [data] if dialect == CONVERSE else []


def _media(
    part: Image | Audio, what: str, known: frozenset[str] | None, head: str
) -> dict[str, Any]:
    if isinstance(part, Image) and part.file_id:
        raise LocalProtocolError("Bedrock's Converse knows no uploaded files: send the bytes")
    kind, data = data_url(part.url, what)
    format_ = kind.removeprefix(head)
    if not kind.startswith(head) or (known is not None and format_ not in known):
        raise LocalProtocolError(f"Bedrock's Converse takes no {what} of type {kind}")
    return {"format": format_, "source": {"bytes": data}}


def _document(part: Document) -> dict[str, Any]:
    name = _NOT_IN_NAMES.sub(" ", part.name).strip() or "document"
    if part.file_id:
        raise LocalProtocolError("Bedrock's Converse knows no uploaded files: send the bytes")
    if part.text:
        raw = base64.b64encode(part.text.encode()).decode()
        return {"format": "txt", "name": name, "source": {"bytes": raw}}
    kind, data = data_url(part.url, "documents")
    if kind not in _FORMATS:
        raise LocalProtocolError(f"Bedrock's Converse takes no documents of type {kind}")
    return {"format": _FORMATS[kind], "name": name, "source": {"bytes": data}}


def _tool_use(call: ToolUse) -> dict[str, Any]:
    try:
        made = msgspec.json.decode(call.arguments or "{}")
    except msgspec.DecodeError as error:
        raise LocalProtocolError(f"the arguments of a tool call are no JSON: {error}") from error
    return {"toolUseId": call.id, "name": call.name, "input": made}


def _tool_result(result: ToolResult) -> dict[str, Any]:
    failed = {"status": "error"} if result.is_error else {}
    content = [block for part in result.parts for block in _write(part)]
    return {"toolUseId": result.id, "content": content or [{"text": ""}], **failed}


def _reasoning(part: Reasoning) -> dict[str, Any]:
    if part.encrypted and not part.text:
        return {"redactedContent": part.encrypted}
    return {"reasoningText": {"text": part.text, "signature": part.signature}}


# Inwards


class _Source(Struct):
    bytes: str | None = None
    text: str | None = None


class _Media(Struct):
    format: str = ""
    name: str = ""
    source: _Source | None = None


class _Use(Struct):
    toolUseId: str  # noqa: N815  # the wire's name
    name: str
    input: Any


class _Result(Struct):
    toolUseId: str  # noqa: N815
    content: list[dict[str, Any]]
    status: str = ""


class _Thought(Struct):
    text: str = ""
    signature: str = ""


class _Reasoning(Struct):
    reasoningText: _Thought | None = None  # noqa: N815
    redactedContent: str | None = None  # noqa: N815


@ready
class _Block(Struct):
    """What is read of a block: one of these."""

    text: str | None = None
    json: Any = None
    image: _Media | None = None
    document: _Media | None = None
    audio: _Media | None = None
    toolUse: _Use | None = None  # noqa: N815
    toolResult: _Result | None = None  # noqa: N815
    reasoningContent: _Reasoning | None = None  # noqa: N815


@ready
class _Turn(Struct):
    role: str
    content: list[dict[str, Any]]


def read_turn(data: dict[str, Any]) -> Message:
    """The message of a turn; LocalProtocolError if its role is neither user nor assistant."""
    turn = msgspec.convert(data, _Turn)
    if turn.role not in ("user", "assistant"):
        raise msgspec.ValidationError(f"a message's role is user or assistant, not {turn.role!r}")
    role: Any = turn.role
    return Message(role, read_each(read_block, turn.content, "content"), Native(CONVERSE, data))


def read_block(data: dict[str, Any]) -> Any:
    """The part that a block is; a Native where we have no word for it."""
    block = msgspec.convert(data, _Block)
    if block.text is not None:
        return Text(block.text)
    if block.json is not None:
        return Text(msgspec.json.encode(block.json).decode())
    if (use := block.toolUse) is not None:
        return ToolUse(use.toolUseId, use.name, msgspec.json.encode(use.input).decode())
    if (result := block.toolResult) is not None:
        content = read_each(read_block, result.content, "toolResult.content")
        return ToolResult(result.toolUseId, content, result.status == "error")
    return _read_media(block) or _read_reasoning(block) or Native(CONVERSE, data)


def _read_media(block: _Block) -> Part | None:
    for head, media in (("image", block.image), ("audio", block.audio)):
        if media is not None and media.source is not None and media.source.bytes is not None:
            base64.b64decode(media.source.bytes, validate=True)
            url = f"data:{head}/{media.format};base64,{media.source.bytes}"
            return Image(url) if head == "image" else Audio(url)
    document = block.document
    if document is None or document.source is None:
        return None
    if document.source.text is not None:
        return Document(name=document.name, text=document.source.text)
    if document.source.bytes is None or document.format not in _TYPES:
        return None
    return Document(f"data:{_TYPES[document.format]};base64,{document.source.bytes}", document.name)


def _read_reasoning(block: _Block) -> Reasoning | None:
    found = block.reasoningContent
    if found is None:
        return None
    if found.redactedContent is not None:
        return Reasoning(encrypted=found.redactedContent, dialect=CONVERSE)
    said = found.reasoningText or _Thought()
    return Reasoning(said.text, said.signature, dialect=CONVERSE)
