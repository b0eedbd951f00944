"""One answer over all its attempts, as a state machine.

The rule: an attempt may fail as often as the policy allows while nothing has been delivered, and
nobody notices. Events are therefore held back until the first one that counts. From then on the
caller has seen something, and starting over would say it twice.

                 ┌──────────── BACKING_OFF ◄───────────┐
                 ▼                                     │ may try again
    READY ──► OPENING ──► STREAMING or REFUSED ────────┤
                 │             │ the dialect's end     │ may not
                 │             ▼                       ▼
                 └──────────► COMPLETE               FAILED

A driver calls, in this order:

    while not delivery.over:
        attempt = delivery.next_attempt(now)
        ... wait `attempt.delay`, open `attempt.http` within `attempt.deadlines`
        delivery.opened(status, headers, now)
        while delivery.reading:
            events = delivery.feed(data read by delivery.deadline, now)     # b"" is the end
        ... and delivery.lost(error, now) for a TransportError from any of it
    delivery.conclude()                                       # raises what went wrong, if it did

Nothing here waits or asks for the time, and only `conclude` raises.
"""

from collections.abc import Callable, Mapping
from enum import Enum, auto

import msgspec
from msgspec import Struct

from unbroken.engine.accumulate import Accumulator
from unbroken.engine.policy import SETTLE, WHOLE_TOTAL, RecoveryPolicy, Timeouts
from unbroken.errors import (
    LocalProtocolError,
    ProviderError,
    RemoteProtocolError,
    StreamInterrupted,
    StreamTruncated,
    TimedOut,
    UnbrokenError,
)
from unbroken.events import CONTENT, ChoiceEnd, Event, MessageEnd, Retrying
from unbroken.messages import Request
from unbroken.metrics.timing import Stopwatch, StreamMetrics
from unbroken.providers.base import Provider
from unbroken.response import Attempt, End, Quote, Response
from unbroken.transport.base import Deadlines, HttpRequest
from unbroken.wire.codec import Decoder


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
_NEXT: dict[State, frozenset[State]] = {
    State.READY: frozenset({State.OPENING, State.FAILED}),
    State.OPENING: frozenset({State.STREAMING, State.REFUSED}) | _BROKEN,
    State.STREAMING: _BROKEN,
    State.REFUSED: _BROKEN,
    State.BACKING_OFF: frozenset({State.OPENING, State.FAILED}),
    State.COMPLETE: frozenset(),
    State.FAILED: frozenset(),
}

_BEGINS = CONTENT | {ChoiceEnd, MessageEnd}
"""The events that a caller notices."""

_REQUEST_IDS = ("x-request-id", "request-id", "x-generation-id", "x-amzn-requestid")

_REFUSAL_LIMIT = 64 * 1024
"""Bytes of an error body that are worth reading."""


class Question(Struct, frozen=True):
    """What is asked, of whom, and how that looks on the wire."""

    provider: Provider
    request: Request
    http: HttpRequest


class Next(Struct, frozen=True):
    """What the driver does next: wait `delay` seconds, then open `http` by the deadlines."""

    http: HttpRequest
    delay: float
    deadlines: Deadlines


class _Try:
    """What is known of the attempt that is under way."""

    def __init__(self, begin: float) -> None:
        self.begin = begin
        self.decoder: Decoder | None = None
        self.status: int | None = None
        self.headers: Mapping[str, str] = {}
        self.request_id = ""
        self.held: list[Event] = []
        self.refusal = b""


