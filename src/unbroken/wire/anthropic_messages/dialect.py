"""Anthropic messages: the dialect, whole answers, errors (platform.claude.com: messages).

The streamed answer is in `anthropic_reader` and `anthropic_writer`, the request in
`anthropic_request`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from unbroken.errors import ProviderError, RemoteProtocolError
from unbroken.events import ChoiceEnd, Event, MessageEnd, MessageStart, Usage, UsageReport
from unbroken.messages import MESSAGES, Request
from unbroken.response import Choice, Response
from unbroken.wire import sse
from unbroken.wire.anthropic_messages.passthrough import blocks_of, starting
from unbroken.wire.anthropic_messages.reader import Block, MessagesReader, block_events
from unbroken.wire.anthropic_messages.request import decode_request, encode_request, left_out
from unbroken.wire.anthropic_messages.vocabulary import (
    FINISH,
    MessagesUsage,
    error_body,
    message_body,
    usage_from,
    usage_to,
    word_for,
)
from unbroken.wire.anthropic_messages.writer import MessagesWriter
from unbroken.wire.codec import Codec
from unbroken.wire.error_body import UNREADABLE, parse_error

_encode = msgspec.json.Encoder().encode


class _Completion(Struct):
    id: str | None = None
    model: str | None = None
    content: list[Raw] | None = None
    stop_reason: str | None = None
    usage: MessagesUsage | None = None
    error: Any = None


_decode_completion = msgspec.json.Decoder(_Completion).decode
_decode_block = msgspec.json.Decoder(Block).decode


class AnthropicMessages(Struct, frozen=True):
    """The dialect. `default_max_tokens` stands in where the caller set none: the API wants one.

    It is as large as every current model allows without special headers.
    """

    default_max_tokens: int = 16_384

    @property
    def name(self) -> str:
        """The dialect's name, as it stands in natives."""
        return MESSAGES

    def encode_request(self, request: Request) -> bytes:
        """The body of POST /v1/messages; LocalProtocolError names what can't be expressed."""
        return encode_request(request, self.default_max_tokens)

    def omitted(self, request: Request) -> tuple[str, ...]:
        """The paths of what the body leaves out."""
        return left_out(request)

    def decode_request(self, body: bytes) -> Request:
        """The request in a body; BadRequest says what is wrong with it."""
        return decode_request(body)

    def reader(self, request: Request) -> MessagesReader:
        """A decoder for one streamed answer."""
        return MessagesReader()

    def writer(self, request: Request, created: int = 0) -> MessagesWriter:
        """An encoder for one streamed answer."""
        return MessagesWriter()

    def decode_response(self, body: bytes) -> list[Event]:
        """The events of a whole answer. RemoteProtocolError if it is none."""
        try:
            said = _decode_completion(body)
            content = _content_events(said.content or ())
        except UNREADABLE as error:
            raise RemoteProtocolError(f"the answer can't be read: {error}") from error
        if said.error is not None:
            raise parse_error(body)
        out: list[Event] = [MessageStart(said.id or "", said.model or ""), *content]
        usage = None if said.usage is None else usage_from(said.usage)
        if usage is not None:
            out.append(UsageReport(usage))
        if said.stop_reason:
            end = ChoiceEnd(FINISH.get(said.stop_reason, "stop"), said.stop_reason)
            out += [end, MessageEnd(end.finish_reason, usage, end.raw)]
        return out

    def encode_response(self, response: Response, created: int = 0) -> bytes:
        """The body of a whole answer."""
        choice = response.choices[0]
        finish = choice.finish_reason
        usage = usage_to(response.usage or Usage())  # the SDKs' type has no answer without
        body = message_body(response.id, response.model, usage)
        body["content"] = _blocks_of(choice)
        body["stop_reason"] = finish and word_for(finish, choice.raw_finish_reason)
        return _encode(body)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """The error an HTTP status of 400 and up stands for."""
        return parse_error(body, status, headers)

    def encode_error(self, error: ProviderError) -> bytes:
        """The error object that goes with `error.status`."""
        return _encode(error_body(error))


def _content_events(blocks: Iterable[Raw]) -> list[Event]:
    """What the blocks say; each as it would start, for the kinds we have no word for."""
    out: list[Event] = []
    calls = -1
    for index, raw in enumerate(blocks):
        block = _decode_block(raw)
        calls += block.type == "tool_use"
        block_events(block, calls, starting(index, raw), out)
    return out


def _blocks_of(choice: Choice) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if choice.reasoning:
        signature = choice.reasoning_signature
        thought = {"type": "thinking", "thinking": choice.reasoning, "signature": signature}
        blocks.append(thought)
    blocks += _texts(choice)
    for call in choice.tool_calls:
        made = {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}
        blocks.append(made)
    return blocks


def _texts(choice: Choice) -> list[dict[str, Any]]:
    """The text, and between its parts the blocks that were kept. The citations go with its end."""
    text, begin = choice.text + choice.refusal, 0
    blocks: list[dict[str, Any]] = []
    for at, block in [*blocks_of(choice.others), (len(text), {})]:
        if text[begin:at]:
            blocks.append({"type": "text", "text": text[begin:at]})
        begin = max(begin, at)
        blocks += [block] if block else []
    named = [Raw(citation.encode()) for citation in choice.citations]
    last = next((block for block in reversed(blocks) if block["type"] == "text"), None)
    if named and last is not None:
        last["citations"] = named
    return blocks


CODEC = Codec(sse.SseDecoder, sse.encode, AnthropicMessages())
