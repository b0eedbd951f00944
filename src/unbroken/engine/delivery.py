"""One answer over all its attempts, as a state machine.

The rule: an attempt may fail as often as the policy allows while nothing has been delivered, and
nobody notices. Events are therefore held back until the first one that counts. From then on the
caller has seen something: `recovery` chooses a way on that says nothing twice, and a `seam` lets
only the new through.

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

from collections.abc import Callable, Mapping, Sequence

import msgspec
from msgspec import Struct

from unbroken.engine.accumulate import Accumulator
from unbroken.engine.attempt import Try
from unbroken.engine.bill import Bill
from unbroken.engine.clocks import Clocks
from unbroken.engine.course import Course
from unbroken.engine.policy import RecoveryPolicy, Timeouts
from unbroken.engine.recovery import Question
from unbroken.engine.seam import Seam
from unbroken.engine.states import NEXT, State
from unbroken.errors import (
    ConnectionLost,
    LocalProtocolError,
    ProviderError,
    RemoteProtocolError,
    ResumeMismatch,
    StreamInterrupted,
    StreamTruncated,
    TimedOut,
    UnbrokenError,
)
from unbroken.events import CONTENT, ChoiceEnd, Event, MessageEnd, Restarted, Usage
from unbroken.metrics.timing import Stopwatch, StreamMetrics
from unbroken.response import Attempt, End, Quote, Reads, Response
from unbroken.transport.base import Deadlines, HttpRequest

_BEGINS = CONTENT | {ChoiceEnd, MessageEnd}
"""The events that a caller notices."""

_TRYING = frozenset({State.OPENING, State.STREAMING, State.REFUSED})

_REFUSAL_LIMIT = 64 * 1024
"""Bytes of an error body that are worth reading."""


class Next(Struct, frozen=True):
    """What the driver does next: wait `delay` seconds, then open `http` by the deadlines."""

    http: HttpRequest
    delay: float
    deadlines: Deadlines


class Delivery:
    """The whole gapless answer over all attempts; see the module for how to drive it.

    `route` is the question to one model after the other; `jitter` gives random numbers from 0 up
    to 1.
    """

    def __init__(
        self,
        route: Sequence[Question],
        timeouts: Timeouts,
        policy: RecoveryPolicy,
        jitter: Callable[[], float],
        quote: Quote,
        reads: Reads | None = None,
    ) -> None:
        self._given = (timeouts, policy, jitter, quote, reads)
        self._course = Course(route, policy, jitter)
        self._clocks = Clocks(timeouts, stream=route[0].request.stream)
        self._rewind, self._quote = policy.rewind, quote
        self._state = State.READY
        self._fold = Accumulator(route[0].request.n or 1)
        self._watch = Stopwatch()
        self._attempts: list[Attempt] = []
        self._failure: UnbrokenError | None = None
        self._end: End | None = None
        self._begun = False  # the caller has seen something
        self._skipped = 0
        self._notices: list[Event] = []  # to be told with the next content
        self._bill = Bill()
        self._try = Try(route[0], "start", 0.0, 0.0)

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
    def begun(self) -> bool:
        """The caller has been given content."""
        return self._begun

    @property
    def deadline(self) -> float | None:
        """By when the next read must bring something."""
        return self._clocks.deadline

    @property
    def whole(self) -> bool:
        """The answer is complete, its connection may serve again."""
        return self._state is State.COMPLETE

    @property
    def hedge_after(self) -> float | None:
        """Seconds without content after which a rival is asked too."""
        return self._given[1].hedge_after

    @property
    def response(self) -> Response:
        """The answer as far as it has come."""
        usage, question = self._fold.usage, self._try.question
        if usage is not None and self._end != "complete":
            usage = msgspec.structs.replace(usage, source="partial")
        return Response(
            id=self._fold.id,
            provider=question.provider.name,
            model=self._fold.model or question.request.model,
            end=self._end,
            choices=self._fold.choices(complete=self._end == "complete"),
            usage=usage,
            attempts=tuple(self._attempts),
            skipped_events=self._skipped + self._try.skipped,
            request_id=self._try.request_id,
            omitted=question.http.omitted,
            dialect=question.provider.codec.dialect.name,
            headers=dict(self._try.headers),
            reads=self._given[4],
            running=None if self.over else self._record(None, self._try.begin),
        )

    @property
    def metrics(self) -> StreamMetrics:
        """The timing as far as it is known."""
        tokens = None if self._fold.usage is None else self._fold.usage.output_tokens
        return self._watch.metrics(len(self._attempts), tokens)

    def restore(self, events: list[Event], now: float) -> None:
        """Before the first attempt: go on with an answer that another process began.

        `events` is all that was delivered of it, content but no end.
        """
        gone = ConnectionLost("the process that was answering is gone")
        self._watch.started, self._begun = now, True
        self._fold.add(events)
        self._course.take_over(events)
        if self._course.after(gone, self._try, self._fold.delivered(), now, 0.0) is None:
            self._finish(State.FAILED, "failed", now)
            self._failure = self._worded(gone)

    # What the driver does

    def next_attempt(self, now: float) -> Next:
        """The next thing to open."""
        course = self._course
        if self._watch.started is None:
            self._watch.started, self._notices = now, course.begin(now)
        self._go(State.OPENING)
        wait = course.enter(now)
        before, self._try = self._try, Try(course.question, course.way.how, now, wait)
        # of its own, even if the same is asked twice: so that each can be given up by itself
        http = msgspec.structs.replace(course.request(self._try, before))
        self._notices = course.resumed() or self._notices
        deadlines = self._clocks.attempt(now + wait, now, course.patience(now))
        return Next(http, wait, deadlines)

    def opened(self, status: int, headers: Mapping[str, str], now: float) -> None:
        """The headers of the answer are there."""
        self._try.headed(status, headers)
        self._try.question.gate.learn(headers, now)
        self._go(State.STREAMING if 200 <= status < 300 else State.REFUSED)
        if self._state is State.STREAMING:
            self._try.listen()

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
        if self._clocks.deadline is not None and now >= self._clocks.deadline:
            return out + self.lost(TimedOut(), now)
        return out

    def lost(self, error: UnbrokenError, now: float) -> list[Event]:
        """The road broke, or a clock ran out."""
        if isinstance(error, TimedOut) and not error.phase:
            error.phase, error.seconds = self._clocks.ran_out(now)
        return self._broke(error, now)

    def cancel(self, now: float) -> None:
        """The caller has left."""
        if self.over:
            return
        if self._state in _TRYING:
            self._note(None, now)
            self._try.question.circuit.left()
        self._finish(State.FAILED, "cancelled", now)

    def conclude(self) -> None:
        """Raise what went wrong, if it did."""
        if self._failure is not None:
            self._failure.response, self._failure.attempts = self.response, tuple(self._attempts)
            raise self._failure

    def rival(self) -> "Delivery":
        """The same question to the next of the route, or to the same model again."""
        return Delivery(self._course.route[1:] or self._course.route, *self._given)

    def outran(self, other: "Delivery", now: float) -> None:
        """This one answers; what the other one tried is remembered."""
        if other._state in _TRYING:
            other._attempts.append(other._record(None, now))
            other._try.question.circuit.left()
        self._attempts[:0] = other._attempts
        self._watch.since(other._watch)

    # Content

    def _go(self, state: State) -> None:
        if state not in NEXT[self._state]:
            raise LocalProtocolError(f"a delivery can't go from {self._state} to {state}")
        self._state = state

    def _deliver(self, events: list[Event], now: float) -> list[Event]:
        """Hold back until something counts; fold what goes out; re-arm the clocks."""
        counts = not _BEGINS.isdisjoint(map(type, events))
        if self._bill.earlier is not None:
            events = self._bill.added(events)
        if self._try.seam is not None:
            self._try.heard += events
            events = self._sifted(self._try.seam, events, now)
            if self._state is not State.STREAMING:
                return events
        if not self._begun:
            events = self._try.held = self._try.held + events
            if not counts:
                return []
            self._begun = True
        if counts:
            events = self._counted(events, now)
        self._fold.add(events)
        if counts:
            self._clocks.content(now, finished=self._fold.finished)
        if events and type(events[-1]) is MessageEnd:
            self._note(None, now)
            self._finish(State.COMPLETE, "complete", now)
        return events

    def _counted(self, events: list[Event], now: float) -> list[Event]:
        """Content has come: the provider works; tell what had to be done for it."""
        if not self._try.spoke:
            self._try.spoke = True
            self._try.question.circuit.worked()
        if _BEGINS.isdisjoint(map(type, events)):
            return events  # it was all said before
        self._watch.content(now)
        self._course.wrote()
        if self._notices:
            events, self._notices = [*self._notices, *events], []
        return events

    def _sifted(self, seam: Seam, events: list[Event], now: float) -> list[Event]:
        """Only the new; a second answer that differs breaks the attempt, or is begun anew."""
        self._fold.name(events)
        new = seam.sift(events)
        if not seam.diverged:
            return new
        if not self._rewind:
            return self._broke(ResumeMismatch(seam.diverged), now)
        self._try.seam = None
        self._fold.forget()
        self._course.forget()
        self._notices = [Restarted(len(self._attempts) + 1, seam.diverged)]
        return self._try.heard

    # The end of an attempt

    def _refused(self, data: bytes, now: float) -> list[Event]:
        """Collect the body of an error; then say what it says."""
        self._try.refusal += data
        if data and len(self._try.refusal) < _REFUSAL_LIMIT:
            return []
        return self._broke(self._try.refusal_error(), now)

    def _broke(self, error: UnbrokenError, now: float) -> list[Event]:
        """This attempt is over. What happens next is what the policy allows."""
        if self._state is State.REFUSED and not isinstance(error, ProviderError):
            error = self._try.refusal_error()  # the status is known, whatever became of its body
        self._note(error, now)
        end = self._fold.first_end
        if self._begun and self._fold.finished and end is not None:
            return self._complete_early(end, now)
        held = self._fold.delivered() if self._begun else None
        elapsed = now - (self._watch.last or self._watch.started or now)
        notice = self._course.after(error, self._try, held, now, elapsed)
        if notice is None or self._clocks.spent(now + self._course.way.delay):
            torn = isinstance(error, StreamTruncated)
            self._finish(State.FAILED, "truncated" if torn else "failed", now)
            self._failure = self._worded(error)
            return []
        self._go(State.BACKING_OFF)
        return [notice]

    def _complete_early(self, end: ChoiceEnd, now: float) -> list[Event]:
        """The finish reason had arrived: the content is whole, only the last frame is missing."""
        self._finish(State.COMPLETE, "complete", now)
        return [MessageEnd(end.finish_reason, self._fold.usage, end.raw, early=True)]

    def _worded(self, error: UnbrokenError) -> UnbrokenError:
        """The error as the caller gets it, with all that arrived."""
        failure = error
        if self._begun:
            failure = error if isinstance(error, ResumeMismatch) else StreamInterrupted()
            failure.__cause__ = self._course.cut
        failure.provider = self._try.question.provider.name
        failure.model = self._try.question.request.model
        failure.request_id = self._try.request_id
        return failure

    def _finish(self, state: State, end: End, now: float) -> None:
        self._watch.ended = now
        self._end = end
        self._go(state)

    def _note(self, error: UnbrokenError | None, now: float) -> None:
        """Write the attempt down."""
        record, question = self._record(error, now), self._try.question
        self._attempts.append(record)
        self._skipped += self._try.skipped
        self._try.quiet()
        if error is None:
            used = question.tokens if record.usage is None else record.usage.input_tokens
            question.gate.used(question.tokens, used + (record.usage or Usage()).output_tokens)
            return
        question.circuit.failed(error, now)
        self._bill.close(record.usage, spoke=self._try.spoke)

    def _record(self, error: UnbrokenError | None, now: float) -> Attempt:
        request, provider = self._try.question.request, self._try.question.provider
        return Attempt(
            provider=provider.name,
            model=request.model,
            delay=self._try.delay,
            duration=max(0.0, now - self._try.begin),
            status=self._try.status,
            request_id=self._try.request_id,
            error=error,
            usage=self._bill.this(self._fold.usage),
            how=self._try.how,
            quote=self._quote,
            url=self._try.question.http.url,
        )


_TORN = "the stream ended without the provider's own end"
