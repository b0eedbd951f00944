"""The streamed answer of Amazon Bedrock's Converse: events to frames
(docs.aws.amazon.com/bedrock: API_runtime_ConverseStream).
"""

from typing import Any

import msgspec
from msgspec import Raw

from unbroken.errors import ProviderError, error_class
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
)
from unbroken.wire.bedrock_converse.vocabulary import DIALECT, EXCEPTIONS, usage_to, word_for
from unbroken.wire.codec import Frame
from unbroken.wire.sequential import SequentialWriter

_encode = msgspec.json.Encoder().encode
_fields = msgspec.json.Decoder(dict[str, Raw]).decode


class ConverseWriter(SequentialWriter):
    """Events in, frames out. A block ends when content of another kind begins."""

    def __init__(self) -> None:
        super().__init__()
        self._index, self._open = -1, ""
        self._redacted = ""  # reasoning that only its provider can read
        self._kept: dict[bytes, int] = {}  # their block index to ours, of blocks that were kept
        self._write = {
            MessageStart: lambda _: [_frame("messageStart", role="assistant")],
            BlockStart: lambda _: self._close(),
            BlockEnd: self._block_end,
            TextDelta: lambda e: self._grow("text", {"text": e.text}),
            RefusalDelta: lambda e: self._grow("text", {"text": e.text}),
            ReasoningDelta: self._reasoning,
            Citation: lambda e: self._grow("text", {"citation": Raw(e.data.encode())}),
            ToolCallStart: self._call_start,
            ToolCallDelta: self._call_delta,
            OtherEvent: self._other,
            ChoiceEnd: self._end,
            MessageEnd: self._metadata,
        }

    def fail(self, error: ProviderError) -> list[Frame]:
        """The exception frame, which ends the stream."""
        named = next((k for k, s in EXCEPTIONS.items() if s == error.status), None)
        by_class = {error_class(s): k for k, s in EXCEPTIONS.items() if s != 424}
        kind = named or by_class.get(type(error), "internalServerException")
        body = {"message": error.message or type(error).__name__}
        return [Frame(_encode(body), event=f"exception:{kind}")]

    def _block_end(self, event: BlockEnd) -> list[Frame]:
        """Redacted reasoning is written if it is Bedrock's: that of others is none here."""
        data, self._redacted = self._redacted, ""
        if not data or event.dialect != DIALECT:
            return self._close()
        thought = {"reasoningContent": {"redactedContent": data}}
        return [*self._close(), *self._grow("reasoning", thought), *self._close()]

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
        """A signature seals its block."""
        self._redacted = event.encrypted
        frames: list[Frame] = []
        if event.text:
            frames += self._grow("reasoning", {"reasoningContent": {"text": event.text}})
        if event.signature:
            proof = {"reasoningContent": {"signature": event.signature}}
            frames += [*self._grow("reasoning", proof), *self._close()]
        return frames

    def _call_start(self, event: ToolCallStart) -> list[Frame]:
        frames = self._close()
        self._index, self._open = self._index + 1, "call"
        start = {"toolUse": {"toolUseId": event.id, "name": event.name}}
        return [*frames, _frame("contentBlockStart", contentBlockIndex=self._index, start=start)]

    def _call_delta(self, event: ToolCallDelta) -> list[Frame]:
        if event.index != self._call:
            return []
        delta = {"toolUse": {"input": event.arguments}}
        return [_frame("contentBlockDelta", contentBlockIndex=self._index, delta=delta)]

    def _other(self, event: OtherEvent) -> list[Frame]:
        """What was kept, as it came but for the number of its block."""
        if event.dialect != DIALECT:
            return []
        fields = _fields(event.data)
        if "contentBlockIndex" not in fields:
            return [Frame(event.data.encode(), event=event.name)]
        theirs = bytes(fields["contentBlockIndex"])
        opened: list[Frame] = []
        if event.name == "contentBlockStart":
            opened = self._close()
            self._index += 1
            self._kept[theirs] = self._index
        fields["contentBlockIndex"] = Raw(b"%d" % self._kept.get(theirs, self._index))
        return [*opened, Frame(_encode(fields), event=event.name)]

    def _end(self, event: ChoiceEnd) -> list[Frame]:
        reason = word_for(event.finish_reason, event.raw)
        return [*self.flush(), *self._close(), _frame("messageStop", stopReason=reason)]

    def _metadata(self, event: MessageEnd) -> list[Frame]:
        usage = usage_to(event.usage or Usage())
        return [_frame("metadata", usage=usage, metrics={"latencyMs": 0})]


def _frame(kind: str, **fields: Any) -> Frame:
    return Frame(_encode(fields), event=kind)
