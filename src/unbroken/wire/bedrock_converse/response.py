"""The answer of Bedrock's Converse in one piece, both ways."""

from typing import Any

import msgspec
from msgspec import Struct

from unbroken.events import (
    BlockEnd,
    BlockKind,
    BlockStart,
    Citation,
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
from unbroken.parts import (
    CONVERSE,
    Native,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolUse,
)
from unbroken.response import Choice, Response
from unbroken.wire.bedrock_converse.vocabulary import (
    DIALECT,
    FINISH,
    ConverseUsage,
    usage_from,
    usage_to,
    word_for,
)
from unbroken.wire.error_body import not_an_answer
from unbroken.wire.finish import failure, is_failure, judge
from unbroken.wire.lenient import convert, mend

_encode = msgspec.json.Encoder().encode


class _Use(Struct, rename="camel"):
    tool_use_id: str = ""
    name: str = ""
    type: str | None = None
    input: Any = None


class _Thought(Struct):
    text: str = ""
    signature: str = ""


class _Reasoning(Struct, rename="camel"):
    reasoning_text: _Thought | None = None
    redacted_content: str = ""


class _Piece(Struct):
    text: str = ""


class _Cited(Struct):
    content: list[_Piece] = []
    citations: list[dict[str, Any]] = []


class _Block(Struct, rename="camel"):
    text: str | None = None
    tool_use: _Use | None = None
    reasoning_content: _Reasoning | None = None
    citations_content: _Cited | None = None


class _Message(Struct):
    content: list[dict[str, Any]] = []


class _Output(Struct):
    message: _Message | None = None


class _Completion(Struct, rename="camel"):
    output: _Output | None = None
    stop_reason: str | None = None
    usage: ConverseUsage | None = None


_decode = msgspec.json.Decoder(_Completion).decode


def decode_body(body: bytes) -> list[Event]:
    """The events of a whole answer. Raises RemoteProtocolError or ProviderError if it is none."""
    documents = mend(body, _Completion)
    answer = _decode(documents[0]) if documents else _Completion()
    if answer.output is None and not answer.stop_reason:
        raise not_an_answer(body)
    out: list[Event] = [MessageStart()]
    message = answer.output and answer.output.message
    _read_blocks(message.content if message else [], out)
    usage = None if answer.usage is None else usage_from(answer.usage)
    if usage is not None:
        out.append(UsageReport(usage))
    if answer.stop_reason:
        end = judge(FINISH, answer.stop_reason)
        if is_failure(end):
            raise failure(end)
        out += [end, MessageEnd(end.finish_reason, usage, end.raw, known=end.known)]
    return out


def _read_blocks(content: list[dict[str, Any]], out: list[Event]) -> None:
    calls = 0
    for number, fields in enumerate(content):
        block = convert(fields, _Block)
        kind = _kind(block)
        out.append(BlockStart(number, kind))
        if kind == "tool_call" and block.tool_use is not None:
            use = block.tool_use
            out.append(ToolCallStart(calls, use.tool_use_id or f"call_{calls}", use.name))
            out.append(ToolCallDelta(calls, _encode(use.input or {}).decode()))
            calls += 1
        elif kind == "other":
            out.append(OtherEvent("contentBlock", _encode(fields).decode(), dialect=DIALECT))
        else:
            _read_text(block, out)
        out.append(BlockEnd(number, _encode(fields).decode(), DIALECT))


def _kind(block: _Block) -> BlockKind:
    if block.tool_use is not None:
        return "other" if block.tool_use.type else "tool_call"
    if block.reasoning_content is not None:
        return "reasoning"
    return "other" if block.text is None and block.citations_content is None else "text"


def _read_text(block: _Block, out: list[Event]) -> None:
    if block.reasoning_content is not None:
        thought = block.reasoning_content.reasoning_text or _Thought()
        opaque = block.reasoning_content.redacted_content
        out.append(ReasoningDelta(thought.text, signature=thought.signature, encrypted=opaque))
    cited = block.citations_content or _Cited()
    text = (block.text or "") + "".join(piece.text for piece in cited.content)
    out += [TextDelta(text)] if text else []
    out.extend(Citation(_encode(citation).decode()) for citation in cited.citations)


def encode_body(response: Response) -> bytes:
    """The body of a whole answer."""
    choice = response.choices[0]
    return _encode(
        {
            "output": {"message": {"role": "assistant", "content": _content(choice)}},
            "stopReason": word_for(choice.finish_reason or "stop", choice.raw_finish_reason),
            "usage": usage_to(response.usage or Usage()),
            "metrics": {"latencyMs": 0},
        }
    )


def _content(choice: Choice) -> list[Any]:
    """The blocks as they came from this dialect, else written from the parts of the turn."""
    native = choice.turn.native_of(CONVERSE)
    if native is not None:
        return list(native["content"])
    return [block for part in choice.turn.parts for block in _block(part)]


def _block(part: Part) -> list[dict[str, Any]]:
    match part:
        case Reasoning(encrypted=data, dialect="bedrock") if data:
            return [{"reasoningContent": {"redactedContent": data}}]
        case Reasoning(text=text, signature=signature) if text or signature:
            thought = {"text": text, "signature": signature}
            return [{"reasoningContent": {"reasoningText": thought}}]
        case Text(text=text) | Refusal(text=text):
            return [{"text": text}]
        case ToolUse(id=id, name=name, arguments=arguments, custom=custom):
            made = {"input": arguments} if custom else msgspec.json.decode(arguments)
            return [{"toolUse": {"toolUseId": id, "name": name, "input": made}}]
        case Native(dialect="bedrock", data=data):
            return [data]
    return []
