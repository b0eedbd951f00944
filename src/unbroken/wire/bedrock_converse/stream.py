"""The streamed answer of Amazon Bedrock's ConverseStream, both ways
(docs.aws.amazon.com/bedrock: API_runtime_ConverseStream).

Usage comes in `metadata` after `messageStop`; no order is promised, so the answer has ended when
both have come, or the body after the stop. Text blocks begin with a delta, only others with a
start. What goes wrong after the 200 is an exception frame.
"""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from unbroken.errors import ProviderError, ServerError, error_class
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
from unbroken.ready import ready
from unbroken.wire.codec import Frame, TableWriter
from unbroken.wire.error_body import UNREADABLE, parse_error
from unbroken.wire.malformed import recover_or_skip

DIALECT = "bedrock"
_encode = msgspec.json.Encoder().encode
_fields = msgspec.json.Decoder(dict[str, Raw]).decode

FINISH: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
    "malformed_model_output": "error",
    "malformed_tool_use": "error",
}
_WORDS: dict[FinishReason, str] = {
    "stop": "end_turn",
    "tool_calls": "tool_use",
    "length": "max_tokens",
    "content_filter": "content_filtered",
    "error": "malformed_model_output",
}

# Exceptions within the stream, and the status each stands for (service model of the runtime).
EXCEPTIONS = {
    "internalServerException": 500,
    "modelStreamErrorException": 424,
    "validationException": 400,
    "throttlingException": 429,
    "serviceUnavailableException": 503,
}


@ready
class ConverseUsage(Struct, gc=False, rename="camel"):
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None


class _Use(Struct, gc=False, rename="camel"):
    tool_use_id: str = ""
    name: str = ""
    input: str = ""


class _Start(Struct, gc=False, rename="camel"):
    tool_use: _Use | None = None


class _Thought(Struct, gc=False, rename="camel"):
    text: str | None = None
    signature: str | None = None


class _Delta(Struct, gc=False, rename="camel"):
    text: str | None = None
    tool_use: _Use | None = None
    reasoning_content: _Thought | None = None
    citation: Raw = Raw(b"")


class _Said(Struct, gc=False, rename="camel"):
    content_block_index: int = 0
    start: _Start | None = None
    delta: _Delta | None = None
    stop_reason: str | None = None
    usage: ConverseUsage | None = None


_decode = msgspec.json.Decoder(_Said).decode


def usage_from(wire: ConverseUsage) -> Usage:
    """The input is counted without what the cache held or took."""
    read, written = wire.cache_read_input_tokens or 0, wire.cache_write_input_tokens or 0
    return Usage(
        input_tokens=wire.input_tokens + read + written,
        output_tokens=wire.output_tokens,
        cached_input_tokens=read,
        cache_write_tokens=written,
    )


def usage_to(usage: Usage) -> dict[str, Any]:
    """The `usage` object of an answer."""
    read, written = usage.cached_input_tokens, usage.cache_write_tokens
    return {
        "inputTokens": max(0, usage.input_tokens - read - written),
        "outputTokens": usage.output_tokens,
        "totalTokens": usage.input_tokens + usage.output_tokens,
        "cacheReadInputTokens": read,
        "cacheWriteInputTokens": written,
    }


def word_for(reason: FinishReason, raw: str) -> str:
    """This dialect's word: the provider's own if this dialect knows it, else the common one."""
    return raw if FINISH.get(raw) == reason else _WORDS[reason]


def failure(kind: str, body: bytes) -> ProviderError:
    """The error that an exception frame stands for. A broken model stream may be asked again."""
    status = EXCEPTIONS.get(kind, 500)
    said = parse_error(body, status)
    wanted = ServerError if status == 424 else type(said)
    return wanted(said.message, status=status, code=kind, body=body)


