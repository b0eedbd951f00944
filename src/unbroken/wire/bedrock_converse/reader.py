"""The streamed answer of Amazon Bedrock's Converse: frames to events
(docs.aws.amazon.com/bedrock: API_runtime_ConverseStream).

Usage comes in `metadata` after `messageStop`; no order is promised, so the answer has ended when
both have come, or the body after the stop. Text blocks begin with a delta, only others with a
start. What goes wrong after the 200 is an exception frame. A `toolUse` of type `server_tool_use`
was carried out by Bedrock: it is no call of the caller's.
"""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from unbroken import native
from unbroken.events import (
    BlockEnd,
    BlockKind,
    BlockStart,
    ChoiceEnd,
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
from unbroken.wire.bedrock_converse.vocabulary import (
    DIALECT,
    FINISH,
    ConverseUsage,
    failure,
    usage_from,
)
from unbroken.wire.codec import Frame
from unbroken.wire.reader import BaseReader

_encode = msgspec.json.Encoder().encode
_fields = msgspec.json.Decoder(dict[str, Raw]).decode


class _Use(Struct, gc=False, rename="camel"):
    tool_use_id: str = ""
    name: str = ""
    type: str | None = None
    input: str | dict[str, Any] = ""


class _Start(Struct, gc=False, rename="camel"):
    tool_use: _Use | None = None


class _Thought(Struct, gc=False, rename="camel"):
    text: str | None = None
    signature: str | None = None
    redacted_content: str | None = None


class _Delta(Struct, gc=False, rename="camel"):
    text: str | None = None
    tool_use: _Use | None = None
    reasoning_content: _Thought | None = None
    citation: Raw = Raw(b"")


class _Event(Struct, gc=False, rename="camel"):
    content_block_index: int = 0
    start: _Start | None = None
    delta: _Delta | None = None
    stop_reason: str | None = None
    usage: ConverseUsage | None = None


_decode = msgspec.json.Decoder(_Event).decode


class _OpenBlock:
    """A block between its start and its end."""

    def __init__(self, number: int, kind: BlockKind, call: int | None, use: _Use) -> None:
        self.number, self.kind, self.call, self.use = number, kind, call, use
        self.signature = self.redacted = ""
        self.citations: list[Raw] = []

    def native(self) -> str:
        """The block as it is sent back; empty for kinds that are not modelled."""
        if self.kind == "other":
            return ""
        return native.template(self._fields())

    def _fields(self) -> dict[str, Any]:
        if self.kind == "text" and self.citations:
            content = [{"text": native.TEXT}]
            return {"citationsContent": {"content": content, "citations": self.citations}}
        if self.kind == "text":
            return {"text": native.TEXT}
        if self.kind == "tool_call":
            use = {"toolUseId": self.use.tool_use_id, "name": self.use.name}
            return {"toolUse": {**use, "input": native.arguments_json(self.call or 0)}}
        if self.redacted:
            return {"reasoningContent": {"redactedContent": self.redacted}}
        proof = {"signature": self.signature} if self.signature else {}
        return {"reasoningContent": {"reasoningText": {"text": native.TEXT, **proof}}}


class ConverseReader(BaseReader):
    """Frames in, events out, for one streamed answer."""

    shape, words = _Event, FINISH

    def __init__(self) -> None:
        super().__init__()
        self._open: dict[int, _OpenBlock] = {}
        self._blocks = self._calls = 0
        self._usage: Usage | None = None
        self._end: ChoiceEnd | None = None
        self._table: dict[str, Any] = {
            "messageStart": lambda _event, out: out.append(MessageStart()),
            "contentBlockStart": self._start,
            "contentBlockDelta": self._delta,
            "contentBlockStop": self._block_stop,
            "messageStop": self._stop,
            "metadata": self._metadata,
        }

    def eof(self, out: list[Event]) -> None:
        """The body has ended; after the stop only the usage is missing."""
        if self._end is not None and not self.done:
            end = self._end
            out.append(MessageEnd(end.finish_reason, None, end.raw, early=True, known=end.known))
            self.done = True

    def _read(self, frame: Frame, out: list[Event]) -> None:
        kind, _, name = frame.event.partition(":")
        if name:
            self.error = failure(name, frame.data)
            return
        handle = self._table.get(kind)
        if handle is None:
            _fields(frame.data)
            self._other(kind, frame.data, out)
            return
        event = _decode(frame.data)
        block = self._open.get(event.content_block_index)
        if self._is_foreign(kind, event, block):
            self._other(kind, frame.data, out)
        handle(event, out)
        self._conclude(out)

    def _is_foreign(self, kind: str, event: _Event, block: _OpenBlock | None) -> bool:
        """Whether a frame belongs to a block that is not modelled."""
        use = event.start.tool_use if event.start is not None else None
        if kind == "contentBlockStart":
            return use is None or bool(use.type)
        foreign = block is not None and block.kind == "other"
        return foreign and kind in ("contentBlockDelta", "contentBlockStop")

    def _other(self, kind: str, data: bytes, out: list[Event]) -> None:
        out.append(OtherEvent(kind, data.decode(), dialect=DIALECT))

    def _conclude(self, out: list[Event]) -> None:
        if self._end is not None and self._usage is not None and not self.done:
            end = self._end
            out.append(MessageEnd(end.finish_reason, self._usage, end.raw, known=end.known))
            self.done = True

    # Blocks

    def _begin(self, index: int, kind: BlockKind, use: _Use, out: list[Event]) -> _OpenBlock:
        call = self._calls if kind == "tool_call" else None
        self._calls += kind == "tool_call"
        self._open[index] = opened = _OpenBlock(self._blocks, kind, call, use)
        self._blocks += 1
        out.append(BlockStart(opened.number, kind))
        return opened

    def _start(self, event: _Event, out: list[Event]) -> None:
        use = event.start.tool_use if event.start is not None else None
        if use is None or use.type:
            self._begin(event.content_block_index, "other", use or _Use(), out)
            return
        opened = self._begin(event.content_block_index, "tool_call", use, out)
        call = opened.call or 0
        out.append(ToolCallStart(call, use.tool_use_id or f"call_{call}", use.name))
        if use.input:
            out.append(ToolCallDelta(call, _text(use.input)))

    def _delta(self, event: _Event, out: list[Event]) -> None:
        delta, index = event.delta or _Delta(), event.content_block_index
        block = self._open.get(index)
        if block is not None and block.kind == "other":
            return
        kind: BlockKind = "text" if delta.reasoning_content is None else "reasoning"
        if delta.tool_use is not None:
            if block is not None and block.call is not None:
                out.append(ToolCallDelta(block.call, _text(delta.tool_use.input)))
            return
        content = delta.text or delta.reasoning_content or bytes(delta.citation)
        if block is None and content:
            block = self._begin(index, kind, _Use(), out)
        if block is not None:
            self._grow(block, delta, out)

    def _grow(self, block: _OpenBlock, delta: _Delta, out: list[Event]) -> None:
        if delta.text:
            out.append(TextDelta(delta.text))
        if thought := delta.reasoning_content:
            proof, opaque = thought.signature or "", thought.redacted_content or ""
            block.signature, block.redacted = proof or block.signature, opaque or block.redacted
            out.append(ReasoningDelta(thought.text or "", signature=proof, encrypted=opaque))
        if bytes(delta.citation):
            block.citations.append(delta.citation)
            out.append(Citation(bytes(delta.citation).decode()))

    def _block_stop(self, event: _Event, out: list[Event]) -> None:
        self._close(event.content_block_index, out)

    def _close(self, index: int, out: list[Event]) -> None:
        block = self._open.pop(index, None)
        if block is not None:
            made = block.native()
            out.append(BlockEnd(block.number, made, DIALECT if made else ""))

    # The end

    def _stop(self, event: _Event, out: list[Event]) -> None:
        for index in list(self._open):
            self._close(index, out)
        self._end = self._finish(event.stop_reason or "")
        if self._end is not None:
            out.append(self._end)

    def _metadata(self, event: _Event, out: list[Event]) -> None:
        self._usage = usage_from(event.usage or ConverseUsage())
        out.append(UsageReport(self._usage))


def _text(arguments: str | dict[str, Any]) -> str:
    return arguments if isinstance(arguments, str) else _encode(arguments).decode()
