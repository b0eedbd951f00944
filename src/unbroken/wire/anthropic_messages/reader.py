"""The streamed answer of Anthropic messages: frames to events (platform.claude.com: streaming).

An answer is a row of content blocks, each started, grown and stopped by its index. The terminal
is `message_stop` after a `stop_reason`; there is no `[DONE]`. Facts that shape this file:

* unknown event, block and delta types must be passed over (versioning policy): they become
  `OtherEvent`, so that nothing is lost (server tools and their results are such blocks);
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
    MessageEnd,
    MessageStart,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
    UsageReport,
)
from unbroken.wire.anthropic_messages.passthrough import other
from unbroken.wire.anthropic_messages.vocabulary import FINISH, MessagesUsage, merged, usage_from
from unbroken.wire.chunk_template import ChunkTemplate
from unbroken.wire.codec import Frame
from unbroken.wire.error_body import UNREADABLE, parse_error
from unbroken.wire.malformed import recover_or_skip


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
        self._like = ChunkTemplate("text")
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
                recover_or_skip(self, frame, out)
            if self.done or self.error is not None:
                return  # the end, or an error: whatever follows is no part of the answer

    def _read_whole(self, frame: Frame, out: list[Event]) -> None:
        said = _decode(frame.data)
        kind = said.type or frame.event
        if kind == "error" or said.error is not None:
            self.error = parse_error(frame.data)
            return
        read = self._table.get(kind)
        if read is not None:
            read(said, frame.data, out)
        elif kind not in _SILENT:
            out.append(other(kind, frame.data))

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
                out.append(other(delta.type, data))

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


_SILENT = frozenset({"", "ping", "content_block_stop"})


def block_events(block: Block, call: int, data: bytes, out: list[Event]) -> None:
    """What a content block says at its start, or all of it in a whole answer.

    `data` is the frame that starts it, for the kinds we have no word for.
    """
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
            out.append(other(block.type, data))
