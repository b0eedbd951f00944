"""Which tool call a fragment belongs to.

Servers disagree: no index at all (Gemini-compatible, older Ollama), index 0 for every call
(converters), an index that grows with each fragment (Nebius: dirac-run/dirac#215), the id in the
first fragment only, in each, or another one in each (vLLM up to 0.8, poolsideai/pool#9), names that
come late, and markers without a name (DeepSeek: langchain4j/langchain4j#5209). A fragment belongs
to a call by its index if that is known, else by its id, else to the call that is still open.
"""

from typing import Any

import msgspec
from msgspec import Struct

from unbroken.events import Event, ToolCallDelta, ToolCallStart
from unbroken.wire.openai_chat.passthrough import unknown_of_call


class Fragment(Struct, gc=False):
    """A piece of a call, whatever form it came in."""

    index: int | None = None
    id: str = ""
    name: str = ""
    text: str = ""
    custom: bool = False
    unknown: dict[str, Any] = {}  # what this version does not model
    foreign: bool = False  # a tool of another type: nothing for the caller to execute


class Call:
    """A call as far as it has come. `number` is None until its start has been reported."""

    __slots__ = ("custom", "id", "name", "number", "pieces", "unknown")

    def __init__(self) -> None:
        self.id = self.name = ""
        self.number: int | None = None
        self.custom = False
        self.pieces: list[str] = []
        self.unknown: dict[str, Any] = {}

    @property
    def is_whole(self) -> bool:
        """Whether the arguments so far are a JSON value."""
        try:
            msgspec.json.decode("".join(self.pieces))
        except msgspec.DecodeError:
            return False
        return True


class Calls:
    """The tool calls of one choice."""

    def __init__(self, choice: int) -> None:
        self._choice = choice
        self._all: list[Call] = []
        self._started = 0
        self._by_id: dict[str, Call] = {}
        self._by_index: dict[int, Call] = {}

    @property
    def started(self) -> list[Call]:
        """The calls that were reported, in order."""
        return [call for call in self._all if call.number is not None]

    def add(self, piece: Fragment, out: list[Event]) -> None:
        """Append what the fragment says of its call. One that says nothing is no call."""
        if not (piece.id or piece.name or piece.text or piece.unknown):
            return
        call = self._place(piece)
        call.id, call.name = call.id or piece.id, call.name or piece.name
        call.custom = call.custom or piece.custom
        if piece.text:
            call.pieces.append(piece.text)
        if piece.foreign:
            self._report_foreign(call, piece, out)
            return
        call.unknown = {**call.unknown, **piece.unknown}
        if call.number is not None:
            if piece.text:
                out.append(ToolCallDelta(call.number, piece.text, self._choice))
            self._report_unknown(call, piece.unknown, out)
        elif call.name and (call.id or call.pieces):
            self._start(call, out)

    def finish(self, out: list[Event]) -> None:
        """No more will come. What has neither name nor arguments was no call."""
        for call in self._all:
            if call.number is None and (call.name or call.pieces):
                self._start(call, out)

    def _start(self, call: Call, out: list[Event]) -> None:
        number = call.number = self._number()
        call.id = call.id or f"call_{number}"
        out.append(ToolCallStart(number, call.id, call.name, self._choice, call.custom))
        if call.pieces:
            out.append(ToolCallDelta(number, "".join(call.pieces), self._choice))
        self._report_unknown(call, call.unknown, out)

    def _number(self) -> int:
        self._started += 1
        return self._started - 1

    def _report_unknown(self, call: Call, unknown: dict[str, Any], out: list[Event]) -> None:
        if unknown and call.number is not None:
            out.append(unknown_of_call(call.number, self._choice, unknown, ours=True))

    def _report_foreign(self, call: Call, piece: Fragment, out: list[Event]) -> None:
        if call.number is None:
            call.number = self._number()
            piece.unknown = {"id": call.id or None, **piece.unknown}
        out.append(unknown_of_call(call.number, self._choice, piece.unknown, ours=False))

    # Finding the call

    def _place(self, piece: Fragment) -> Call:
        call = self._known(piece)
        if call is None:
            call = Call()
            self._all.append(call)
        if piece.id:
            self._by_id[piece.id] = call
        if piece.index is not None:
            self._by_index[piece.index] = call
        return call

    def _known(self, piece: Fragment) -> Call | None:
        call = None if piece.index is None else self._by_index.get(piece.index)
        if call is None and piece.id:
            call = self._by_id.get(piece.id)
        if call is None:
            return self._open(piece)
        return None if _is_another(call, piece) else call

    def _open(self, piece: Fragment) -> Call | None:
        """The newest call, if a fragment with an unknown index and id goes on with it."""
        call = self._all[-1] if self._all else None
        if call is None:
            return None
        if piece.name:
            anonymous = piece.index is None and not piece.id
            repeats = anonymous and piece.name == call.name and bool(call.pieces)
            return call if repeats and not call.is_whole else None
        if piece.index is None and not piece.id:
            return call
        goes_on = piece.text and (not piece.text.strip() or not call.is_whole)
        return call if goes_on else None


def _is_another(call: Call, piece: Fragment) -> bool:
    """Whether a fragment at the index or with the id of `call` begins a call of its own."""
    if not piece.name or not call.name:
        return False
    other_id = bool(piece.id and call.id and piece.id != call.id)
    if not call.pieces:
        return other_id and not piece.text if piece.name == call.name else piece.id != call.id
    return call.is_whole and (other_id or (piece.name != call.name and not piece.id))
