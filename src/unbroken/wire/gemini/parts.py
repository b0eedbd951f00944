"""The parts of a turn at Gemini, both ways (ai.google.dev/api/caching: Content, Part).

A call and its result may lack an id: then the order of the calls of one name tells them apart, and
the ids of `call_id` stand in on our side.
"""

import mimetypes
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from unbroken.errors import LocalProtocolError
from unbroken.messages import (
    Audio,
    Document,
    Image,
    Message,
    Native,
    Part,
    Reasoning,
    Refusal,
    ResultPart,
    Text,
    ToolResult,
    ToolUse,
)
from unbroken.messages.worded import read_each
from unbroken.ready import ready
from unbroken.wire.gemini.vocabulary import DIALECT, NAMELESS, call_id, encode
from unbroken.wire.tool_names import as_function
from unbroken.wire.turns import arguments_object

SKIP_SIGNATURE = "skip_thought_signature_validator"
"""What Gemini 3 takes in place of a signature for a call that it did not make itself
(ai.google.dev: thought signatures, FAQ).
"""

_FILES = "/v1beta/files/"


# Outwards


class TurnWriter:
    """Writes the turns of one request; results need the names of the calls before them.

    `nested`: the model takes pictures within the result of a function (Gemini 3 and later).
    """

    def __init__(self, *, signed: bool, nested: bool) -> None:
        self._signed, self._nested = signed, nested
        self._names: dict[str, str] = {}

    def turns(self, messages: Iterable[Message]) -> list[dict[str, Any]]:
        """The contents. Neighbours of one role become one, unless both came in this dialect."""
        turns: list[dict[str, Any]] = []
        was_native = False
        for message in messages:
            native = message.native_of(DIALECT)
            self._note(message)
            role = "model" if message.role == "assistant" else "user"
            turn = {"role": role, "parts": self._parts(message)} if native is None else native
            joins = turns and turns[-1].get("role", "user") == turn.get("role", "user")
            if joins and not (was_native and native is not None):
                parts = [*turns[-1]["parts"], *turn["parts"]]
                turns[-1] = {**turns[-1], "parts": parts}
            elif turn["parts"]:
                turns.append(turn)
            was_native = native is not None
        return turns

    def _note(self, message: Message) -> None:
        for part in message.parts:
            if isinstance(part, ToolUse):
                self._names[part.id] = part.name

    def _parts(self, message: Message) -> list[dict[str, Any]]:
        parts = [written for part in message.parts for written in self._part(part)]
        calls = [part for part in parts if "functionCall" in part]
        if calls and self._signed and "thoughtSignature" not in calls[0]:
            calls[0]["thoughtSignature"] = SKIP_SIGNATURE
        return parts

    def _part(self, part: Part) -> list[dict[str, Any]]:
        match part:
            case ToolUse():
                call = as_function(part)
                name = {} if call.id.startswith(NAMELESS) else {"id": call.id}
                made = {**name, "name": call.name, "args": arguments_object(call.arguments)}
                return [{"functionCall": made}]
            case ToolResult():
                return self._result(part)
            case _:
                return write_part(part)

    def _result(self, result: ToolResult) -> list[dict[str, Any]]:
        if result.id not in self._names:
            raise LocalProtocolError(
                f"the tool result {result.id!r} belongs to no call before it: Gemini needs the "
                f"name of the function"
            )
        named = {} if result.id.startswith(NAMELESS) else {"id": result.id}
        answer = {"error" if result.is_error else "output": result.text}
        made: dict[str, Any] = {**named, "name": self._names[result.id], "response": answer}
        others = [p for p in result.parts if not isinstance(p, Text)]
        media = [written for part in others for written in write_part(part)]
        if not media:
            return [{"functionResponse": made}]
        if not self._nested:
            return [{"functionResponse": made}, *media]
        return [{"functionResponse": {**made, "parts": media}}]


def write_part(part: Part | ResultPart) -> list[dict[str, Any]]:
    """A part that stands for itself. Reasoning goes back in the native of its turn, or not."""
    match part:
        case Text(text=text) | Refusal(text=text):
            return [{"text": text}] if text else []
        case Document(text=text, name=name) if text:
            return [{"text": f"{name}\n{text}" if name else text}]
        case Image(url=url, file_id=file_id) | Document(url=url, file_id=file_id):
            return [_media(file_id or url, getattr(part, "name", ""))]
        case Audio(url=url):
            return [_media(url, "")]
        case Native(dialect=dialect, data=data):
            return [data] if dialect == DIALECT else []
        case _:
            return []