class ConverseReader:
    """Frames in, events out, for one streamed answer."""

    def __init__(self) -> None:
        self.error: ProviderError | None = None
        self.skipped, self.done = 0, False
        self.cursor: dict[str, str] | None = None
        self._calls: dict[int, int] = {}
        self._usage: Usage | None = None
        self._end: ChoiceEnd | None = None
        self._table: dict[str, Any] = {
            "messageStart": lambda _said, out: out.append(MessageStart()),
            "contentBlockStart": self._start,
            "contentBlockDelta": self._delta,
            "contentBlockStop": lambda _said, _out: None,
            "messageStop": self._stop,
            "metadata": self._metadata,
        }

    def read(self, frames: list[Frame], out: list[Event]) -> None:
        """Append what the frames say. What can't be read is passed over and counted."""
        for frame in frames:
            kind, _, name = frame.event.partition(":")
            if name:
                self.error = failure(name, frame.data)
                return
            try:
                self._one(kind, frame.data, out)
            except UNREADABLE:
                recover_or_skip(self, frame, out)
            if self.done:
                return

    def eof(self, out: list[Event]) -> None:
        """The body has ended; after the stop only the usage is missing."""
        if self._end is not None and not self.done:
            out.append(MessageEnd(self._end.finish_reason, None, self._end.raw, early=True))
            self.done = True

    def _one(self, kind: str, data: bytes, out: list[Event]) -> None:
        handle = self._table.get(kind)
        if handle is None:
            _fields(data)
            out.append(OtherEvent(kind, data.decode(), dialect=DIALECT))
            return
        handle(_decode(data), out)
        if self._end is not None and self._usage is not None and not self.done:
            out.append(MessageEnd(self._end.finish_reason, self._usage, self._end.raw))
            self.done = True

    def _start(self, said: _Said, out: list[Event]) -> None:
        use = said.start and said.start.tool_use
        if use:
            at = self._calls[said.content_block_index] = len(self._calls)
            out.append(ToolCallStart(at, use.tool_use_id, use.name))

    def _delta(self, said: _Said, out: list[Event]) -> None:
        delta = said.delta or _Delta()
        if delta.text:
            out.append(TextDelta(delta.text))
        if delta.tool_use is not None and said.content_block_index in self._calls:
            out.append(ToolCallDelta(self._calls[said.content_block_index], delta.tool_use.input))
        if thought := delta.reasoning_content:
            out.append(ReasoningDelta(thought.text or "", signature=thought.signature or ""))
        if bytes(delta.citation):
            out.append(Citation(bytes(delta.citation).decode()))

    def _stop(self, said: _Said, out: list[Event]) -> None:
        raw = said.stop_reason or ""
        self._end = ChoiceEnd(FINISH.get(raw, "stop"), raw)
        out.append(self._end)

    def _metadata(self, said: _Said, out: list[Event]) -> None:
        self._usage = usage_from(said.usage or ConverseUsage())
        out.append(UsageReport(self._usage))


class ConverseWriter(TableWriter):
    """Events in, frames out. A block ends when content of another kind begins."""

    def __init__(self) -> None:
        self._index, self._open = -1, ""
        self._calls: dict[int, int] = {}
        self._write = {
            MessageStart: lambda _: [_frame("messageStart", role="assistant")],
            TextDelta: lambda e: self._grow("text", {"text": e.text}),
            RefusalDelta: lambda e: self._grow("text", {"text": e.text}),
            ReasoningDelta: self._reasoning,
            Citation: lambda e: self._grow("text", {"citation": Raw(e.data.encode())}),
            ToolCallStart: self._call,
            ToolCallDelta: self._arguments,
            OtherEvent: self._other,
            ChoiceEnd: self._end,
            MessageEnd: self._metadata,
        }

    def fail(self, error: ProviderError) -> list[Frame]:
        """The exception frame, which ends the stream."""
        named = next((k for k, s in EXCEPTIONS.items() if s == error.status), None)
        by_class = {error_class(s): k for k, s in EXCEPTIONS.items() if s != 424}
        kind = named or by_class.get(type(error), "internalServerException")
        said = {"message": error.message or type(error).__name__}
        return [Frame(_encode(said), event=f"exception:{kind}")]

    def _close(self) -> list[Frame]:
        if not self._open:
            return []
        self._open = ""
        return [_frame("contentBlockStop", contentBlockIndex=self._index)]

    def _block(self, kind: str) -> list[Frame]:
        if self._open == kind:
            return []
        frames = self._close()
        self._index, self._open = self._index + 1, kind
        return frames

    def _grow(self, kind: str, delta: dict[str, Any]) -> list[Frame]:
        frames = self._block(kind)
        grown = _frame("contentBlockDelta", contentBlockIndex=self._index, delta=delta)
        return [*frames, grown]

    def _reasoning(self, event: ReasoningDelta) -> list[Frame]:
        thought = {"signature": event.signature} if event.signature else {"text": event.text}
        return self._grow("reasoning", {"reasoningContent": thought})

    def _call(self, event: ToolCallStart) -> list[Frame]:
        frames = self._close()
        self._index += 1
        self._calls[event.index], self._open = self._index, "call"
        use = {"toolUseId": event.id, "name": event.name}
        start = {"toolUse": use}
        return [*frames, _frame("contentBlockStart", contentBlockIndex=self._index, start=start)]

    def _arguments(self, event: ToolCallDelta) -> list[Frame]:
        at = self._calls[event.index]
        delta = {"toolUse": {"input": event.arguments}}
        return [_frame("contentBlockDelta", contentBlockIndex=at, delta=delta)]

    def _other(self, event: OtherEvent) -> list[Frame]:
        return [Frame(event.data.encode(), event=event.name)] if event.dialect == DIALECT else []

    def _end(self, event: ChoiceEnd) -> list[Frame]:
        reason = word_for(event.finish_reason, event.raw)
        return [*self._close(), _frame("messageStop", stopReason=reason)]

    def _metadata(self, event: MessageEnd) -> list[Frame]:
        usage = usage_to(event.usage or Usage())
        return [_frame("metadata", usage=usage, metrics={"latencyMs": 0})]


def _frame(kind: str, **fields: Any) -> Frame:
    return Frame(_encode(fields), event=kind)
