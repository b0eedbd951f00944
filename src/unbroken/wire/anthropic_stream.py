"""The streamed answer of Anthropic messages, both ways (platform.claude.com: streaming messages).

An answer is a row of content blocks, each started, grown and stopped by its index. The terminal
is `message_stop` after a `stop_reason`; there is no `[DONE]`. Facts that shape this file:

* unknown event, block and delta types must be passed over (versioning policy): they become
  `OtherEvent` where they carry content, so that nothing is lost;
* usage in `message_delta` is cumulative, and what it leaves out keeps its earlier value;
* `message_start` carries a placeholder for the output tokens, not a count;
* compatible servers may leave out the `event:` line: the type is read from the JSON.
"""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from unbroken.errors import ProviderError
from unbroken.events import (
    ChoiceEnd,
    Citation,
    Event,
    FinishReason,
    MessageEnd,
    MessageStart,
    OtherEvent,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
    UsageReport,
)
from unbroken.wire.codec import Frame
from unbroken.wire.refusals import UNREADABLE, refusal
from unbroken.wire.template import TextTemplate

FINISH: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_WORD: dict[FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "error": "end_turn",
}

# The type that goes with a status; the others go by their hundred (platform.claude.com: errors).
ERROR_TYPES: dict[int | None, str] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    503: "overloaded_error",
    529: "overloaded_error",
}


class _OutputDetails(Struct, gc=False):
    thinking_tokens: int | None = None


class MessagesUsage(Struct, gc=False):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    output_tokens_details: _OutputDetails | None = None


class _Message(Struct, gc=False):
    id: str | None = None
    model: str | None = None
    usage: MessagesUsage | None = None


class Block(Struct, gc=False):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    id: str | None = None
    name: str | None = None
    input: Any = None
    citations: list[Raw] | None = None


class _Delta(Struct, gc=False):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    citation: Raw = Raw(b"null")  # msgspec reads nothing but null into `Raw | None`
    stop_reason: str | None = None


class _Said(Struct, gc=False):
    type: str = ""
    index: int = 0
    message: _Message | None = None
    content_block: Block | None = None
    delta: _Delta | None = None
    usage: MessagesUsage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Said).decode
_encode = msgspec.json.Encoder().encode


def merged(old: MessagesUsage, new: MessagesUsage) -> MessagesUsage:
    """Cumulative: what is said replaces, what is not said stays."""
    said = {k: v for k, v in msgspec.structs.asdict(new).items() if v is not None}
    return msgspec.structs.replace(old, **said)


def usage_from(wire: MessagesUsage) -> Usage:
    """Anthropic counts cached tokens beside the input, we count them within it."""
    cached = wire.cache_read_input_tokens or 0
    written = wire.cache_creation_input_tokens or 0
    details = wire.output_tokens_details
    return Usage(
        input_tokens=(wire.input_tokens or 0) + cached + written,
        output_tokens=wire.output_tokens or 0,
        cached_input_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=(details and details.thinking_tokens) or 0,
    )


def usage_to(usage: Usage) -> dict[str, Any]:
    """The `usage` object of an answer."""
    cached, written = usage.cached_input_tokens, usage.cache_write_tokens
    details = {"output_tokens_details": {"thinking_tokens": usage.reasoning_tokens}}
    return {
        "input_tokens": max(0, usage.input_tokens - cached - written),
        "output_tokens": usage.output_tokens,
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": written,
        **(details if usage.reasoning_tokens else {}),
    }