def _media(url: str, name: str) -> dict[str, Any]:
    named = {"displayName": name} if name else {}
    if url.startswith("data:"):
        head, _, data = url[5:].partition(",")
        return {"inlineData": {"mimeType": head.removesuffix(";base64"), "data": data, **named}}
    kind = mimetypes.guess_type(url.partition("?")[0])[0]
    known = {"mimeType": kind} if kind else {}
    return {"fileData": {"fileUri": url, **known, **named}}


# Inwards


class _Blob(Struct, rename="camel"):
    mime_type: str = ""
    data: str = ""
    file_uri: str = ""
    display_name: str = ""


class _Call(Struct):
    name: str
    id: str = ""
    args: dict[str, Any] | None = None


class _Response(Struct):
    name: str = ""
    id: str = ""
    response: dict[str, Any] | None = None
    parts: list[dict[str, Any]] = []


class _Part(Struct, rename="camel"):
    text: str | None = None
    thought: bool = False
    thought_signature: str = ""
    inline_data: _Blob | None = None
    file_data: _Blob | None = None
    function_call: _Call | None = None
    function_response: _Response | None = None


@ready
class _Turn(Struct):
    parts: list[dict[str, Any]] = []
    role: str = "user"


class TurnReader:
    """Reads the turns of one request, and gives ids to calls that have none."""

    def __init__(self) -> None:
        self._made = 0
        self._open: list[tuple[str, str]] = []  # name and id of calls without a result

    def turn(self, data: dict[str, Any]) -> Message:
        """The message of a turn; ValidationError if its role is neither user nor model."""
        turn = msgspec.convert(data, _Turn)
        if turn.role not in ("user", "model", "function"):
            raise msgspec.ValidationError(f"a role is user or model, not {turn.role!r}")
        parts = read_each(self._part, turn.parts, "parts")
        role: Any = "assistant" if turn.role == "model" else "user"
        return Message(role, parts, Native(DIALECT, data))

    def _part(self, data: dict[str, Any]) -> Part:
        part = msgspec.convert(data, _Part)
        if part.function_call is not None:
            call = part.function_call
            name = call.id or call_id("", self._made)
            self._made += 1
            self._open.append((call.name, name))
            return ToolUse(name, call.name, encode(call.args or {}).decode())
        if part.function_response is not None:
            return self._result(part.function_response)
        return _read(part) or Native(DIALECT, data)

    def _result(self, answer: _Response) -> ToolResult:
        waiting = [pair for pair in self._open if answer.id in ("", pair[1])]
        pair = next((p for p in waiting if p[0] == answer.name), None) or (answer.name, answer.id)
        if pair in self._open:
            self._open.remove(pair)
        said = answer.response or {}
        text = next((said[k] for k in ("output", "result", "error") if _only(said, k)), None)
        words = text if isinstance(text, str) else encode(said).decode()
        media: Any = read_each(read_part, answer.parts, "functionResponse.parts")
        content: Any = (Text(words), *media) if media else words
        return ToolResult(pair[1], content, is_error=set(said) == {"error"})


def _only(said: dict[str, Any], key: str) -> bool:
    return set(said) == {key} and isinstance(said[key], str)


def read_part(data: dict[str, Any]) -> Part:
    """A part that needs no other to be understood; a Native where we have no word for it."""
    return _read(msgspec.convert(data, _Part)) or Native(DIALECT, data)


def _read(part: _Part) -> Part | None:
    if part.text is not None and part.thought:
        return Reasoning(part.text, part.thought_signature, dialect=DIALECT)
    if part.text is not None:
        return Text(part.text)
    if part.inline_data is not None:
        blob = part.inline_data
        return _as_part(f"data:{blob.mime_type};base64,{blob.data}", blob)
    return None if part.file_data is None else _as_part(part.file_data.file_uri, part.file_data)


def _as_part(url: str, blob: _Blob) -> Part | None:
    kind = blob.mime_type
    uploaded = _FILES in url
    address, file_id = ("", url) if uploaded else (url, "")
    if kind.startswith("image/"):
        return Image(address, file_id=file_id)
    if kind.startswith("audio/") and not file_id:
        return Audio(address)
    if kind.startswith("video/") or not kind:
        return None
    return Document(address, blob.display_name, file_id=file_id)
