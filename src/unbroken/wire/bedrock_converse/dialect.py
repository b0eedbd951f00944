"""Amazon Bedrock's Converse: the dialect, whole answers, errors
(docs.aws.amazon.com/bedrock: API_runtime_Converse).
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from unbroken.errors import ProviderError, RemoteProtocolError
from unbroken.events import (
    ChoiceEnd,
    Event,
    MessageEnd,
    MessageStart,
    OtherEvent,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
    UsageReport,
)
from unbroken.messages import CONVERSE, Request
from unbroken.response import Choice, Response
from unbroken.wire import eventstream
from unbroken.wire.bedrock_converse.request import decode_request, encode_request, left_out
from unbroken.wire.bedrock_converse.stream import (
    DIALECT,
    FINISH,
    ConverseReader,
    ConverseUsage,
    ConverseWriter,
    usage_from,
    usage_to,
    word_for,
)
from unbroken.wire.codec import Codec
from unbroken.wire.error_body import UNREADABLE, parse_error

_encode = msgspec.json.Encoder().encode


class _Use(Struct, rename="camel"):
    tool_use_id: str = ""
    name: str = ""
    input: Raw = Raw(b"{}")


class _Thought(Struct):
    text: str = ""
    signature: str = ""


class _Reasoning(Struct, rename="camel"):
    reasoning_text: _Thought | None = None


class _Block(Struct, rename="camel"):
    text: str | None = None
    tool_use: _Use | None = None
    reasoning_content: _Reasoning | None = None


class _Message(Struct):
    content: list[Raw] = []


class _Output(Struct):
    message: _Message | None = None


class _Completion(Struct, rename="camel"):
    output: _Output | None = None
    stop_reason: str | None = None
    usage: ConverseUsage | None = None


_decode = msgspec.json.Decoder(_Completion).decode
_decode_block = msgspec.json.Decoder(_Block).decode


class BedrockConverse(Struct, frozen=True):
    """The dialect."""

    @property
    def name(self) -> str:
        """The dialect's name, as it stands in natives."""
        return CONVERSE

    def encode_request(self, request: Request) -> bytes:
        """The body of POST /model/ID/converse; LocalProtocolError names what can't be said."""
        return encode_request(request)

    def omitted(self, request: Request) -> tuple[str, ...]:
        """The paths of what the body leaves out."""
        return left_out(request)

    def decode_request(self, body: bytes) -> Request:
        """The request in a body, without its model; BadRequest says what is wrong with it."""
        return decode_request(body)

    def reader(self, _request: Request) -> ConverseReader:
        """A decoder for one streamed answer."""
        return ConverseReader()

    def writer(self, _request: Request, _created: int = 0) -> ConverseWriter:
        """An encoder for one streamed answer."""
        return ConverseWriter()

    def decode_response(self, body: bytes) -> list[Event]:
        """The events of a whole answer. RemoteProtocolError if it is none."""
        try:
            said = _decode(body)
            out: list[Event] = [MessageStart()]
            message = said.output and said.output.message
            _blocks(message.content if message else [], out)
        except UNREADABLE as error:
            raise RemoteProtocolError(f"the answer can't be read: {error}") from error
        usage = None if said.usage is None else usage_from(said.usage)
        if usage is not None:
            out.append(UsageReport(usage))
        if said.stop_reason:
            end = ChoiceEnd(FINISH.get(said.stop_reason, "stop"), said.stop_reason)
            out += [end, MessageEnd(end.finish_reason, usage, end.raw)]
        return out

    def encode_response(self, response: Response, _created: int = 0) -> bytes:
        """The body of a whole answer."""
        choice = response.choices[0]
        reason = choice.finish_reason
        return _encode(
            {
                "output": {"message": {"role": "assistant", "content": _content(choice)}},
                "stopReason": word_for(reason or "stop", choice.raw_finish_reason),
                "usage": usage_to(response.usage or Usage()),
                "metrics": {"latencyMs": 0},
            }
        )

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """The error an HTTP status stands for; its name comes in a header."""
        error = parse_error(body, status, headers)
        named = headers.get("x-amzn-errortype", "").partition(":")[0]
        error.code = named or error.code
        return error

    def encode_error(self, error: ProviderError) -> bytes:
        """The body that goes with `error.status`."""
        return _encode({"message": error.message or type(error).__name__})


def _blocks(content: list[Raw], out: list[Event]) -> None:
    calls = 0
    for raw in content:
        block = _decode_block(raw)
        if block.tool_use is not None:
            use = block.tool_use
            out.append(ToolCallStart(calls, use.tool_use_id, use.name))
            out.append(ToolCallDelta(calls, bytes(use.input).decode()))
            calls += 1
        elif block.reasoning_content is not None:
            thought = block.reasoning_content.reasoning_text or _Thought()
            out.append(ReasoningDelta(thought.text, signature=thought.signature))
        elif block.text is not None:
            out += [TextDelta(block.text)] if block.text else []
        else:
            out.append(OtherEvent("contentBlock", bytes(raw).decode(), dialect=DIALECT))


def _content(choice: Choice) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if choice.reasoning:
        thought = {"text": choice.reasoning, "signature": choice.reasoning_signature}
        blocks.append({"reasoningContent": {"reasoningText": thought}})
    if text := choice.text + choice.refusal:
        blocks.append({"text": text})
    for call in choice.tool_calls:
        use = {"toolUseId": call.id, "name": call.name, "input": call.arguments}
        blocks.append({"toolUse": use})
    return blocks


CODEC = Codec(
    eventstream.EventStreamDecoder,
    eventstream.encode,
    BedrockConverse(),
    eventstream.CONTENT_TYPE,
)
