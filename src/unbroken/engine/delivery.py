"""One answer over all its attempts, as a state machine.

An attempt may fail as often as the policy allows while nothing has been delivered, and the caller
does not notice. Events are therefore held back until the first one that counts. From then on
`recovery` chooses how to go on without saying anything twice, and a filter of `stitch` lets only
the new events through.

                 ┌──────────── BACKING_OFF ◄───────────┐
                 ▼                                     │ may try again
    READY ──► OPENING ──► STREAMING or REFUSED ────────┤
                 │             │ the dialect's end     │ may not
                 │             ▼                       ▼
                 └──────────► COMPLETE               FAILED

A driver calls, in this order:

    while not delivery.is_over:
        attempt = delivery.next_attempt(now)
        ... wait `attempt.delay`, open `attempt.http` within `attempt.deadlines`
        delivery.opened(status, headers, now)
        while delivery.reading:
            events = delivery.feed(data read by delivery.deadline, now)     # b"" is the end
        ... and delivery.lost(error, now) for an UnbrokenError from any of it
    delivery.conclude()                                       # raises what went wrong, if it did

Nothing here waits or asks for the time, and only `conclude` raises.
"""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from unbroken.engine.accounting import Accounting
from unbroken.engine.accumulate import Accumulator
from unbroken.engine.attempt import CurrentAttempt, NextAttempt
from unbroken.engine.clocks import Clocks
from unbroken.engine.policy import RecoveryPolicy, Timeouts
from unbroken.engine.recovery import Target
from unbroken.engine.router import Router
from unbroken.engine.states import NEXT, State
from unbroken.engine.stitch import ReplayFilter, RestartFilter
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
    UnknownFinishReason,
)
from unbroken.events import CONTENT, ChoiceEnd, Event, MessageEnd, Restarted
from unbroken.metrics.timing import Stopwatch, StreamMetrics
from unbroken.response import End, Quote, Reads, Response

_BEGINS = CONTENT | {ChoiceEnd, MessageEnd}
"""The events that a caller notices."""

_TRYING = frozenset({State.OPENING, State.STREAMING, State.REFUSED})

_TRUNCATED = "the stream ended without the provider's own end"
_EMPTY = "the continuation ended at once, without a word"


