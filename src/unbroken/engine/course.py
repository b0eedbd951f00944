"""The course of one delivery: which question of the route is asked now, how, and what was tried.

It remembers what `recovery.choose` needs to know, and turns a chosen way into a request with a
seam behind it.
"""

from collections.abc import Callable, Sequence

from unbroken.engine.attempt import Try
from unbroken.engine.policy import RecoveryPolicy
from unbroken.engine.recovery import Delivered, Question, Situation, Way, choose, continuation
from unbroken.engine.seam import Continued, Replayed
from unbroken.errors import UnbrokenError
from unbroken.events import CONTENT, Event, FellBack, Restarted, Resumed, Retrying
from unbroken.response import How
from unbroken.transport.base import HttpRequest


class Course:
    """Through the route, one way after the other."""

    def __init__(
        self, route: Sequence[Question], policy: RecoveryPolicy, jitter: Callable[[], float]
    ) -> None:
        self.route, self.policy, self._jitter = route, policy, jitter
        self.way = Way(0, "start")
        self.cut: UnbrokenError | None = None  # why the latest way had to be chosen
        self._held: Delivered | None = None  # what the caller had by then
        self._authors: frozenset[int] = frozenset()
        self._tries = [0] * len(route)
        self._barred: frozenset[tuple[int, How]] = frozenset()

    @property
    def question(self) -> Question:
        """Who is asked now."""
        return self.route[self.way.at]

    def begin(self, now: float) -> list[Event]:
        """Begin with the first model that is not known to be down or used up."""
        patience = self.policy.patience
        fit = (
            at
            for at, question in enumerate(self.route)
            if question.circuit.ready(now) and question.gate.wait(now) <= patience
        )
        self.way = Way(next(fit, 0), "start")
        if not self.way.at:
            return []
        return [FellBack(1, self.question.name, f"{self.route[0].name} is left alone for a while")]

    def take_over(self, events: list[Event]) -> None:
        """Another process came this far: who wrote what was delivered, and who wrote last."""
        names = [question.name for question in self.route]
        for event in events:
            if isinstance(event, FellBack) and event.model in names:
                self.way = Way(names.index(event.model), "start")
            elif isinstance(event, Restarted):
                self.forget()
            elif type(event) in CONTENT:
                self.wrote()

    def enter(self, now: float) -> float:
        """An attempt is made: the seconds until it may be sent."""
        self._tries[self.way.at] += 1
        self.question.circuit.enter()
        return max(self.way.delay, self.question.gate.enter(now, self.question.tokens))

    def patience(self, now: float) -> float | None:
        """How long to wait for content while somebody else could answer."""
        later = self.route[self.way.at + 1 :]
        others = any(question.circuit.ready(now) for question in later)
        return self.policy.patience if others and self.question.request.stream else None

    def after(
        self, error: UnbrokenError, last: Try, held: Delivered | None, now: float, elapsed: float
    ) -> Event | None:
        """Choose the next way; what there is to tell about it, or None when there is no way.

        `elapsed` are the seconds without progress. A way that turns out closed does not replace
        the reason why it was tried.
        """
        closed = self.way.how != "start" and not error.retryable
        if closed:
            self._barred |= {(self.way.at, self.way.how)}
        cause = self.cut if closed and self.cut is not None else error
        self.cut, self._held, before = cause, held, self.way
        situation = Situation(
            at=before.at,
            error=cause,
            delivered=held,
            authors=self._authors,
            resumable=last.cursor is not None,
            tries=self._tries,
            barred=self._barred,
            ready=[question.circuit.ready(now) for question in self.route],
            elapsed=elapsed,
            jitter=self._jitter(),
        )
        way = choose(self.route, self.policy, situation)
        if way is None:
            return None
        self.way = way
        number = sum(self._tries) + 1
        if way.at != before.at:
            return FellBack(number, self.question.name, str(error))
        return Retrying(number, way.delay, str(error))

    def request(self, this: Try, before: Try) -> HttpRequest:
        """What the attempt `this` sends; its seam is put into it."""
        question, held = this.question, self._held
        if held is None:
            again = self._tries[self.way.at] > 1
            return question.resend(question.request) if again else question.http
        if self.way.how == "resume":
            return this.follow(before)
        if self.way.how == "replay":
            this.seam = Replayed(held.texts, held.names).skip_asides(
                held.asides, held.tokens, held.boundaries
            )
            return question.resend(question.request)
        request, sent = continuation(question, held)
        calls = {channel: text for channel, text in held.texts.items() if channel[0] == "call"}
        echoes = question.prefill is not None and question.prefill.echoes
        this.seam = Continued(held.text, sent, calls, held.names, echoes=echoes)
        return question.resend(request)

    def wrote(self) -> None:
        """This question's answer is part of what is delivered."""
        if self.way.at not in self._authors:
            self._authors |= {self.way.at}

    def forget(self) -> None:
        """What was delivered no longer holds."""
        self._authors = frozenset()

    def resumed(self) -> list[Event]:
        """What the caller is told with the first content that comes on this way."""
        if self.way.how == "start":
            return []
        return [Resumed(sum(self._tries), self.way.how, str(self.cut))]
