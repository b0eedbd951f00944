"""The states of a delivery and what may follow what; drawn in `delivery`."""

from enum import Enum, auto


class State(Enum):
    """Where a delivery stands."""

    READY = auto()
    OPENING = auto()
    STREAMING = auto()
    REFUSED = auto()
    BACKING_OFF = auto()
    COMPLETE = auto()
    FAILED = auto()


_BROKEN = frozenset({State.BACKING_OFF, State.COMPLETE, State.FAILED})
NEXT: dict[State, frozenset[State]] = {
    State.READY: frozenset({State.OPENING, State.FAILED}),
    State.OPENING: frozenset({State.STREAMING, State.REFUSED}) | _BROKEN,
    State.STREAMING: _BROKEN,
    State.REFUSED: _BROKEN,
    State.BACKING_OFF: frozenset({State.OPENING, State.FAILED}),
    State.COMPLETE: frozenset(),
    State.FAILED: frozenset(),
}
