"""The content of one choice as it grows: its blocks in order, and what stands beside them.

Blocks begin where the provider says so, and elsewhere where the kind of content changes. Text is
kept as pieces and joined on demand.
"""

from typing import Any

import msgspec

from unbroken import native
from unbroken.events import (
    BlockEnd,
    BlockKind,
    BlockStart,
    ChoiceEnd,
    OtherEvent,
    ReasoningDelta,
    TokenLogprob,
    ToolCallStart,
    TurnNative,
)
from unbroken.parts import (
    RESPONSES,
    Message,
    Native,
    Part,
    Reasoning,
    Refusal,
    ToolUse,
)
from unbroken.parts import (
    Text as TextPart,
)
from unbroken.response import Choice, ChoiceLogprobs, Other, PartialToolCall, ToolCall

_arguments = msgspec.json.Decoder(dict[str, Any]).decode
_json = msgspec.json.Decoder().decode

_MANY = 64  # pieces that are joined at a time


class Text:
    """Text that grows. Its pieces are joined now and then: a small string takes ten times the
    memory of its letters, and a gateway holds many answers at once.
    """

    __slots__ = ("_joined", "_loose", "_settled")

    def __init__(self) -> None:
        self._loose: list[str] = []
        self._joined: list[str] = []
        self._settled = 0  # the pieces that have been joined

    @property
    def pieces(self) -> int:
        """How many pieces were added."""
        return self._settled + len(self._loose)

    def add(self, piece: str) -> None:
        """Append a piece."""
        self._loose.append(piece)
        if len(self._loose) >= _MANY:
            self._settled += len(self._loose)
            self._joined.append("".join(self._loose))
            self._loose.clear()

    def __str__(self) -> str:
        return "".join((*self._joined, *self._loose))


class Block:
    """One block: `text` is its visible text, its reasoning, or the arguments of its call."""

    __slots__ = (
        "call",
        "citations",
        "dialect",
        "encrypted",
        "kind",
        "marked",
        "native",
        "signature",
        "text",
    )

    def __init__(self, kind: BlockKind, *, marked: bool) -> None:
        self.kind, self.marked = kind, marked  # marked: by a BlockStart, and not yet by a BlockEnd
        self.text = Text()
        self.signature = self.encrypted = self.native = self.dialect = ""
        self.citations: list[str] = []
        self.call: ToolCallStart | None = None


