"""The clocks of one delivery: which deadline holds now, and which one has run out.

Seconds on the transport's clock; whoever asks brings the time along.
"""

import msgspec

from unbroken.engine.policy import SETTLE, WHOLE_TOTAL, Timeouts
from unbroken.transport.base import Deadlines


class Clocks:
    """Four timeouts, applied to one attempt after the other."""

    def __init__(self, timeouts: Timeouts, *, stream: bool) -> None:
        self._timeouts = timeouts if stream else _for_whole(timeouts)
        self._started: float | None = None
        self._first: float | None = None  # the patience of this attempt
        self._spoke = False
        self.deadline: float | None = None

    def attempt(self, begin: float, now: float, patience: float | None) -> Deadlines:
        """An attempt is sent at `begin`; `patience` shortens its wait for content."""
        if self._started is None:
            self._started = now
        waits = [w for w in (self._timeouts.first_event, patience) if w is not None]
        self._first, self._spoke = min(waits, default=None), False
        self.deadline = self._bounded(_after(begin, self._first))
        return Deadlines(self._bounded(_after(begin, self._timeouts.connect)), self.deadline)

    def content(self, now: float, *, finished: bool) -> None:
        """Content has come."""
        self._spoke = True
        self.deadline = self._bounded(_after(now, SETTLE if finished else self._timeouts.idle))

    def ran_out(self, now: float) -> tuple[str, float | None]:
        """The phase whose clock ran out at `now`, and how long it was."""
        total = self._timeouts.total
        if total is not None and now >= (self._started or 0.0) + total:
            return "total", total
        return ("idle", self._timeouts.idle) if self._spoke else ("first_event", self._first)

    def spent(self, now: float) -> bool:
        """Nothing more may start: the time for the whole call is over."""
        total = self._timeouts.total
        return total is not None and now >= (self._started or now) + total

    def _bounded(self, deadline: float | None) -> float | None:
        """The earlier of a deadline and the end of the whole call."""
        total = self._timeouts.total
        if total is None or self._started is None:
            return deadline
        limit = self._started + total
        return limit if deadline is None else min(deadline, limit)


def _after(begin: float, seconds: float | None) -> float | None:
    return None if seconds is None else begin + seconds


def _for_whole(timeouts: Timeouts) -> Timeouts:
    total = WHOLE_TOTAL if timeouts.total is None else timeouts.total
    return msgspec.structs.replace(timeouts, first_event=None, idle=None, total=total)
