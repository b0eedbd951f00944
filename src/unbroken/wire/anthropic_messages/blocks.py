"""One content block of an answer as it grows, and its JSON when it is whole."""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from unbroken import native
from unbroken.events import (
    BlockEnd,
    BlockKind,
    BlockStart,
    Citation,
    Event,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
)
from unbroken.wire.anthropic_messages.passthrough import DIALECT, grow, other, typed_input

_encode = msgspec.json.Encoder().encode

KINDS: dict[str, BlockKind] = {
    "text": "text",
    "thinking": "reasoning",
    "redacted_thinking": "reasoning",
    "tool_use": "tool_call",
}
"""Kinds of blocks that are modelled. Blocks of server tools are none of the caller's calls."""


class Block(Struct, gc=False):
    """What is read of a block."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: Any = None
    citations: list[Raw] | None = None


class OpenBlock:
    """A block between its start and its end. `fields` is its JSON at the start."""

    def __init__(self, number: int, block: Block, fields: dict[str, Any], call: int) -> None:
        self.number, self.call = number, call
        self.kind: BlockKind = KINDS.get(block.type, "other")
        self._block, self._fields = block, fields
        self._citations: list[Raw] = []
        self._typed: list[str] = []  # the input of a server's tool
        self._signature = block.signature or ""
        self._input = _encode(block.input).decode() if block.input else ""  # given at the start

    def start(self, frame: bytes, out: list[Event]) -> None:
        """Append what the block says at its start; `frame` is the frame that starts it."""
        block = self._block
        out.append(BlockStart(self.number, self.kind))
        if self.kind == "other":
            out.append(other(block.type, frame))
        if self.kind == "text":
            out.extend([TextDelta(block.text)] if block.text else [])
            self.cite(block.citations or [], out)
        if self.kind == "reasoning" and (block.thinking or block.signature or block.data):
            proof, opaque = block.signature or "", block.data or ""
            thought = block.thinking or ""
            out.append(ReasoningDelta(thought, signature=proof, encrypted=opaque))
        if self.kind == "tool_call":
            name = block.name or ""
            out.append(ToolCallStart(self.call, block.id or f"call_{self.call}", name))

    def cite(self, citations: list[Raw], out: list[Event]) -> None:
        """Sources of the text."""
        self._citations += citations
        out.extend(Citation(bytes(citation).decode()) for citation in citations)

    def sign(self, signature: str) -> None:
        """The proof of the reasoning."""
        self._signature = signature or self._signature

    def type_input(self, text: str, out: list[Event]) -> None:
        """More of a call's input. It replaces what stood in the start."""
        if text:
            self._input = ""
            out.append(ToolCallDelta(self.call, text))

    def grow_other(self, delta: dict[str, Any]) -> None:
        """More of a block that is not modelled."""
        self._typed.append(delta.pop("partial_json", ""))
        grow(self._fields, delta)

    def stop(self, out: list[Event]) -> None:
        """Append the end of the block, with its JSON."""
        if self._input and self.kind == "tool_call":
            out.append(ToolCallDelta(self.call, self._input))
        out.append(BlockEnd(self.number, native.template(self._native()), DIALECT))

    def _native(self) -> dict[str, Any]:
        fields = self._fields
        if self.kind == "text":
            cited = {"citations": self._citations} if self._citations else {}
            return {**fields, "text": native.TEXT, **cited}
        if self.kind == "tool_call":
            return {**fields, "input": native.arguments_json(self.call)}
        if self.kind == "other":
            return {**fields, **typed_input("".join(self._typed))}
        if self._block.type == "redacted_thinking":
            return fields
        return {**fields, "thinking": native.TEXT, "signature": self._signature}