class Delivery:
    """The whole answer over all attempts; see the module for how to drive it.

    `route` are the models in their order; `jitter` gives random numbers from 0 up to 1.
    """

    def __init__(
        self,
        route: Sequence[Target],
        timeouts: Timeouts,
        policy: RecoveryPolicy,
        jitter: Callable[[], float],
        quote: Quote,
        reads: Reads | None = None,
    ) -> None:
        self._given = (timeouts, policy, jitter, quote, reads)
        self._router = Router(route, policy, jitter)
        self._clocks = Clocks(timeouts, stream=route[0].request.stream)
        self._state = State.READY
        self._fold = Accumulator(route[0].request.n or 1)
        self._watch = Stopwatch()
        self._failure: UnbrokenError | None = None
        self._end: End | None = None
        self._has_content = False  # the caller has been given some
        self._notices: list[Event] = []  # to be delivered with the next content
        self._account = Accounting(quote)
        self._try = CurrentAttempt(route[0], "start", 0.0, 0.0)

    # What the driver asks

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        return self._state is State.COMPLETE or self._state is State.FAILED

    @property
    def reading(self) -> bool:
        """Whether the driver should read on."""
        return self._state is State.STREAMING or self._state is State.REFUSED

    @property
    def has_content(self) -> bool:
        """Whether the caller has been given content."""
        return self._has_content

    @property
    def deadline(self) -> float | None:
        """By when the next read must bring something."""
        return self._clocks.deadline

    @property
    def is_complete(self) -> bool:
        """Whether the answer is complete, so that its connection may serve again."""
        return self._state is State.COMPLETE

    @property
    def hedge_after(self) -> float | None:
        """Seconds without content after which another model is asked too."""
        # What another process delivered can only be continued, which two can't do at once.
        return None if self._has_content else self._given[1].hedge_after

    @property
    def response(self) -> Response:
        """The answer as far as it has come."""
        usage, target = self._account.ledger.total, self._try.target
        complete = self._end == "complete"
        if usage is not None and not complete:
            usage = msgspec.structs.replace(usage, source="partial")
        return Response(
            id=self._fold.id,
            provider=target.provider.name,
            model=self._fold.model or target.request.model,
            end=self._end,
            choices=self._fold.choices(complete=complete),
            usage=usage,
            attempts=tuple(self._account.attempts),
            skipped_events=self._account.skipped + self._try.skipped,
            **self._try.facts(),
            reads=self._given[4],
            running=None
            if self.is_over
            else self._account.record(self._try, None, self._try.begin),
        )

    @property
    def metrics(self) -> StreamMetrics:
        """The timing as far as it is known."""
        usage = self._account.ledger.total
        tokens = None if usage is None else usage.output_tokens
        return self._watch.metrics(len(self._account.attempts), tokens)

    def restore(self, events: list[Event], now: float) -> None:
        """Before the first attempt: go on with an answer that another process began.

        `events` is all that was delivered of it, content but no end.
        """
        gone = ConnectionLost("the process that was answering is gone")
        self._watch.started, self._has_content = now, True
        self._fold.add(events)
        self._account.ledger.read(events)
        self._account.ledger.finish(complete=False, had_content=True)
        self._router.restore(events)
        if self._router.after(gone, self._try, self._fold.delivered(), now, 0.0) is None:
            self._finish(State.FAILED, "failed", now)
            self._failure = self._as_raised(gone)

    def forbid_restart(self) -> None:
        """The caller reads text alone, which it can't take back."""
        self._router.forbid_restart()

    # What the driver does

    def next_attempt(self, now: float) -> NextAttempt:
        """Return the next request to open; an UnbrokenError if this model can't be asked."""
        router = self._router
        if self._watch.started is None:
            self._watch.started, self._notices = now, router.begin(now)
        self._go(State.OPENING)
        before, self._try = self._try, router.start(now, self._clocks.left(now))
        first = router.content_timeout(now)
        deadlines = self._clocks.attempt(self._try.begin, now, first)
        http = router.request(self._try, before)
        self._try.url, self._try.omitted = http.url, http.omitted
        self._notices = router.resumed() or self._notices
        return NextAttempt(http, self._try.delay, deadlines)

    def opened(self, status: int, headers: Mapping[str, str], now: float) -> None:
        """The headers of the response have arrived."""
        self._try.on_headers(status, headers)
        self._try.target.limiter.update(headers, now)
        self._go(State.STREAMING if 200 <= status < 300 else State.REFUSED)
        if self._state is State.STREAMING:
            self._try.start_body()

    def feed(self, data: bytes, now: float) -> list[Event]:
        """Return the events that these bytes complete; b"" is the end of the body."""
        if self._state is State.REFUSED:
            return self._collect_error(data, now)
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
        if decoder.done and self._fold.has_ended:
            return out + self._complete_early(None, now)  # fewer choices than were asked for
        if decoder.done or not data:
            return out + self._broke(StreamTruncated(_TRUNCATED), now)
        if self._clocks.deadline is not None and now >= self._clocks.deadline:
            return out + self.lost(TimedOut(), now)
        return out

    def lost(self, error: UnbrokenError, now: float) -> list[Event]:
        """The connection failed, a timeout expired, or the request can't be made."""
        if isinstance(error, TimedOut) and not error.phase:
            error.phase, error.seconds = self._clocks.expired(now)
        return self._broke(error, now)

    def cancel(self, now: float) -> None:
        """End the answer: the caller has left."""
        if self.is_over:
            return
        if self._state in _TRYING:
            self._account.leave(self._try, now)
        self._finish(State.FAILED, "cancelled", now)

    def conclude(self) -> None:
        """Raise what went wrong, if it did."""
        if self._failure is not None:
            self._failure.response, self._failure.attempts = (
                self.response,
                tuple(self._account.attempts),
            )
            raise self._failure

    def hedge(self) -> "Delivery":
        """Return the same request to the next of the route, or to the same model again."""
        timeouts, _, jitter, quote, reads = self._given
        route = self._router.route[1:] or self._router.route
        made = Delivery(route, timeouts, self._router.policy, jitter, quote, reads)
        made._clocks = self._clocks.hedge()
        return made

    def absorb(self, other: "Delivery", now: float) -> None:
        """This one answers; the attempts and the usage of the other one are kept."""
        if other._state in _TRYING:
            other._account.leave(other._try, now)
        self._account.absorb(other._account)
        self._watch.since(other._watch)

    # Content

    def _go(self, state: State) -> None:
        if state not in NEXT[self._state]:
            raise LocalProtocolError(f"a delivery can't go from {self._state} to {state}")
        self._state = state

    def _deliver(self, events: list[Event], now: float) -> list[Event]:
        """Hold back until something counts; fold what goes out; start the idle timeout anew."""
        counts = not _BEGINS.isdisjoint(map(type, events))
        events = self._account.ledger.read(events)
        if self._try.filter is not None:
            events = self._filtered(self._try.filter, events, now)
            if self._state is not State.STREAMING:
                return events
        if not self._has_content:
            events = self._try.pending = self._try.pending + events
            if not counts:
                return []
            self._has_content = True
        if counts:
            events = self._counted(events, now)
        self._fold.add(events)
        if counts:
            idle = self._router.idle_timeout(now)
            self._clocks.content(now, idle, finished=self._fold.finished)
        return self._ended(events, now) if events and type(events[-1]) is MessageEnd else events

    def _ended(self, events: list[Event], now: float) -> list[Event]:
        """The dialect's own end: complete, unless its finish reason is unknown."""
        end = events[-1]
        assert isinstance(end, MessageEnd)
        if not end.known and self._given[1].unknown_finish == "fail":
            return events[:-1] + self._broke(UnknownFinishReason(end.raw), now)
        self._account.finish(self._try, None, now)
        self._finish(State.COMPLETE, "complete", now)
        return events

    def _counted(self, events: list[Event], now: float) -> list[Event]:
        """Content has come: the provider works; deliver the notices about what was done for it."""
        if not self._try.received_content:
            self._try.received_content = True
            self._try.target.circuit.on_success()
        if _BEGINS.isdisjoint(map(type, events)):
            return events  # all of it was delivered before
        self._watch.content(now)
        self._router.on_content()
        if self._notices:
            events, self._notices = [*self._notices, *events], []
        return events

    def _filtered(self, filter_: ReplayFilter, events: list[Event], now: float) -> list[Event]:
        """Return only the new events; an answer that differs breaks the attempt, or restarts."""
        self._try.raw_events += events
        self._fold.name(events)
        new = filter_.filter(events)
        if filter_.unread is not None:
            return self._look_again(filter_, new, now)
        if not filter_.diverged:
            return new
        if not (self._router.policy.allow_restart or isinstance(filter_, RestartFilter)):
            return self._broke(ResumeMismatch(filter_.diverged), now)
        self._try.filter = None
        self._fold.forget()
        self._router.forget()
        self._notices = [Restarted(len(self._account.attempts) + 1, filter_.diverged)]
        return self._try.raw_events

    def _look_again(self, filter_: ReplayFilter, new: list[Event], now: float) -> list[Event]:
        """A continuation ended without a word. Ask once more before the answer is called whole."""
        self._router.look_again()
        notice = self._next_step(StreamTruncated(_EMPTY), now)
        if notice is None:
            return new + filter_.accept_end()
        self._account.finish(self._try, StreamTruncated(_EMPTY), now)
        self._go(State.BACKING_OFF)
        return [notice]

    # The end of an attempt

    def _collect_error(self, data: bytes, now: float) -> list[Event]:
        """Collect the body of an error; then report it."""
        if self._try.collect_error(data):
            return []
        return self._broke(self._try.response_error(), now)

    def _broke(self, error: UnbrokenError, now: float) -> list[Event]:
        """End this attempt with an error. What happens next is what the policy allows."""
        if self._state is State.REFUSED and not isinstance(error, ProviderError):
            error = self._try.response_error()  # the status is known, whatever became of its body
        if self._has_content and self._is_finished():
            return self._complete_early(error, now)
        self._account.finish(self._try, error, now)
        notice = self._next_step(error, now)
        if notice is None:
            torn = isinstance(error, StreamTruncated)
            self._finish(State.FAILED, "truncated" if torn else "failed", now)
            self._failure = self._as_raised(error)
            return []
        self._go(State.BACKING_OFF)
        return [notice]

    def _next_step(self, error: UnbrokenError, now: float) -> Event | None:
        """Let the router choose; return its notice, or None if nothing more may be tried."""
        delivered = self._fold.delivered() if self._has_content else None
        elapsed = now - (self._watch.last or self._watch.started or now)
        notice = self._router.after(error, self._try, delivered, now, elapsed)
        return None if self._clocks.spent(now + self._router.step.delay) else notice

    def _is_finished(self) -> bool:
        """Return whether every choice has ended, by a reason that may be believed."""
        end = self._fold.first_end
        believed = end is not None and (end.known or self._given[1].unknown_finish == "accept")
        return believed and self._fold.finished

    def _complete_early(self, error: UnbrokenError | None, now: float) -> list[Event]:
        """The finish reason had arrived: the content is whole, only the last frame is missing."""
        end = self._fold.first_end
        assert end is not None
        usage = self._account.ledger.total
        self._account.finish(self._try, error, now)
        self._finish(State.COMPLETE, "complete", now)
        return [MessageEnd(end.finish_reason, usage, end.raw, early=True, known=end.known)]

    def _as_raised(self, error: UnbrokenError) -> UnbrokenError:
        """Return the error as the caller gets it, with all that arrived."""
        failure = error
        if self._has_content:
            kept = isinstance(error, ResumeMismatch | UnknownFinishReason)
            failure = error if kept else StreamInterrupted()
            failure.__cause__ = None if failure is self._router.cut else self._router.cut
        failure.provider = self._try.target.provider.name
        failure.model = self._try.target.request.model
        failure.request_id = self._try.request_id
        return failure

    def _finish(self, state: State, end: End, now: float) -> None:
        self._watch.ended, self._end = now, end
        self._go(state)
