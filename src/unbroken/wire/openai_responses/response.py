"""The answer of the Responses API in one piece, both ways."""

from typing import Any

import msgspec
from msgspec import Raw

from unbroken.events import Event
from unbroken.response import Choice, Response
from unbroken.wire.error_body import not_an_answer, parse_error
from unbroken.wire.lenient import mend
from unbroken.wire.openai_responses.answer import Answer
from unbroken.wire.openai_responses.reader import ResponsesReader
from unbroken.wire.openai_responses.writer import INCOMPLETE, answer_object, usage_to

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


def _items_of(choice: Choice, id: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    done = {"status": "completed"}
    if choice.reasoning:
        summary = [{"type": "summary_text", "text": choice.reasoning}]
        items.append({"id": f"rs_{id}", "type": "reasoning", "summary": summary, **done})
    content: list[dict[str, Any]] = []
    if choice.text:
        named = [Raw(citation.encode()) for citation in choice.citations]
        said = {"text": choice.text, "annotations": named, "logprobs": []}
        content.append({"type": "output_text", **said})
    if choice.refusal:
        content.append({"type": "refusal", "refusal": choice.refusal})
    if content:
        message = {"type": "message", "role": "assistant", "content": content}
        items.append({"id": f"msg_{id}", **message, **done})
    for at, call in enumerate(choice.tool_calls):
        made = {
            "call_id": call.id,
            "name": call.name,
            "arguments": _encode(call.arguments).decode(),
        }
        items.append({"id": f"fc_{id}_{at}", "type": "function_call", **made, **done})
    return items
