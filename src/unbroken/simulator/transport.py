"""The simulator as a transport: no network, and by default no time either.

With the virtual clock a minute of backoff takes no time at all, and every run is the same. With
`real_time` the answer comes at the pace of the scenario: this is what answers without a key.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from unbroken.errors import ConnectionLost, TimedOut, TransportError
from unbroken.simulator.scenario import Scenario
from unbroken.simulator.server import Entry, SimulatedServer
from unbroken.simulator.steps import Close, End, Hang, Head, Reset, Send, Step, Wait
from unbroken.transport.base import AsyncLane, Deadlines, HttpRequest, Lane
from unbroken.transport.race import T, race, race_tasks
from unbroken.transport.waits import AsyncWaits, Waits

_ENDED = "simulated: the client has closed the connection"
_READ, _STEPS = 64 * 1024, 256
"""Bytes that one read gives, about, and steps: a process that waits for it has others to serve."""


Scenarios = Mapping[str, Scenario] | Scenario | None
"""By model name, `*` for all others; or one for all."""


class _StepCursor:
    """Steps laid out in time. It says how long to wait and what comes then; it never waits."""

    def __init__(
        self, steps: Iterator[Step], entry: Entry, now: float, request: HttpRequest
    ) -> None:
        self._steps = steps
        self._next: Step | None = None
        self._due = now
        self.entry, self.request = entry, request

    def take(self, now: float, deadline: float | None) -> tuple[float, Step | TransportError]:
        """Seconds to wait, and the step or the error that comes then."""
        step = self._peek()
        if deadline is not None and (self._due >= deadline or isinstance(step, Hang)):
            return max(0.0, deadline - now), TimedOut()
        if isinstance(step, Hang):
            raise RuntimeError("the scenario hangs and no deadline is set")
        self._next = None
        return max(0.0, self._due - now), self._noted(step)

    def due(self, now: float) -> bytes:
        """What has come meanwhile: a socket gives all of it at once."""
        came, left = bytearray(), _STEPS
        while left and len(came) < _READ and self._due_at(now):
            step, self._next = self._peek(), None
            assert isinstance(step, Send)
            self._noted(step)
            came += step.data
            left -= 1
        return bytes(came)

    def _due_at(self, now: float) -> bool:
        return isinstance(self._peek(), Send) and self._due <= now

    def leave(self) -> None:
        """The client has closed the connection."""
        if self.entry.ended == "open":
            self.entry.ended = "client left"

    def _peek(self) -> Step:
        while self._next is None:
            step = next(self._steps)
            if isinstance(step, Wait):
                self._due += step.seconds
            else:
                self._next = step
        return self._next

    def _noted(self, step: Step) -> Step | TransportError:
        match step:
            case Head(status=status):
                self.entry.status = status
            case Send(data=data):
                self.entry.sent += len(data)
            case End():
                self.entry.ended = "whole"
            case Reset() | Close():
                self.entry.ended = "reset" if isinstance(step, Reset) else "closed"
                return ConnectionLost(f"simulated: {self.entry.ended}")
        return step


class _Clock:
    """Time that passes only when somebody waits, or the real one."""

    def __init__(self, *, real: bool) -> None:
        self.real = real
        self._now = 1000.0

    def now(self) -> float:
        return time.monotonic() if self.real else self._now

    def pass_by(self, seconds: float) -> None:
        self._now += seconds

    def set(self, now: float) -> None:
        """Go to a moment, also back: in a race two lanes live through the same seconds."""
        self._now = now


class _Simulated:
    """What both transports share."""

    def __init__(self, scenarios: Scenarios, *, real_time: bool) -> None:
        named = {"*": scenarios} if isinstance(scenarios, Scenario) else scenarios
        self.server = SimulatedServer(named)
        self.clock = _Clock(real=real_time)

    @property
    def log(self) -> list[Entry]:
        """Every request so far (the youngest 10,000 of them), and how its answer ended."""
        return self.server.log

    def now(self) -> float:
        """Seconds on this transport's clock."""
        return self.clock.now()

    def _all(self, step: Step, cursor: _StepCursor) -> bytes:
        """What a read gives: in real time everything that is due, else piece by piece."""
        if not isinstance(step, Send):
            return b""
        return step.data + cursor.due(self.now()) if self.clock.real else step.data

    def _cursor(self, request: HttpRequest) -> _StepCursor:
        url = urlsplit(request.url)
        path = f"{url.path}?{url.query}" if url.query else url.path
        steps, entry = self.server.answer(path, request.headers, request.body)
        return _StepCursor(steps, entry, self.now(), request)


