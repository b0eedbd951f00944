"""OpenAI's Responses API: the dialect, whole answers, errors
(platform.openai.com/docs/api-reference/responses).

The streamed answer is in `openai_responses_reader` and `_writer`, the request in `_request`.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from unbroken.errors import ProviderError, RemoteProtocolError
from unbroken.events import (
    Citation,
    Event,
    MessageStart,
    OtherEvent,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
)
from unbroken.messages import RESPONSES, Request
from unbroken.response import Choice, Response
from unbroken.wire import sse
from unbroken.wire.codec import Codec
from unbroken.wire.error_body import UNREADABLE, parse_error
from unbroken.wire.openai_chat.vocabulary import error_body
from unbroken.wire.openai_responses.reader import (
    DIALECT,
    Answer,
    ResponsesReader,
    decode_item,
    ending,
)
from unbroken.wire.openai_responses.request import decode_request, encode_request, left_out
from unbroken.wire.openai_responses.writer import (
    INCOMPLETE,
    ResponsesWriter,
    answer_object,
    usage_to,
)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Answer).decode


class OpenAIResponses(Struct, frozen=True):
    """The dialect."""

    @property
    def name(self) -> str:
        """The dialect's name, as it stands in natives."""
        return RESPONSES

    def encode_request(self, request: Request) -> bytes:
        """The body of POST /responses; LocalProtocolError names what can't be expressed."""
        return encode_request(request)

    def omitted(self, request: Request) -> tuple[str, ...]:
        """The paths of what the body leaves out."""
        return left_out(request)

    def decode_request(self, body: bytes) -> Request:
        """The request in a body; BadRequest says what is wrong with it."""
        return decode_request(body)

    def reader(self, _request: Request) -> ResponsesReader:
        """A decoder for one streamed answer."""
        return ResponsesReader()

    def writer(self, request: Request, created: int = 0) -> ResponsesWriter:
        """An encoder for one streamed answer."""
        return ResponsesWriter(created, background=bool(request.option("background")))

    def decode_response(self, body: bytes) -> list[Event]:
        """The events of a whole answer. RemoteProtocolError if it is none."""
        try:
            answer = _decode(body)
            out: list[Event] = [MessageStart(answer.id or "", answer.model or "")]
            calls = _output(answer.output or [], out)
        except UNREADABLE as error:
            raise RemoteProtocolError(f"the answer can't be read: {error}") from error
        if answer.error is not None:
            raise parse_error(_encode({"error": answer.error}))
        if answer.status in ("completed", "incomplete"):
            out += ending(answer, called=calls > 0)
        return out

    def encode_response(self, response: Response, created: int = 0) -> bytes:
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

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """The error an HTTP status of 400 and up stands for."""
        return parse_error(body, status, headers)

    def encode_error(self, error: ProviderError) -> bytes:
        """The error object that goes with `error.status`."""
        return _encode(error_body(error))


def _output(items: list[Raw], out: list[Event]) -> int:
    """Append what the items say; how many of them are calls."""
    calls = 0
    for raw in items:
        item = decode_item(raw)
        if item.type == "function_call":
            out.append(ToolCallStart(calls, item.call_id or f"call_{calls}", item.name or ""))
            out.append(ToolCallDelta(calls, item.arguments or ""))
            calls += 1
        elif item.type == "reasoning":
            said = "\n\n".join(piece.text or "" for piece in item.summary or item.content or ())
            out.append(ReasoningDelta(said, signature=item.encrypted_content or ""))
        elif item.type == "message":
            for piece in item.content or ():
                out += [TextDelta(piece.text)] if piece.text else []
                out += [RefusalDelta(piece.refusal)] if piece.refusal else []
                out += [Citation(bytes(named).decode()) for named in piece.annotations or ()]
        else:
            out.append(OtherEvent(item.type, bytes(raw).decode(), dialect=DIALECT))
    return calls


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


CODEC = Codec(sse.SseDecoder, sse.encode, OpenAIResponses())