class Turn:
    """One choice. `open` are the blocks that text, reasoning and refusal belong to, by kind."""

    __slots__ = (
        "_marked",
        "blocks",
        "boundaries",
        "calls",
        "end",
        "likely",
        "mixed",
        "native",
        "open",
        "others",
    )

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.open: dict[str, Block] = {}
        self._marked: dict[int, Block] = {}  # by the number that this attempt gave
        self.calls: dict[int, Block] = {}
        self.likely: tuple[list[TokenLogprob], list[TokenLogprob]] = ([], [])  # text, refusal
        self.others: list[Other] = []
        self.end: ChoiceEnd | None = None
        self.native: TurnNative | None = None
        self.mixed = False  # several attempts wrote it
        self.boundaries = 0

    # Blocks

    def grow(self, kind: BlockKind) -> Block:
        """The open block of that kind; a new one if there is none."""
        return self.open.get(kind) or self._begin(kind, marked=False)

    def start(self, event: BlockStart) -> None:
        """The provider begins a block."""
        self.boundaries += 1
        self._marked[event.index] = self._begin(event.kind, marked=True)

    def stop(self, event: BlockEnd) -> None:
        """The provider ends a block. Its JSON counts only if one attempt wrote all of it."""
        self.boundaries += 1
        block = self._marked.pop(event.index, None)
        if block is None:
            self.open.clear()
            return
        block.marked = False
        block.native, block.dialect = event.native, event.dialect
        if self.open.get(block.kind) is block:
            del self.open[block.kind]

    def cut(self) -> None:
        """Another model goes on: no JSON of an open block, or of the turn, can be whole."""
        self.mixed = True
        self._marked.clear()

    def reason(self, event: ReasoningDelta) -> None:
        """More reasoning. A signature seals a block that nothing else ends."""
        block = self.grow("reasoning")
        if event.text:
            block.text.add(event.text)
        block.signature = event.signature or block.signature
        block.encrypted = event.encrypted or block.encrypted
        if (event.signature or event.encrypted) and not block.marked:
            del self.open["reasoning"]

    def call(self, event: ToolCallStart) -> None:
        """A tool call begins, in the block that was begun for it or in a new one."""
        last = self.blocks[-1] if self.blocks else None
        if last is None or last.kind != "tool_call" or last.call is not None or not last.marked:
            last = self._begin("tool_call", marked=False)
        last.call = event
        self.calls[event.index] = last

    def cite(self, data: str) -> None:
        """A source of the newest text."""
        texts = (block for block in reversed(self.blocks) if block.kind == "text")
        block = next(texts, None) or self.grow("text")
        block.citations.append(data)

    def add_other(self, event: OtherEvent) -> None:
        """Keep an event that is not modelled, and its place in the text."""
        self.others.append(Other(event, len(self.text("text"))))

    def _begin(self, kind: BlockKind, *, marked: bool) -> Block:
        self.open = {name: block for name, block in self.open.items() if block.marked}
        block = Block(kind, marked=marked)
        self.blocks.append(block)
        if kind != "tool_call":
            self.open[kind] = block
        return block

    # What there is of it

    def text(self, kind: BlockKind) -> str:
        """All text of that kind."""
        found = [block for block in self.blocks if block.kind == kind]
        return str(found[0].text) if len(found) == 1 else "".join(str(b.text) for b in found)

    def message(self, *, complete: bool) -> Message:
        """The turn as it is sent back: its parts, and its JSON where one dialect gave all of it."""
        parts = [part for block in self.blocks for part in self._parts(block, complete=complete)]
        whole = complete and not self.mixed and not any(map(self._is_open_call, self.blocks))
        return Message("assistant", tuple(parts), self._native() if whole else None)

    def _parts(self, block: Block, *, complete: bool) -> list[Part]:
        text = str(block.text)
        if block.kind == "tool_call":
            call = block.call
            if call is None or not complete or self._parsed(call, text) is None:
                return []
            return [ToolUse(call.id, call.name, text or "{}", call.custom)]
        if block.kind == "reasoning":
            proof = block.signature, block.encrypted
            return [Reasoning(text, *proof, block.dialect)] if text or any(proof) else []
        if block.kind == "other":
            return [Native(block.dialect, _json(block.native))] if block.native else []
        kind = Refusal if block.kind == "refusal" else TextPart
        return [kind(text)] if text else []

    def _is_open_call(self, block: Block) -> bool:
        """Whether a block is a call that can't be executed."""
        if block.kind != "tool_call":
            return False
        return block.call is None or self._parsed(block.call, str(block.text)) is None

    def _native(self) -> Native | None:
        if self.native is not None:
            return self._filled_turn(self.native)
        spoken = [block for block in self.blocks if block.kind != "text" or str(block.text)]
        dialects = {block.dialect for block in spoken}
        if len(dialects) != 1 or not all(block.native for block in spoken):
            return None
        content = [self._filled_block(block) for block in spoken]
        dialect = dialects.pop()
        # in the Responses dialect a turn is a list of items, elsewhere a message with blocks
        data = content if dialect == RESPONSES else {"role": "assistant", "content": content}
        return Native(dialect, data)

    def _filled_block(self, block: Block) -> Any:
        texts = {native.TEXT: str(block.text)}
        calls = {} if block.call is None else {block.call.index: str(block.text)}
        return _json(native.fill(block.native, texts, calls))

    def _filled_turn(self, turn: TurnNative) -> Native:
        texts = {native.TEXT: self.text("text")}
        calls = {index: str(block.text) for index, block in self.calls.items()}
        message = _json(native.fill(turn.native, texts, calls))
        return Native(turn.dialect, {**message, "content": message["content"] or None})

    def freeze(self, index: int, *, complete: bool) -> Choice:
        """The choice as it stands."""
        whole, partial = self._split_calls(complete=complete)
        end, blocks = self.end, self.blocks
        signatures = [b.signature or b.encrypted for b in blocks if b.signature or b.encrypted]
        return Choice(
            index=index,
            text=self.text("text"),
            reasoning=self.text("reasoning"),
            reasoning_signature=signatures[-1] if signatures else "",
            refusal=self.text("refusal"),
            tool_calls=tuple(whole),
            partial_tool_calls=tuple(partial),
            citations=tuple(cited for block in blocks for cited in block.citations),
            finish_reason=end.finish_reason if end else None,
            raw_finish_reason=end.raw if end else "",
            logprobs=ChoiceLogprobs(*map(tuple, self.likely)) if any(self.likely) else None,
            others=tuple(self.others),
            message=self.message(complete=complete),
        )

    def _split_calls(self, *, complete: bool) -> tuple[list[ToolCall], list[PartialToolCall]]:
        whole: list[ToolCall] = []
        partial: list[PartialToolCall] = []
        for block in self.calls.values():
            call, text = block.call, str(block.text)
            assert call is not None
            arguments = self._parsed(call, text) if complete else None
            if arguments is None:
                partial.append(PartialToolCall(call.id, call.name, text, call.custom))
            else:
                whole.append(ToolCall(call.id, call.name, arguments, call.custom))
        return whole, partial

    def _parsed(self, call: ToolCallStart, text: str) -> dict[str, Any] | None:
        """The arguments as an object; None if the call can't be executed.

        A call without any has none, unless it was cut short.
        """
        end = self.end
        if not call.name or (end is not None and not end.known):
            return None
        if call.custom:
            return {"input": text}
        if not text.strip():
            return None if end and end.finish_reason in ("length", "content_filter") else {}
        try:
            return _arguments(text)
        except msgspec.DecodeError:
            return None