class Delivery:
    """The whole gapless answer over all attempts; see the module for how to drive it."""

    def __init__(
        self,
        question: Question,
        timeouts: Timeouts,
        policy: RecoveryPolicy,
        jitter: Callable[[], float],
        quote: Quote,
    ) -> None:
        self._question = question
        self._timeouts = _for_whole(timeouts) if not question.request.stream else timeouts
        self._policy, self._jitter, self._quote = policy, jitter, quote
        self._state = State.READY
        self._fold = Accumulator(question.request.n or 1)
        self._watch = Stopwatch()
        self._attempts: list[Attempt] = []
        self._failure: UnbrokenError | None = None
        self._end: End | None = None
        self._begun = False  # the caller has seen something
        self._skipped = 0
        self._deadline: float | None = None
        self._delay = 0.0
        self._try = _Try(0.0)

    # What the driver asks

    @property
    def over(self) -> bool:
        """Nothing is left to do."""
        return self._state is State.COMPLETE or self._state is State.FAILED

    @property
    def reading(self) -> bool:
        """The driver should read on."""
        return self._state is State.STREAMING or self._state is State.REFUSED

    @property
    def deadline(self) -> float | None:
        """By when the next read must bring something."""
        return self._deadline

    @property
    def whole(self) -> bool:
        """The answer is complete, its connection may serve again."""
        return self._state is State.COMPLETE

    @property
    def response(self) -> Response:
        """The answer as far as it has come."""
        usage = self._fold.usage
        if usage is not None and self._end != "complete":
            usage = msgspec.structs.replace(usage, source="partial")
        return Response(
            id=self._fold.id,
            provider=self._question.provider.name,
            model=self._fold.model or self._question.request.model,
            end=self._end,
            choices=self._fold.choices(complete=self._end == "complete"),
            usage=usage,
            attempts=tuple(self._attempts),
            skipped_events=self._skipped + (self._try.decoder.skipped if self._try.decoder else 0),
            request_id=self._try.request_id,
            quote=self._quote,
        )

    @property
    def metrics(self) -> StreamMetrics:
        """The timing as far as it is known."""
        tokens = None if self._fold.usage is None else self._fold.usage.output_tokens
        return self._watch.metrics(len(self._attempts), tokens)

    # What the driver does

    def next_attempt(self, now: float) -> Next:
        """The next thing to open."""
        if self._watch.started is None:
            self._watch.started = now
        self._go(State.OPENING)
        begin = now + self._delay
        self._try = _Try(begin)
        self._deadline = self._bounded(_after(begin, self._timeouts.first_event))
        connect = self._bounded(_after(begin, self._timeouts.connect))
        return Next(self._question.http, self._delay, Deadlines(connect, self._deadline))

    def opened(self, status: int, headers: Mapping[str, str], _now: float) -> None:
        """The headers of the answer are there."""
        self._try.status, self._try.headers = status, headers
        ids = (headers[name] for name in _REQUEST_IDS if name in headers)
        self._try.request_id = next(ids, "")
        if not 200 <= status < 300:
            self._go(State.REFUSED)
            return
        self._go(State.STREAMING)
        request = self._question.request
        whole = _is_whole(headers.get("content-type", ""), asked_to_stream=request.stream)
        self._try.decoder = self._question.provider.codec.decoder(request, whole=whole)

    def feed(self, data: bytes, now: float) -> list[Event]:
        """The events that these bytes complete; b"" says that the body has ended."""
        if self._state is State.REFUSED:
            return self._refused(data, now)
        decoder = self._try.decoder
        assert decoder is not None
        try:
            events = decoder.feed(data) if data else decoder.eof()
        except RemoteProtocolError as error:
            return self._broke(error, now)
        out = self._deliver(events, now) if events else events
        if self._state is not State.STREAMING:
            return out
        if decoder.error is not None:
            return out + self._broke(decoder.error, now)
        if decoder.done or not data:
            return out + self._broke(StreamTruncated(_TORN), now)
        if self._deadline is not None and now >= self._deadline:
            return out + self.lost(TimedOut(), now)
        return out

    def lost(self, error: UnbrokenError, now: float) -> list[Event]:
        """The road broke, or a clock ran out."""
        if isinstance(error, TimedOut) and not error.phase:
            error.phase, error.seconds = self._which_clock(now)
        return self._broke(error, now)

    def cancel(self, now: float) -> None:
        """The caller has left."""
        if self.over:
            return
        self._note(None, now)
        self._finish(State.FAILED, "cancelled", now)

    def conclude(self) -> None:
        """Raise what went wrong, if it did."""
        if self._failure is not None:
            raise self._failure

    # Inside

    def _go(self, state: State) -> None:
        if state not in _NEXT[self._state]:
            raise LocalProtocolError(f"a delivery can't go from {self._state} to {state}")
        self._state = state

    def _deliver(self, events: list[Event], now: float) -> list[Event]:
        """Hold back until something counts; fold what goes out; re-arm the clocks."""
        counts = any(type(event) in _BEGINS for event in events)
        if not self._begun:
            events = self._try.held = self._try.held + events
            if not counts:
                return []
            self._begun = True
        self._fold.add(events)
        if counts:
            self._watch.content(now)
            patience = SETTLE if self._fold.finished else self._timeouts.idle
            self._deadline = self._bounded(_after(now, patience))
        if type(events[-1]) is MessageEnd:
            self._note(None, now)
            self._finish(State.COMPLETE, "complete", now)
        return events

    def _refused(self, data: bytes, now: float) -> list[Event]:
        """Collect the body of an error; then say what it says."""
        self._try.refusal += data
        if data and len(self._try.refusal) < _REFUSAL_LIMIT:
            return []
        return self._broke(self._refusal_error(), now)

    def _refusal_error(self) -> ProviderError:
        dialect = self._question.provider.codec.dialect
        return dialect.decode_error(self._try.status or 500, self._try.headers, self._try.refusal)

    def _broke(self, error: UnbrokenError, now: float) -> list[Event]:
        """This attempt is over. What happens next is what the policy allows."""
        if self._state is State.REFUSED and not isinstance(error, ProviderError):
            error = self._refusal_error()  # the status is known, whatever became of its body
        self._note(error, now)
        end = self._fold.first_end
        if self._begun and self._fold.finished and end is not None:
            return self._complete_early(end, now)
        delay = None if self._begun else self._may_retry(error, now)
        if delay is not None:
            self._delay = delay
            self._go(State.BACKING_OFF)
            return [Retrying(len(self._attempts) + 1, delay, str(error))]
        self._finish(State.FAILED, "truncated" if _is_torn(error) else "failed", now)
        self._failure = self._worded(error)
        return []

    def _complete_early(self, end: ChoiceEnd, now: float) -> list[Event]:
        """The finish reason had arrived: the content is whole, only the last frame is missing."""
        self._finish(State.COMPLETE, "complete", now)
        return [MessageEnd(end.finish_reason, self._fold.usage, end.raw, early=True)]

    def _may_retry(self, error: UnbrokenError, now: float) -> float | None:
        elapsed = now - (self._watch.started or now)
        delay = self._policy.delay(error, len(self._attempts), elapsed, self._jitter())
        total = self._timeouts.total
        if delay is None or (total is not None and elapsed + delay >= total):
            return None
        return delay

    def _worded(self, error: UnbrokenError) -> UnbrokenError:
        """The error as the caller gets it, with all that arrived."""
        failure = error
        if self._begun:
            failure = StreamInterrupted()
            failure.__cause__ = error
        failure.provider = self._question.provider.name
        failure.model = self._question.request.model
        failure.response = self.response
        failure.attempts = tuple(self._attempts)
        failure.request_id = self._try.request_id
        return failure

    def _finish(self, state: State, end: End, now: float) -> None:
        self._watch.ended = now
        self._end = end
        self._go(state)

    def _note(self, error: UnbrokenError | None, now: float) -> None:
        """Write the attempt down."""
        if self._try.decoder is not None:
            self._skipped += self._try.decoder.skipped
        attempt = Attempt(
            provider=self._question.provider.name,
            model=self._question.request.model,
            delay=self._delay,
            duration=max(0.0, now - self._try.begin),
            status=self._try.status,
            request_id=self._try.request_id,
            error=error,
            usage=self._fold.usage,
        )
        self._attempts.append(attempt)
        self._try.decoder = None

    def _which_clock(self, now: float) -> tuple[str, float | None]:
        """The clock that ran out at `now`, and how long it was."""
        clocks = self._timeouts
        if clocks.total is not None and now >= (self._watch.started or 0.0) + clocks.total:
            return "total", clocks.total
        return ("idle", clocks.idle) if self._begun else ("first_event", clocks.first_event)

    def _bounded(self, deadline: float | None) -> float | None:
        """The earlier of a deadline and the end of the whole call."""
        total = self._timeouts.total
        if total is None or self._watch.started is None:
            return deadline
        limit = self._watch.started + total
        return limit if deadline is None else min(deadline, limit)


_TORN = "the stream ended without the provider's own end"


def _is_torn(error: UnbrokenError) -> bool:
    return isinstance(error, StreamTruncated)


def _after(begin: float, seconds: float | None) -> float | None:
    return None if seconds is None else begin + seconds


def _is_whole(content_type: str, *, asked_to_stream: bool) -> bool:
    """Whether the body is one answer in one piece; some servers ignore `stream`."""
    if "json" in content_type:
        return True
    return not asked_to_stream and "event-stream" not in content_type


def _for_whole(timeouts: Timeouts) -> Timeouts:
    total = WHOLE_TOTAL if timeouts.total is None else timeouts.total
    return msgspec.structs.replace(timeouts, first_event=None, idle=None, total=total)
