"""Writing for clients that take one content block at a time.

Behind other gateways the real Claude Code ran `Read({})` where two calls came interleaved. So
whatever belongs to a later block is held back until the call before it is whole: by its end, or
because its arguments are whole JSON.
"""

import msgspec

from unbroken.events import (
    BlockEnd,
    BlockStart,
    Citation,
    Event,
    OtherEvent,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
)
from unbroken.wire.codec import Frame, TableWriter

_BLOCKS = (
    BlockStart
    | BlockEnd
    | TextDelta
    | RefusalDelta
    | ReasoningDelta
    | Citation
    | ToolCallStart
    | ToolCallDelta
    | OtherEvent
)
"""Events that belong to a block of their own."""


class SequentialWriter(TableWriter):
    """A writer of one choice that opens a block only when the one before is whole."""

    def __init__(self) -> None:
        self._call: int | None = None  # the call whose arguments are coming, and what came of them
        self._pieces: list[str] = []
        self._call_block: int | None = None  # the number of its block, where a BlockStart gave it
        self._marked: int | None = None  # the latest BlockStart of a call
        self._later: list[Event] = []  # what belongs to blocks behind the open call

    def write(self, event: Event) -> list[Frame]:
        """The frames of `event`, and of those that waited for it."""
        if self._call is None:
            return self._write_one(event)
        if self._is_later(event):
            self._later.append(event)
            return []
        frames = self._write_one(event)
        return [*frames, *self._release()] if self._later else frames

    def flush(self) -> list[Frame]:
        """The end of the content: nothing can wait any longer."""
        frames: list[Frame] = []
        while self._later:
            self._call = None
            frames += self._release()
        self._call = None
        return frames

    def _write_one(self, event: Event) -> list[Frame]:
        match event:
            case BlockStart():
                self._marked = event.index if event.kind == "tool_call" else None
            case BlockEnd() if event.index == self._call_block:
                self._call = self._call_block = None
            case ToolCallStart():
                self._call, self._pieces = event.index, []
                self._call_block, self._marked = self._marked, None
            case ToolCallDelta() if event.index == self._call:
                self._pieces.append(event.arguments)
        return super().write(event)

    def _is_later(self, event: Event) -> bool:
        """Whether an event must wait for the open call."""
        if not isinstance(event, _BLOCKS) or getattr(event, "choice", None):
            return False
        if isinstance(event, ToolCallDelta) and event.index == self._call:
            return False
        if isinstance(event, BlockEnd) and event.index == self._call_block:
            return False
        if self._later or isinstance(event, BlockEnd) or not self._call_is_whole():
            return True
        self._call = None
        return False

    def _call_is_whole(self) -> bool:
        """Whether the arguments are an object: nothing but a closed one can't grow any more."""
        try:
            msgspec.json.decode("".join(self._pieces), type=dict)
        except msgspec.DecodeError:
            return False
        return True

    def _release(self) -> list[Frame]:
        """Write what waited, if the open call is whole by now."""
        if self._call is not None and not self._call_is_whole():
            return []
        self._call = None
        waiting, self._later = self._later, []
        return [frame for event in waiting for frame in self.write(event)]