class MessagesReader:
    """Frames in, events out, for one streamed answer."""

    def __init__(self) -> None:
        self.error: ProviderError | None = None
        self.skipped, self.done = 0, False
        self.cursor: dict[str, str] | None = None  # nothing to go on from
        self._counted = MessagesUsage()  # as the wire has it, so that what is left out stays
        self._usage: Usage | None = None
        self._end: ChoiceEnd | None = None
        self._calls: dict[int, int] = {}  # block index to call index
        self._call = -1  # the newest call: some servers use one block index for all
        self._like = TextTemplate("text")
        self._table = {
            "message_start": self._message_start,
            "content_block_start": self._block_start,
            "content_block_delta": self._block_delta,
            "message_delta": self._message_delta,
            "message_stop": self._message_stop,
        }

    def read(self, frames: list[Frame], out: list[Event]) -> None:
        """Append what the events say. What can't be read is passed over and counted."""
        like = self._like.read
        for frame in frames:
            try:
                text = like(frame.data)
                if text:
                    out.append(TextDelta(text))
                else:
                    self._read_whole(frame, out)
            except UNREADABLE:
                self.skipped += 1
            if self.error is not None:
                return  # an error ends the stream, whatever follows it

    def _read_whole(self, frame: Frame, out: list[Event]) -> None:
        said = _decode(frame.data)
        kind = said.type or frame.event
        if kind == "error" or said.error is not None:
            self.error = refusal(frame.data)
            return
        read = self._table.get(kind)  # ping, content_block_stop and what comes after us
        if read is not None:
            read(said, frame.data, out)

    def eof(self, out: list[Event]) -> None:
        """A clean end says nothing: only `message_stop` does."""

    def _message_start(self, said: _Said, _data: bytes, out: list[Event]) -> None:
        message = said.message or _Message()
        out.append(MessageStart(message.id or "", message.model or ""))
        if message.usage is not None:
            self._counted = msgspec.structs.replace(message.usage, output_tokens=0)
            self._usage = msgspec.structs.replace(usage_from(self._counted), source="partial")
            out.append(UsageReport(self._usage))

    def _block_start(self, said: _Said, data: bytes, out: list[Event]) -> None:
        block = said.content_block or Block()
        if not block.type:
            self.skipped += 1
            return
        if block.type == "tool_use":
            self._call += 1
            self._calls[said.index] = self._call
        block_events(block, self._call, data, out)

    def _block_delta(self, said: _Said, data: bytes, out: list[Event]) -> None:
        delta = said.delta or _Delta()
        match delta.type:
            case "":
                self.skipped += 1
            case "text_delta":
                if delta.text:
                    out.append(TextDelta(delta.text))
                    self._like.learn(data, delta.text)
            case "thinking_delta" | "signature_delta":
                if delta.thinking or delta.signature:
                    thought, proof = delta.thinking or "", delta.signature or ""
                    out.append(ReasoningDelta(thought, signature=proof))
            case "input_json_delta" if said.index in self._calls:
                if delta.partial_json:
                    out.append(ToolCallDelta(self._calls[said.index], delta.partial_json))
            case "citations_delta":
                out.append(Citation(bytes(delta.citation).decode()))
            case _:
                out.append(OtherEvent(delta.type, data.decode()))

    def _message_delta(self, said: _Said, _data: bytes, out: list[Event]) -> None:
        raw = said.delta and said.delta.stop_reason
        if raw and self._end is None:
            self._end = ChoiceEnd(FINISH.get(raw, "stop"), raw)
            out.append(self._end)
        if said.usage is not None:
            self._counted = merged(self._counted, said.usage)
            self._usage = usage_from(self._counted)
            out.append(UsageReport(self._usage))

    def _message_stop(self, _said: _Said, _data: bytes, out: list[Event]) -> None:
        self.done = True
        if self._end is not None:
            out.append(MessageEnd(self._end.finish_reason, self._usage, self._end.raw))


def block_events(block: Block, call: int, data: bytes, out: list[Event]) -> None:
    """What a content block says at its start, or all of it in a whole answer."""
    match block.type:
        case "text":
            if block.text:
                out.append(TextDelta(block.text))
            out.extend(Citation(bytes(citation).decode()) for citation in block.citations or ())
        case "thinking":
            if block.thinking or block.signature:
                out.append(ReasoningDelta(block.thinking or "", signature=block.signature or ""))
        case "tool_use":
            out.append(ToolCallStart(call, block.id or f"call_{call}", block.name or ""))
            if block.input:
                out.append(ToolCallDelta(call, _encode(block.input).decode()))
        case _:
            out.append(OtherEvent(block.type, data.decode()))


