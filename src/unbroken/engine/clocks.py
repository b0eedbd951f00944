"""The timeouts of one delivery: which deadline holds now, and which one has expired.

Seconds on the transport's clock; the time comes in as an argument.
"""

import msgspec

from unbroken.engine.policy import END_GRACE, WHOLE_TOTAL, Timeouts
from unbroken.transport.base import Deadlines


class Clocks:
    """Four timeouts, applied to one attempt after the other."""

    def __init__(self, timeouts: Timeouts, *, stream: bool) -> None:
        self._timeouts = timeouts if stream else _for_whole(timeouts)
        self._stream = stream
        self._started: float | None = None
        self._first: float | None = None  # of this attempt
        self._idle: float | None = None
        self._has_content = False
        self._primary: Clocks | None = None
        self.deadline: float | None = None

    def hedge(self) -> "Clocks":
        """Return the timeouts of a hedge, whose `total` counts from the start of the call."""
        made = Clocks(self._timeouts, stream=self._stream)
        made._primary = self
        return made

    def attempt(self, begin: float, now: float, first: float | None) -> Deadlines:
        """Start the timeouts of an attempt that is sent at `begin`; `first` is the bound for the
        wait for content while a fallback is available.
        """
        if self._started is None:
            earlier = None if self._primary is None else self._primary._started
            self._started = now if earlier is None else earlier
        self._first = _least(self._timeouts.first_event, first)
        self._has_content = False
        self.deadline = self._bounded(_after(begin, self._first))
        return Deadlines(self._bounded(_after(begin, self._timeouts.connect)), self.deadline)

    def content(self, now: float, idle: float | None, *, finished: bool) -> None:
        """Start the idle timeout anew; `idle` is its bound while a fallback is available."""
        self._has_content, self._idle = True, _least(self._timeouts.idle, idle)
        self.deadline = self._bounded(_after(now, END_GRACE if finished else self._idle))

    def expired(self, now: float) -> tuple[str, float | None]:
        """Return the phase whose timeout expired at `now`, and how long it was."""
        total = self._timeouts.total
        if total is not None and now >= (self._started or 0.0) + total:
            return "total", total
        return ("idle", self._idle) if self._has_content else ("first_event", self._first)

    def left(self, now: float) -> float | None:
        """Return the seconds left for the whole call, or None if they are not bounded."""
        total = self._timeouts.total
        return None if total is None else max(0.0, (self._started or now) + total - now)

    def spent(self, now: float) -> bool:
        """Return whether nothing more may start: the time for the whole call is over."""
        left = self.left(now)
        return left is not None and left <= 0

    def _bounded(self, deadline: float | None) -> float | None:
        """The earlier of a deadline and the end of the whole call."""
        total = self._timeouts.total
        if total is None or self._started is None:
            return deadline
        limit = self._started + total
        return limit if deadline is None else min(deadline, limit)


def _least(one: float | None, other: float | None) -> float | None:
    return min((value for value in (one, other) if value is not None), default=None)


def _after(begin: float, seconds: float | None) -> float | None:
    return None if seconds is None else begin + seconds


def _for_whole(timeouts: Timeouts) -> Timeouts:
    total = WHOLE_TOTAL if timeouts.total is None else timeouts.total
    return msgspec.structs.replace(timeouts, first_event=None, idle=None, total=total)
