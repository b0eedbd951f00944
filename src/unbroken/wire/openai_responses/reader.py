"""The streamed answer of OpenAI's Responses API: its events to ours
(platform.openai.com/docs/api-reference/responses-streaming).

Some 59 kinds of events, each with a `sequence_number`; what is read here stands in one table.
The terminal is `response.completed`, `response.incomplete` or `response.failed`; errors also come
as an `error` event, flat or nested (BerriAI/litellm#32835). A `background` answer can be followed
again after the last number that was seen (openai/openai-node#1984).
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
from unbroken.wire.error_body import UNREADABLE, parse_error
from unbroken.wire.malformed import recover_or_skip


class _InputDetails(Struct, gc=False):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _OutputDetails(Struct, gc=False):
    reasoning_tokens: int | None = None


class ResponsesUsage(Struct, gc=False):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


class Piece(Struct, gc=False):
    type: str = ""
    text: str | None = None
    refusal: str | None = None
    annotations: list[Raw] | None = None


class Item(Struct, gc=False):
    type: str = ""
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    content: list[Piece] | None = None
    summary: list[Piece] | None = None
    encrypted_content: str | None = None


class _Incomplete(Struct, gc=False):
    reason: str | None = None


class Answer(Struct, gc=False):
    id: str | None = None
    model: str | None = None
    status: str | None = None
    background: bool | None = None
    output: list[Raw] | None = None
    usage: ResponsesUsage | None = None
    incomplete_details: _Incomplete | None = None
    error: Any = None


class _Said(Struct, gc=False):
    type: str = ""
    sequence_number: int | None = None
    output_index: int = 0
    summary_index: int = 0
    delta: Any = None
    arguments: str | None = None
    annotation: Raw = Raw(b"null")
    item: Raw = Raw(b"null")
    response: Answer | None = None


_decode = msgspec.json.Decoder(_Said).decode
decode_item = msgspec.json.Decoder(Item).decode

DIALECT = "openai-responses"
"""Who has a word for what we have none for."""

INCOMPLETE: dict[str, FinishReason] = {
    "max_output_tokens": "length",
    "content_filter": "content_filter",
}

# What only frames the content, or says it once more as a whole.
_FRAMING = frozenset(
    {
        "response.in_progress",
        "response.queued",
        "response.content_part.added",
        "response.content_part.done",
        "response.output_text.done",
        "response.refusal.done",
        "response.reasoning_text.done",
        "response.reasoning_summary_text.done",
        "response.reasoning_summary_part.done",
        "keepalive",
    }
)


def usage_from(wire: ResponsesUsage) -> Usage:
    """Cached tokens are within the input, reasoning within the output."""
    before, after = wire.input_tokens_details, wire.output_tokens_details
    return Usage(
        input_tokens=wire.input_tokens or 0,
        output_tokens=wire.output_tokens or 0,
        cached_input_tokens=(before and before.cached_tokens) or 0,
        cache_write_tokens=(before and before.cache_write_tokens) or 0,
        reasoning_tokens=(after and after.reasoning_tokens) or 0,
    )


class ResponsesReader:
    """Frames in, events out, for one streamed answer."""

    def __init__(self) -> None:
        self.error: ProviderError | None = None
        self.skipped, self.done = 0, False
        self.cursor: dict[str, str] | None = None
        self._seen = -1
        self._started = False
        self._calls: dict[int, int] = {}  # output index to our number
        self._spelled: set[int] = set()  # the calls whose arguments have come
        self._table: dict[str, Any] = {
            "response.created": self._created,
            "response.output_item.added": self._added,
            "response.output_item.done": self._item_done,
            "response.output_text.delta": lambda s, out: out.append(TextDelta(s.delta)),
            "response.output_text.annotation.added": self._annotation,
            "response.refusal.delta": lambda s, out: out.append(RefusalDelta(s.delta)),
            "response.reasoning_text.delta": lambda s, out: out.append(ReasoningDelta(s.delta)),
            "response.reasoning_summary_part.added": self._next_summary,
            "response.reasoning_summary_text.delta": lambda s, out: out.append(
                ReasoningDelta(s.delta)
            ),
            "response.function_call_arguments.delta": self._arguments,
            "response.function_call_arguments.done": self._arguments_done,
            "response.completed": self._end,
            "response.incomplete": self._end,
        }

    def read(self, frames: list[Frame], out: list[Event]) -> None:
        """Append what the events say. What can't be read is passed over and counted."""
        for frame in frames:
            before = len(out)
            try:
                self._one(frame, out)
            except (*UNREADABLE, TypeError):
                del out[before:]
                recover_or_skip(self, frame, out)
            if self.done or self.error is not None:
                return

    def eof(self, out: list[Event]) -> None:
        """The body has ended: without the terminal that means nothing."""

    def _one(self, frame: Frame, out: list[Event]) -> None:
        if frame.data == b"[DONE]":
            return
        said = _decode(frame.data)
        kind = said.type or frame.event
        if self._is_old(said):
            return
        if kind in ("error", "response.failed"):
            self.error = _failure(frame.data, said)
            return
        if kind in _FRAMING:
            return
        handle = self._table.get(kind)
        if handle is None:
            out.append(OtherEvent(kind, frame.data.decode(), dialect=DIALECT))
        else:
            if isinstance(said.delta, dict):
                raise TypeError(kind)
            handle(said, out)

    def _is_old(self, said: _Said) -> bool:
        """A resumed stream may say again what was seen."""
        number = said.sequence_number
        if number is None:
            return False
        if number <= self._seen:
            return True
        self._seen = number
        if self.cursor is not None:
            self.cursor = {**self.cursor, "sequence": str(number)}
        return False

    def _created(self, said: _Said, out: list[Event]) -> None:
        answer = said.response or Answer()
        if answer.background and answer.id:
            self.cursor = {"id": answer.id, "sequence": str(max(self._seen, 0))}
        if not self._started:
            self._started = True
            out.append(MessageStart(answer.id or "", answer.model or ""))

    def _added(self, said: _Said, out: list[Event]) -> None:
        item = decode_item(said.item)
        if item.type == "function_call":
            at = self._calls[said.output_index] = len(self._calls)
            out.append(ToolCallStart(at, item.call_id or f"call_{at}", item.name or ""))
            if item.arguments:
                self._spell(at, item.arguments, out)

    def _item_done(self, said: _Said, out: list[Event]) -> None:
        item, raw = decode_item(said.item), bytes(said.item)
        if item.type == "function_call":
            if said.output_index not in self._calls:
                self._added(said, out)
            elif self._calls[said.output_index] not in self._spelled and item.arguments:
                self._spell(self._calls[said.output_index], item.arguments, out)
        elif item.type == "reasoning" and item.encrypted_content:
            out.append(ReasoningDelta("", signature=item.encrypted_content))
        elif item.type not in ("message", "reasoning"):
            out.append(OtherEvent(item.type, raw.decode(), dialect=DIALECT))

    def _annotation(self, said: _Said, out: list[Event]) -> None:
        out.append(Citation(bytes(said.annotation).decode()))

    def _next_summary(self, said: _Said, out: list[Event]) -> None:
        if said.summary_index:
            out.append(ReasoningDelta("\n\n"))

    def _arguments(self, said: _Said, out: list[Event]) -> None:
        if said.output_index in self._calls:
            self._spell(self._calls[said.output_index], said.delta, out)

    def _arguments_done(self, said: _Said, out: list[Event]) -> None:
        at = self._calls.get(said.output_index)
        if at is not None and at not in self._spelled and said.arguments:
            self._spell(at, said.arguments, out)

    def _spell(self, at: int, arguments: str, out: list[Event]) -> None:
        self._spelled.add(at)
        out.append(ToolCallDelta(at, arguments))

    def _end(self, said: _Said, out: list[Event]) -> None:
        self.done = True
        out += ending(said.response or Answer(), called=bool(self._calls))


def ending(answer: Answer, *, called: bool) -> list[Event]:
    """How an answer that has ended says so."""
    usage = None if answer.usage is None else usage_from(answer.usage)
    raw = (answer.incomplete_details and answer.incomplete_details.reason) or ""
    reason: FinishReason = "tool_calls" if called else "stop"
    if answer.status == "incomplete":
        reason = INCOMPLETE.get(raw, "length")
    end = ChoiceEnd(reason, raw or answer.status or "")
    reports: list[Event] = [] if usage is None else [UsageReport(usage)]
    return [*reports, end, MessageEnd(end.finish_reason, usage, end.raw)]


def _failure(data: bytes, said: _Said) -> ProviderError:
    if said.response is not None and said.response.error is not None:
        return parse_error(msgspec.json.encode({"error": said.response.error}))
    return parse_error(data)
