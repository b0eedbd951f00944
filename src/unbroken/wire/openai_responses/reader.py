"""The streamed answer of OpenAI's Responses API: its events to ours
(platform.openai.com/docs/api-reference/responses-streaming).

Some 59 kinds of events; what is read here stands in one table. The terminal is
`response.completed`, `response.incomplete` or `response.failed`; errors also come as an `error`
event, flat or nested (BerriAI/litellm#32835). A `background` answer can be followed again after the
last number that was seen (openai/openai-node#1984): only then do numbers matter.

All content comes up to three times: as deltas, as a whole part or item, and in the final response.
Compatible servers leave out any of the three, so each says what the ones before it did not.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from unbroken.events import (
    BlockEnd,
    BlockStart,
    Citation,
    Event,
    MessageEnd,
    MessageStart,
    OtherEvent,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    UsageReport,
)
from unbroken.wire.codec import Frame
from unbroken.wire.error_body import parse_error
from unbroken.wire.lenient import convert
from unbroken.wire.openai_responses.answer import (
    KINDS,
    Answer,
    Item,
    Piece,
    WireEvent,
    arguments_of,
    decode_event,
    usage_from,
)
from unbroken.wire.openai_responses.vocabulary import DIALECT, FINISH
from unbroken.wire.reader import BaseReader

_encode = msgspec.json.Encoder().encode

_FRAMING = frozenset(
    {
        "response.in_progress",
        "response.queued",
        "response.reasoning_summary_part.done",
        "keepalive",
        "ping",
    }
)
"""Kinds that only frame the content."""

_FAILED = frozenset({"error", "response.failed", "response.error", "response.cancelled"})


class _OpenItem:
    """An item between its start and its end, with the text that came of each of its parts."""

    def __init__(self, number: int, call: int | None) -> None:
        self.number, self.call = number, call
        self.came: dict[tuple[str, int], list[str]] = {}
        self.citations = 0


class ResponsesReader(BaseReader):
    """Frames in, events out, for one streamed answer."""

    shape, words = WireEvent, FINISH

    def __init__(self) -> None:
        super().__init__()
        self._seen = -1  # the latest sequence number
        self._again = False  # a resumed stream may say again what was seen
        self._started = False
        self._open: dict[int, _OpenItem] = {}  # by output index
        self._items: set[int] = set()  # the output indexes that came
        self._blocks = self._calls = 0
        self._texts: list[str] = []  # all visible text
        self._table: dict[str, Callable[[WireEvent, list[Event]], None]] = {
            "response.created": self._created,
            "response.output_item.added": self._added,
            "response.output_item.done": self._item_done,
            "response.content_part.added": self._part,
            "response.content_part.done": self._part,
            "response.output_text.delta": self._delta("text"),
            "response.output_text.done": self._done("text"),
            "response.output_text.annotation.added": self._annotation,
            "response.refusal.delta": self._delta("refusal"),
            "response.refusal.done": self._done("refusal"),
            "response.reasoning_text.delta": self._delta("reasoning"),
            "response.reasoning_text.done": self._done("reasoning"),
            "response.reasoning_summary_part.added": self._next_summary,
            "response.reasoning_summary_text.delta": self._delta("summary"),
            "response.reasoning_summary_text.done": self._done("summary"),
            "response.function_call_arguments.delta": self._delta("call"),
            "response.function_call_arguments.done": self._done("call"),
            "response.custom_tool_call_input.delta": self._delta("call"),
            "response.custom_tool_call_input.done": self._done("call"),
            "response.completed": self._end,
            "response.incomplete": self._end,
            "response.done": self._end,
        }

    def resumed(self) -> None:
        """A stream that is followed again may repeat what was seen."""
        self._again = True

    def _read(self, frame: Frame, out: list[Event]) -> None:
        if frame.data == b"[DONE]":
            return
        event = decode_event(frame.data)
        kind = event.type or frame.event
        if self._is_old(event.sequence_number) or kind in _FRAMING:
            return
        if kind in _FAILED or (event.error and kind not in self._table):
            self._fail(event, frame.data, out)
            return
        handle = self._table.get(kind)
        if handle is not None:
            handle(event, out)
        elif kind:
            out.append(OtherEvent(kind, frame.data.decode("utf-8", "replace"), dialect=DIALECT))

    def _is_old(self, number: int | None) -> bool:
        if number is None:
            return False
        if self._again and number <= self._seen:
            return True
        self._seen, self._again = number, False
        if self.cursor is not None:
            self.cursor = {**self.cursor, "sequence": str(number)}
        return False

    def _fail(self, event: WireEvent, data: bytes, out: list[Event]) -> None:
        answer = event.response or Answer()
        self._report_usage(answer, out)
        self.error = parse_error(_encode({"error": answer.error}) if answer.error else data)

    def _created(self, event: WireEvent, out: list[Event]) -> None:
        self._start(event.response or Answer(), out)

    def _start(self, answer: Answer, out: list[Event]) -> None:
        if answer.background and answer.id:
            self.cursor = {"id": answer.id, "sequence": str(max(self._seen, 0))}
        if not self._started:
            self._started = True
            out.append(MessageStart(answer.id or "", answer.model or ""))

    # Items

    def _added(self, event: WireEvent, out: list[Event]) -> None:
        self._begin(event.output_index, convert(event.item or {}, Item), out)

    def _begin(self, index: int, item: Item, out: list[Event]) -> _OpenItem:
        if index in self._open:
            self._close(index, "", out)
        kind = KINDS.get(item.type, "other")
        self._open[index] = opened = _OpenItem(self._blocks, None)
        self._items.add(index)
        self._blocks += 1
        out.append(BlockStart(opened.number, kind))
        if kind == "tool_call":
            opened.call = self._calls
            self._calls += 1
            id = item.call_id or item.id or f"call_{opened.call}"
            custom = item.type == "custom_tool_call"
            out.append(ToolCallStart(opened.call, id, item.name or "", custom=custom))
        if item.type in KINDS:
            self._whole_item(opened, item, out)
        return opened

    def _item_done(self, event: WireEvent, out: list[Event]) -> None:
        self._take_item(event.output_index, event.item or {}, out)

    def _take_item(self, index: int, fields: dict[str, Any], out: list[Event]) -> None:
        """A whole item: what of it has not come yet, and its end."""
        item = convert(fields, Item)
        opened = self._open.get(index) or self._begin(index, item, out)
        native = _encode(fields).decode()
        if item.type not in KINDS:
            out.append(OtherEvent(item.type, native, dialect=DIALECT))
        else:
            self._whole_item(opened, item, out)
        if item.type == "reasoning" and item.encrypted_content:
            out.append(ReasoningDelta("", encrypted=item.encrypted_content))
        self._close(index, native, out)

    def _close(self, index: int, native: str, out: list[Event]) -> None:
        opened = self._open.pop(index)
        out.append(BlockEnd(opened.number, native, DIALECT if native else ""))

    def _whole_item(self, opened: _OpenItem, item: Item, out: list[Event]) -> None:
        """Append what of an item did not come as deltas."""
        if opened.call is not None:
            self._rest(opened, "call", 0, arguments_of(item), out)
        if item.type == "message":
            for at, piece in enumerate(item.content or ()):
                self._whole_part(opened, at, piece, out)
        if item.type == "reasoning":
            for kind, pieces in (("summary", item.summary), ("reasoning", item.content)):
                for at, piece in enumerate(pieces or ()):
                    self._summary_break(opened, kind, at, out)
                    self._rest(opened, kind, at, piece.text or "", out)

    def _part(self, event: WireEvent, out: list[Event]) -> None:
        if event.part is not None and event.part.type != "reasoning_text":
            self._whole_part(self._item_at(event, out), event.content_index, event.part, out)

    def _whole_part(self, opened: _OpenItem, at: int, piece: Piece, out: list[Event]) -> None:
        self._rest(opened, "text", at, piece.text or "", out)
        self._rest(opened, "refusal", at, piece.refusal or "", out)
        annotations = piece.annotations or []
        new = annotations[opened.citations :]
        out.extend(Citation(bytes(annotation).decode()) for annotation in new)
        opened.citations = max(opened.citations, len(annotations))

    def _item_at(self, event: WireEvent, out: list[Event]) -> _OpenItem:
        """The open item of an event; servers that announce none get a message."""
        opened = self._open.get(event.output_index)
        return opened or self._begin(event.output_index, Item("message"), out)

    # Text

    def _delta(self, kind: str) -> Callable[[WireEvent, list[Event]], None]:
        def add(event: WireEvent, out: list[Event]) -> None:
            if event.delta:
                opened, at = self._item_at(event, out), _place(kind, event)
                opened.came.setdefault((kind, at), []).append(event.delta)
                self._say(opened, kind, event.delta, out)

        return add

    def _done(self, kind: str) -> Callable[[WireEvent, list[Event]], None]:
        def finish(event: WireEvent, out: list[Event]) -> None:
            whole = event.text or event.refusal or event.arguments or event.input
            if whole and event.output_index in self._open:
                opened = self._open[event.output_index]
                self._rest(opened, kind, _place(kind, event), whole, out)

        return finish

    def _rest(self, opened: _OpenItem, kind: str, at: int, whole: str, out: list[Event]) -> None:
        """Append what of a whole text did not come as deltas."""
        came = "".join(opened.came.get((kind, at), ()))
        if not whole.startswith(came) or len(whole) == len(came):
            return
        if not came and kind == "text" and "".join(self._texts).endswith(whole):
            return  # the deltas had another number
        opened.came[kind, at] = [whole]
        self._say(opened, kind, whole[len(came) :], out)

    def _say(self, opened: _OpenItem, kind: str, text: str, out: list[Event]) -> None:
        match kind:
            case "text":
                self._texts.append(text)
                out.append(TextDelta(text))
            case "refusal":
                out.append(RefusalDelta(text))
            case "call" if opened.call is not None:
                out.append(ToolCallDelta(opened.call, text))
            case "reasoning" | "summary":
                out.append(ReasoningDelta(text))

    def _annotation(self, event: WireEvent, out: list[Event]) -> None:
        self._item_at(event, out).citations += 1
        out.append(Citation(bytes(event.annotation).decode()))

    def _next_summary(self, event: WireEvent, out: list[Event]) -> None:
        opened = self._item_at(event, out)
        self._summary_break(opened, "summary", event.summary_index, out)

    def _summary_break(self, opened: _OpenItem, kind: str, at: int, out: list[Event]) -> None:
        if at and kind == "summary" and (kind, at) not in opened.came:
            opened.came[kind, at] = []
            out.append(ReasoningDelta("\n\n"))

    # The end

    def add_answer(self, answer: Answer, out: list[Event]) -> None:
        """Append what of a whole answer has not come yet, and its end if it has one."""
        self._start(answer, out)
        for index, item in enumerate(answer.output or ()):
            if index in self._open or index not in self._items:
                self._take_item(index, item, out)
        for index in list(self._open):
            self._close(index, "", out)
        self._report_usage(answer, out)

    def _report_usage(self, answer: Answer, out: list[Event]) -> None:
        usage = None if answer.usage is None else usage_from(answer.usage)
        if usage is not None:
            out.append(UsageReport(usage))

    def _end(self, event: WireEvent, out: list[Event]) -> None:
        answer = event.response or Answer()
        cut = event.type == "response.incomplete"
        self.end_answer(answer, out, status="incomplete" if cut else "completed")

    def end_answer(self, answer: Answer, out: list[Event], *, status: str) -> None:
        """The answer has ended; `status` is what its last event says where the answer does not."""
        self.add_answer(answer, out)
        ended = answer.status if answer.status in ("incomplete", "failed", "cancelled") else status
        if answer.error and ended not in ("incomplete", "completed"):
            self.error = parse_error(_encode({"error": answer.error}))
            return
        reason = (answer.incomplete_details and answer.incomplete_details.reason) or ""
        word = (reason or "max_output_tokens") if ended == "incomplete" else ended
        end = self._finish(word)
        self.done = end is not None
        if end is None:
            return
        if end.finish_reason == "stop" and ended == "completed" and self._calls:
            end = msgspec.structs.replace(end, finish_reason="tool_calls")
        usage = None if answer.usage is None else usage_from(answer.usage)
        out += [end, MessageEnd(end.finish_reason, usage, end.raw, known=end.known)]


def _place(kind: str, event: WireEvent) -> int:
    """The number of a part within its item."""
    return {"summary": event.summary_index, "call": 0}.get(kind, event.content_index)
