"""The answer of the Responses API in one piece, both ways."""

from typing import Any

import msgspec
from msgspec import Raw

from unbroken.events import Event
from unbroken.parts import (
    MESSAGES,
    RESPONSES,
    Native,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolUse,
)
from unbroken.response import Choice, Response
from unbroken.wire.error_body import not_an_answer, parse_error
from unbroken.wire.lenient import mend
from unbroken.wire.openai_responses.answer import Answer
from unbroken.wire.openai_responses.reader import ResponsesReader
from unbroken.wire.openai_responses.writer import INCOMPLETE, answer_object, usage_to
from unbroken.wire.signed import pack

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Answer).decode

_ENDED = ("completed", "incomplete", "failed", "cancelled")


def decode_body(body: bytes) -> list[Event]:
    """The events of a whole answer. Raises RemoteProtocolError or ProviderError if it is none."""
    documents = mend(body, Answer)
    answer = _decode(documents[0]) if documents else Answer()
    if answer.error:
        raise parse_error(_encode({"error": answer.error}))
    if answer.output is None and not answer.status:
        raise not_an_answer(body)
    reader, out = ResponsesReader(), list[Event]()
    if answer.status in _ENDED:
        reader.end_answer(answer, out, status=answer.status)
    else:
        reader.add_answer(answer, out)
    if reader.error is not None:
        raise reader.error
    return out


def encode_body(response: Response, created: int) -> bytes:
    """The body of a whole answer."""
    choice = response.choices[0]
    cut = INCOMPLETE.get(choice.finish_reason or "stop")
    body = answer_object(
        response.id,
        response.model,
        created,
        status="incomplete" if cut else "completed",
        output=_items_of(choice, response.id),
    )
    body["incomplete_details"] = {"reason": cut} if cut else None
    body["usage"] = None if response.usage is None else usage_to(response.usage)
    return _encode(body)


def _items_of(choice: Choice, id: str) -> list[Any]:
    """The items as they came from this dialect, else written from the parts of the turn."""
    native = choice.turn.native_of(RESPONSES)
    if native is not None:
        return list(native)
    items: list[Any] = []
    for part in choice.turn.parts:
        _add(part, items, choice, f"{id}_{len(items)}")
    return items


def _add(part: Part, items: list[Any], choice: Choice, id: str) -> None:
    done = {"status": "completed"}
    match part:
        case Reasoning():
            items.append({"id": f"rs_{id}", "type": "reasoning", **_reasoning(part), **done})
        case Text(text=text):
            cited = [Raw(citation.encode()) for citation in choice.citations]
            cited = cited if text in (choice.text, "") else []
            piece = {"type": "output_text", "text": text, "annotations": cited, "logprobs": []}
            _speak(piece, items, id)
        case Refusal(text=text):
            _speak({"type": "refusal", "refusal": text}, items, id)
        case ToolUse(custom=True):
            call = {"call_id": part.id, "name": part.name, "input": part.arguments}
            items.append({"id": f"ctc_{id}", "type": "custom_tool_call", **call, **done})
        case ToolUse():
            call = {"call_id": part.id, "name": part.name, "arguments": part.arguments}
            items.append({"id": f"fc_{id}", "type": "function_call", **call, **done})
        case Native(dialect="openai-responses", data=data):
            items.append(data)


def _reasoning(part: Reasoning) -> dict[str, Any]:
    summary = [{"type": "summary_text", "text": part.text}] if part.text else []
    sealed = part.encrypted if part.dialect == RESPONSES else ""
    if part.dialect == MESSAGES and (part.signature or part.encrypted):
        sealed = pack(part)
    return {"summary": summary, **({"encrypted_content": sealed} if sealed else {})}


def _speak(piece: dict[str, Any], items: list[Any], id: str) -> None:
    """Text and refusal that follow each other are parts of one message."""
    last = items[-1] if items else {}
    if last.get("type") == "message":
        last["content"].append(piece)
        return
    message = {"type": "message", "role": "assistant", "content": [piece]}
    items.append({"id": f"msg_{id}", **message, "status": "completed"})