class MessagesWriter:
    """Events in, frames out. A block is opened when content of another kind begins."""

    def __init__(self) -> None:
        self._index = -1
        self._open = ""  # kind of the open block
        self._calls: dict[int, int] = {}  # call index to block index
        self._usage = Usage(source="partial")
        self._write: dict[type, Any] = {
            MessageStart: self._start,
            TextDelta: self._text,
            RefusalDelta: self._text,
            ReasoningDelta: self._reasoning,
            Citation: self._citation,
            ToolCallStart: self._call,
            ToolCallDelta: self._arguments,
            UsageReport: self._report,
            ChoiceEnd: lambda _: self._close(),  # the stop reason travels with the usage, later
            MessageEnd: self._end,
        }

    def write(self, event: Event) -> list[Frame]:
        """The frames that say `event`; none where the dialect has no word for it."""
        write = self._write.get(type(event))
        if write is None or getattr(event, "choice", None):
            return []
        frames: list[Frame] = write(event)
        return frames

    def fail(self, error: ProviderError) -> list[Frame]:
        """The error event, which ends the stream."""
        return [_frame("error", error=error_body(error)["error"])]

    def _start(self, event: MessageStart) -> list[Frame]:
        body = message_body(event.id, event.model, usage_to(self._usage))
        return [_frame("message_start", message=body)]

    def _block(self, kind: str, start: dict[str, Any]) -> list[Frame]:
        """Close the open block, open the next."""
        frames = self._close()
        self._index += 1
        self._open = kind
        return [*frames, _frame("content_block_start", index=self._index, content_block=start)]

    def _close(self) -> list[Frame]:
        if not self._open:
            return []
        self._open = ""
        return [_frame("content_block_stop", index=self._index)]

    def _grow(self, kind: str, delta: dict[str, Any]) -> list[Frame]:
        opened = [] if self._open == kind else self._block(kind, _STARTS[kind])
        return [*opened, _frame("content_block_delta", index=self._index, delta=delta)]

    def _text(self, event: TextDelta | RefusalDelta) -> list[Frame]:
        return self._grow("text", {"type": "text_delta", "text": event.text}) if event.text else []

    def _reasoning(self, event: ReasoningDelta) -> list[Frame]:
        """A signature seals its block: it would not fit what another thought adds to it."""
        frames: list[Frame] = []
        if event.text:
            frames += self._grow("thinking", {"type": "thinking_delta", "thinking": event.text})
        if event.signature:
            proof = {"type": "signature_delta", "signature": event.signature}
            frames += self._grow("thinking", proof) + self._close()
        return frames

    def _citation(self, event: Citation) -> list[Frame]:
        delta = {"type": "citations_delta", "citation": Raw(event.data.encode())}
        return self._grow("text", delta)

    def _call(self, event: ToolCallStart) -> list[Frame]:
        start = {"type": "tool_use", "id": event.id, "name": event.name, "input": {}}
        opened = self._block("tool_use", start)
        self._calls[event.index] = self._index
        return opened

    def _arguments(self, event: ToolCallDelta) -> list[Frame]:
        """To the block of its own call, which other content may have closed since."""
        index = self._calls.get(event.index)
        if index is None or not event.arguments:
            return []
        delta = {"type": "input_json_delta", "partial_json": event.arguments}
        return [_frame("content_block_delta", index=index, delta=delta)]

    def _report(self, event: UsageReport) -> list[Frame]:
        self._usage = event.usage
        return []

    def _end(self, event: MessageEnd) -> list[Frame]:
        delta = {"stop_reason": word_for(event.finish_reason, event.raw), "stop_sequence": None}
        ending = _frame("message_delta", delta=delta, usage=usage_to(event.usage or self._usage))
        return [*self._close(), ending, _frame("message_stop")]


_STARTS: dict[str, dict[str, Any]] = {
    "text": {"type": "text", "text": ""},
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
}


def message_body(id: str, model: str, usage: dict[str, Any]) -> dict[str, Any]:
    """The message object, as it is before anything is said."""
    body = {"id": id, "type": "message", "role": "assistant", "model": model, "content": []}
    return {**body, "stop_reason": None, "stop_sequence": None, "usage": usage}


def word_for(reason: FinishReason, raw: str) -> str:
    """This dialect's word: the provider's own if this dialect knows it, else the common one."""
    return raw if FINISH.get(raw) == reason else _WORD[reason]


def error_body(error: ProviderError) -> dict[str, Any]:
    """The error object, for a status and for the middle of a stream."""
    theirs = 400 <= (error.status or 500) < 500
    kind = ERROR_TYPES.get(error.status, "invalid_request_error" if theirs else "api_error")
    return {"type": "error", "error": {"type": kind, "message": error.message or "no reason given"}}


def _frame(kind: str, **fields: Any) -> Frame:
    return Frame(_encode({"type": kind, **fields}), kind)
