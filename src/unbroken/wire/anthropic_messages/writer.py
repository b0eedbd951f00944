"""The streamed answer of Anthropic messages: events to frames (platform.claude.com: streaming)."""

from typing import Any

import msgspec
from msgspec import Raw

from unbroken.errors import ProviderError
from unbroken.events import (
    BlockEnd,
    BlockStart,
    ChoiceEnd,
    Citation,
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
from unbroken.wire.anthropic_messages.passthrough import DIALECT, kept
from unbroken.wire.anthropic_messages.vocabulary import error_body, message_body, usage_to, word_for
from unbroken.wire.codec import Frame
from unbroken.wire.sequential import SequentialWriter

_encode = msgspec.json.Encoder().encode


class MessagesWriter(SequentialWriter):
    """Events in, frames out. A block is opened when content of another kind begins."""

    def __init__(self) -> None:
        super().__init__()
        self._index = -1
        self._open = ""  # kind of the open block
        self._redacted = ""  # reasoning that only its provider can read
        self._kept: dict[int, int] = {}  # their block index to ours, of blocks that were kept
        self._usage = Usage(source="partial")
        self._write = {
            MessageStart: self._start,
            BlockStart: lambda _: self._close(),
            BlockEnd: self._block_end,
            TextDelta: self._text,
            RefusalDelta: self._text,
            ReasoningDelta: self._reasoning,
            Citation: self._citation,
            ToolCallStart: self._call_start,
            ToolCallDelta: self._call_delta,
            OtherEvent: self._other,
            UsageReport: self._report,
            ChoiceEnd: lambda _: [
                *self.flush(),
                *self._close(),
            ],  # the stop reason travels with the usage, later
            MessageEnd: self._end,
        }

    def fail(self, error: ProviderError) -> list[Frame]:
        """The error event, which ends the stream."""
        return [_frame("error", error=error_body(error)["error"])]

    # Blocks

    def _start(self, event: MessageStart) -> list[Frame]:
        body = message_body(event.id, event.model, usage_to(self._usage))
        return [_frame("message_start", message=body)]

    def _block_end(self, event: BlockEnd) -> list[Frame]:
        """Redacted reasoning is written if it is Anthropic's: that of others is none here."""
        data, self._redacted = self._redacted, ""
        if not data or event.dialect != DIALECT:
            return self._close()
        block = {"type": "redacted_thinking", "data": data}
        return [*self._block("redacted", block), *self._close()]

    def _block(self, kind: str, start: dict[str, Any] | Raw) -> list[Frame]:
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
        self._redacted = event.encrypted
        if event.text:
            frames += self._grow("thinking", {"type": "thinking_delta", "thinking": event.text})
        if event.signature:
            proof = {"type": "signature_delta", "signature": event.signature}
            frames += self._grow("thinking", proof) + self._close()
        return frames

    def _citation(self, event: Citation) -> list[Frame]:
        """Those of OpenAI's shape are no citations here."""
        if b"url_citation" in event.data.encode():
            return []
        delta = {"type": "citations_delta", "citation": Raw(event.data.encode())}
        return self._grow("text", delta)

    def _call_start(self, event: ToolCallStart) -> list[Frame]:
        start = {"type": "tool_use", "id": event.id, "name": event.name, "input": {}}
        return self._block("tool_use", start)

    def _call_delta(self, event: ToolCallDelta) -> list[Frame]:
        if not event.arguments or event.index != self._call:
            return []
        delta = {"type": "input_json_delta", "partial_json": event.arguments}
        return [_frame("content_block_delta", index=self._index, delta=delta)]

    def _other(self, event: OtherEvent) -> list[Frame]:
        """What was kept, as it came but for the number of its block."""
        frame = kept(event)
        if frame is None:
            return []
        if frame.type == "content_block_start":
            opened = self._block("other", frame.content_block)
            self._kept[frame.index] = self._index
            return opened
        if frame.type != "content_block_delta":
            return [Frame(event.data.encode(), event.name)]
        index = self._kept.get(frame.index)
        return [] if index is None else [_frame(frame.type, index=index, delta=frame.delta)]

    def _report(self, event: UsageReport) -> list[Frame]:
        self._usage = event.usage
        return []

    def _end(self, event: MessageEnd) -> list[Frame]:
        delta = {"stop_reason": word_for(event.finish_reason, event.raw), "stop_sequence": None}
        ending = _frame("message_delta", delta=delta, usage=usage_to(event.usage or self._usage))
        return [*self.flush(), *self._close(), ending, _frame("message_stop")]


_STARTS: dict[str, dict[str, Any]] = {
    "text": {"type": "text", "text": ""},
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
}


def _frame(kind: str, **fields: Any) -> Frame:
    return Frame(_encode({"type": kind, **fields}), kind)
