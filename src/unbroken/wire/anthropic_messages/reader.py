"""The streamed answer of Anthropic messages: frames to events (platform.claude.com: streaming).

An answer is a row of content blocks, each started, grown and stopped by its index. The terminal
is `message_stop` after a `stop_reason`; there is no `[DONE]`. Facts that shape this file:

* unknown event, block and delta types must be passed over (versioning policy): they become
  `OtherEvent`, so that nothing is lost (server tools and their results are such blocks);
* usage in `message_delta` is cumulative, and what it leaves out keeps its earlier value;
* `message_start` carries a placeholder for the output tokens, not a count;
* compatible servers may leave out the `event:` line, use one index for all blocks, or give the
  input of a call in its start, in pieces, or both.
"""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from unbroken.events import (
    ChoiceEnd,
    Event,
    MessageEnd,
    MessageStart,
    ReasoningDelta,
    TextDelta,
    Usage,
    UsageReport,
)
from unbroken.ready import ready
from unbroken.wire.anthropic_messages.blocks import Block, OpenBlock
from unbroken.wire.anthropic_messages.passthrough import other, starting
from unbroken.wire.anthropic_messages.vocabulary import FINISH, MessagesUsage, merged, usage_from
from unbroken.wire.codec import Frame
from unbroken.wire.error_body import parse_error
from unbroken.wire.lenient import convert
from unbroken.wire.reader import BaseReader


@ready
class Completion(Struct):
    """A whole message, or the beginning of one."""

    id: str | None = None
    model: str | None = None
    usage: MessagesUsage | None = None
    content: list[dict[str, Any]] | None = None
    stop_reason: str | None = None
    error: Any = None


class _Delta(Struct, gc=False):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    citation: Raw = Raw(b"null")  # msgspec reads nothing but null into `Raw | None`
    stop_reason: str | None = None


class _Event(Struct, gc=False):
    type: str = ""
    index: int = 0
    message: Completion | None = None
    content_block: Block | None = None
    delta: _Delta | None = None
    usage: MessagesUsage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Event).decode
_encode = msgspec.json.Encoder().encode

_SILENT = frozenset({"", "ping"})
_INFERRED = (
    ("text", "text_delta"),
    ("thinking", "thinking_delta"),
    ("signature", "signature_delta"),
    ("partial_json", "input_json_delta"),
)