class SimulatorTransport(_Simulated):
    """The simulator for callers that block. `log` tells what was asked and how it ended."""

    def __init__(self, scenarios: Scenarios = None, *, real_time: bool = False) -> None:
        super().__init__(scenarios, real_time=real_time)
        self._waits = Waits()

    def open(self, request: HttpRequest, deadlines: Deadlines) -> "SimulatorBody":
        """Ask; the headers have come when this returns."""
        cursor = self._cursor(request)
        try:
            head = self._wait(cursor, deadlines.headers)
        except TransportError:
            cursor.leave()
            raise
        assert isinstance(head, Head)
        return SimulatorBody(head, cursor, self)

    def sleep(self, seconds: float, request: HttpRequest | None = None) -> None:
        """Wait (before that request is sent), or let the virtual clock run."""
        self._pause(seconds, request)

    def _pause(self, seconds: float, request: HttpRequest | None) -> bool:
        """Whether it was ended before its time."""
        if self.clock.real:
            return self._waits.sleep(seconds, request)
        self.clock.pass_by(seconds)
        return False

    def give_up(self, request: HttpRequest) -> None:
        """End `sleep` or `open` for that request, if another thread waits in it."""
        self._waits.end(request)

    def race(self, one: Lane[T], other: Lane[T], after: float) -> tuple[int, list[T]]:
        """Real time: in threads. Virtual time: one lane after the other, in the same seconds."""
        if self.clock.real:
            return race(one, other, after)
        start = self.now()
        ahead, ahead_at = one.first(), self.now()
        if ahead and ahead_at <= start + after:
            return 0, ahead
        self.clock.set(start + after if ahead else min(ahead_at, start + after))
        behind, behind_at = other.first(), self.now()
        won = 0 if ahead and (not behind or ahead_at <= behind_at) else 1
        self.clock.set(behind_at if won else ahead_at)
        (one if won else other).abandon()
        return won, behind if won else ahead

    def close(self) -> None:
        """Nothing is held."""

    def _wait(self, cursor: _StepCursor, deadline: float | None) -> Step:
        delay, step = cursor.take(self.now(), deadline)
        if delay and self._pause(delay, cursor.request):
            raise ConnectionLost(_ENDED)
        if isinstance(step, TransportError):
            raise step
        return step


class SimulatorBody:
    """A simulated answer whose headers have come."""

    def __init__(self, head: Head, cursor: _StepCursor, transport: SimulatorTransport) -> None:
        self.status, self.headers = head.status, head.headers
        self._cursor, self._transport = cursor, transport

    def read(self, deadline: float | None) -> bytes:
        """What comes next; b"" at the end of the body."""
        step = self._transport._wait(self._cursor, deadline)
        return self._transport._all(step, self._cursor)

    def close(self, *, reusable: bool = False) -> None:
        """Hang up. A whole answer whose end was not read counts as whole."""
        if reusable and self._cursor.entry.ended == "open":
            self._cursor.entry.ended = "whole"
        self._cursor.leave()
        self._transport.give_up(self._cursor.request)


class AsyncSimulatorTransport(_Simulated):
    """The simulator for callers that await. `log` tells what was asked and how it ended."""

    def __init__(self, scenarios: Scenarios = None, *, real_time: bool = False) -> None:
        super().__init__(scenarios, real_time=real_time)
        self._waits = AsyncWaits()

    async def open(self, request: HttpRequest, deadlines: Deadlines) -> "AsyncSimulatorBody":
        """Ask; the headers have come when this returns."""
        cursor = self._cursor(request)
        try:
            head = await self._wait(cursor, deadlines.headers)
        except (TransportError, asyncio.CancelledError):
            cursor.leave()
            raise
        assert isinstance(head, Head)
        return AsyncSimulatorBody(head, cursor, self)

    async def sleep(self, seconds: float, request: HttpRequest | None = None) -> None:
        """Wait (before that request is sent), or let the virtual clock run."""
        await self._pause(seconds, request)

    async def _pause(self, seconds: float, request: HttpRequest | None) -> bool:
        """Whether it was ended before its time."""
        if self.clock.real:
            return await self._waits.sleep(seconds, request)
        self.clock.pass_by(seconds)
        await asyncio.sleep(0)
        return False

    def give_up(self, request: HttpRequest) -> None:
        """End `sleep` or `open` for that request, if another task waits in it."""
        self._waits.end(request)

    async def race(
        self, one: AsyncLane[T], other: AsyncLane[T], after: float
    ) -> tuple[int, list[T]]:
        """Real time: in tasks. Virtual time: one lane after the other, in the same seconds."""
        if self.clock.real:
            return await race_tasks(one, other, after)
        start = self.now()
        ahead, ahead_at = await one.first(), self.now()
        if ahead and ahead_at <= start + after:
            return 0, ahead
        self.clock.set(start + after if ahead else min(ahead_at, start + after))
        behind, behind_at = await other.first(), self.now()
        won = 0 if ahead and (not behind or ahead_at <= behind_at) else 1
        self.clock.set(behind_at if won else ahead_at)
        await (one if won else other).abandon()
        return won, behind if won else ahead

    async def close(self) -> None:
        """Nothing is held."""

    async def _wait(self, cursor: _StepCursor, deadline: float | None) -> Step:
        delay, step = cursor.take(self.now(), deadline)
        if delay and await self._pause(delay, cursor.request):
            raise ConnectionLost(_ENDED)
        if isinstance(step, TransportError):
            raise step
        return step


class AsyncSimulatorBody:
    """A simulated answer whose headers have come."""

    def __init__(self, head: Head, cursor: _StepCursor, transport: AsyncSimulatorTransport) -> None:
        self.status, self.headers = head.status, head.headers
        self._cursor, self._transport = cursor, transport

    async def read(self, deadline: float | None) -> bytes:
        """What comes next; b"" at the end of the body."""
        step = await self._transport._wait(self._cursor, deadline)
        return self._transport._all(step, self._cursor)

    async def close(self, *, reusable: bool = False) -> None:
        """Hang up. A whole answer whose end was not read counts as whole."""
        if reusable and self._cursor.entry.ended == "open":
            self._cursor.entry.ended = "whole"
        self._cursor.leave()
        self._transport.give_up(self._cursor.request)