class MessagesReader(BaseReader):
    """Frames in, events out, for one streamed answer."""

    shape, words = _Event, FINISH

    def __init__(self) -> None:
        super().__init__()
        self._counted = MessagesUsage()  # as the wire has it, so that what is left out stays
        self._usage: Usage | None = None
        self._end: ChoiceEnd | None = None
        self._open: dict[int, OpenBlock] = {}
        self._blocks = self._calls = 0
        self._given: list[dict[str, Any]] = []  # content of the message's start
        self._table: dict[str, Any] = {
            "message_start": self._message_start,
            "content_block_start": self._block_start,
            "content_block_delta": self._block_delta,
            "content_block_stop": self._block_stop,
            "message_delta": self._message_delta,
            "message_stop": self._message_stop,
        }

    def _read(self, frame: Frame, out: list[Event]) -> None:
        event = _decode(frame.data)
        kind = event.type or frame.event
        if kind == "error" or event.error:
            self.error = parse_error(frame.data)
            return
        read = self._table.get(kind)
        if read is not None:
            read(event, frame.data, out)
        elif kind not in _SILENT:
            out.append(other(kind, frame.data))

    # The message

    def _message_start(self, event: _Event, _data: bytes, out: list[Event]) -> None:
        message = event.message or Completion()
        out.append(MessageStart(message.id or "", message.model or ""))
        self._given = message.content or []
        if message.usage is not None:
            self._counted = msgspec.structs.replace(message.usage, output_tokens=0)
            self._usage = msgspec.structs.replace(usage_from(self._counted), source="partial")
            out.append(UsageReport(self._usage))

    def _message_delta(self, event: _Event, _data: bytes, out: list[Event]) -> None:
        raw = event.delta and event.delta.stop_reason
        if event.usage is not None:
            self._counted = merged(self._counted, event.usage)
            self._usage = usage_from(self._counted)
        if raw and self._end is None:
            self._close(out)
            self._end = self._finish(raw)
            if self._end is not None:
                out.append(self._end)
        if event.usage is not None and self._usage is not None:
            out.append(UsageReport(self._usage))

    def _message_stop(self, event: _Event, data: bytes, out: list[Event]) -> None:
        message = event.message or Completion()
        self._given = self._given or message.content or []
        self._close(out)
        if message.stop_reason and self._end is None:
            self._message_delta(_Event(delta=_Delta(stop_reason=message.stop_reason)), data, out)
        self.done = self.error is None
        if self._end is not None:
            end = self._end
            out.append(MessageEnd(end.finish_reason, self._usage, end.raw, known=end.known))

    def add_message(self, message: Completion, out: list[Event]) -> None:
        """Append an answer that came in one piece."""
        self._message_start(_Event(message=message), b"", out)
        delta = _Delta(stop_reason=message.stop_reason)
        self._message_delta(_Event(delta=delta, usage=message.usage), b"", out)
        self._close(out)
        if self._end is not None:
            self._message_stop(_Event(), b"", out)

    # Blocks

    def add_whole(self, content: list[dict[str, Any]], out: list[Event]) -> None:
        """Append blocks that came in one piece."""
        for index, fields in enumerate(content):
            self._begin(index, convert(fields, Block), fields, b"", out)
            self._open.pop(index).stop(out)

    def _block_start(self, event: _Event, data: bytes, out: list[Event]) -> None:
        block = event.content_block or Block()
        if not block.type:
            self.skipped += 1
            return
        if event.index in self._open:
            self._open.pop(event.index).stop(out)
        fields = msgspec.json.decode(data)["content_block"]
        self._begin(event.index, block, fields, data, out)

    def _begin(
        self, index: int, block: Block, fields: dict[str, Any], data: bytes, out: list[Event]
    ) -> None:
        self._open[index] = opened = OpenBlock(self._blocks, block, fields, self._calls)
        self._blocks += 1
        self._calls += opened.kind == "tool_call"
        opened.start(data or starting(index, Raw(_encode(fields))), out)

    def _block_stop(self, event: _Event, _data: bytes, out: list[Event]) -> None:
        block = self._open.pop(event.index, None)
        if block is not None:
            block.stop(out)

    def _close(self, out: list[Event]) -> None:
        """End the blocks that nothing ended; content of the message counts if no block came."""
        for index in list(self._open):
            self._open.pop(index).stop(out)
        if self._given and not self._blocks:
            self.add_whole(self._given, out)

    def _block_delta(self, event: _Event, data: bytes, out: list[Event]) -> None:
        delta, block = event.delta or _Delta(), self._open.get(event.index)
        kind = delta.type or next((kind for name, kind in _INFERRED if getattr(delta, name)), "")
        if block is not None and block.kind == "other":
            block.grow_other(msgspec.json.decode(data).get("delta") or {})
            out.append(other(kind, data))
            return
        match kind:
            case "":
                self.skipped += 1
            case "text_delta":
                self._text(delta, data, out)
            case "thinking_delta" | "signature_delta":
                self._thought(delta, block, out)
            case "input_json_delta" if block is not None and block.kind == "tool_call":
                block.type_input(delta.partial_json or "", out)
            case "citations_delta":
                cited = block or OpenBlock(0, Block("text"), {}, 0)
                cited.cite([Raw(bytes(delta.citation))], out)
            case _:
                out.append(other(kind, data))

    def _text(self, delta: _Delta, data: bytes, out: list[Event]) -> None:
        self._blocks += not self._blocks  # a server that starts no blocks
        if delta.text:
            out.append(TextDelta(delta.text))
            self._learn(data, out[-1])

    def _thought(self, delta: _Delta, block: OpenBlock | None, out: list[Event]) -> None:
        thought, proof = delta.thinking or "", delta.signature or ""
        if block is not None:
            block.sign(proof)
        if thought or proof:
            out.append(ReasoningDelta(thought, signature=proof))
