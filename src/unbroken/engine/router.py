"""Which model of the route is asked next, and how.

The router remembers what `recovery.choose` needs to know, and turns a recovery step into a request
with the filter that joins its answer to what was delivered.
"""

from collections.abc import Callable, Sequence

import msgspec

from unbroken.engine.attempt import CurrentAttempt
from unbroken.engine.policy import RecoveryPolicy
from unbroken.engine.recovery import (
    ONLY_HERE,
    Delivered,
    RecoveryState,
    RecoveryStep,
    Target,
    choose,
    continuation,
    is_plain,
)
from unbroken.engine.stitch import ContinuationFilter, PromptFilter, ReplayFilter, RestartFilter
from unbroken.errors import ContextTooLong, UnbrokenError
from unbroken.events import CONTENT, Event, FellBack, Restarted, Resumed, Retrying
from unbroken.response import How
from unbroken.transport.base import HttpRequest

_MODES: tuple[How, ...] = ("start", "resume", "continue", "replay", "prompt", "restart")


class Router:
    """The route of one answer, one step after the other."""

    def __init__(
        self, route: Sequence[Target], policy: RecoveryPolicy, jitter: Callable[[], float]
    ) -> None:
        self.route, self.policy, self._jitter = route, policy, jitter
        self.step = RecoveryStep(0, "start")
        self.cut: UnbrokenError | None = None  # why the current step had to be chosen
        self._delivered: Delivered | None = None  # what the caller had by then
        self._authors: frozenset[int] = frozenset()
        self._tries = [0] * len(route)
        self._excluded: frozenset[tuple[int, How]] = frozenset()
        self._ended_empty = False

    @property
    def target(self) -> Target:
        """The model that is asked now."""
        return self.route[self.step.at]

    def forbid_restart(self) -> None:
        """The caller can't take anything back."""
        self.policy = msgspec.structs.replace(self.policy, allow_restart=False)

    def begin(self, now: float) -> list[Event]:
        """Begin with the first model that works and has a turn soon, as far as is known."""
        soon = self.policy.fallback_after
        fit = (
            at
            for at, target in enumerate(self.route)
            if target.circuit.allows(now) and target.wait(now) <= soon
        )
        self.step = RecoveryStep(next(fit, 0), "start")
        if not self.step.at:
            return []
        reason = f"{self.route[0].name} is unavailable or at its rate limit"
        return [FellBack(1, self.target.name, reason)]

    def restore(self, events: list[Event]) -> None:
        """Take over from another process: which models wrote what was delivered, and the last."""
        names = [target.name for target in self.route]
        for event in events:
            if isinstance(event, FellBack) and event.model in names:
                self.step = RecoveryStep(names.index(event.model), "start")
            elif isinstance(event, Restarted):
                self.forget()
            elif type(event) in CONTENT:
                self.on_content()

    def start(self, now: float, left: float | None) -> CurrentAttempt:
        """Make the next attempt. Waits that are longer than the `left` seconds take no turn."""
        at, target = self.step.at, self.target
        self._tries[at] += 1
        target.circuit.on_start()
        wait = max(self.step.delay, target.wait(now))
        if left is not None and wait >= left:
            return CurrentAttempt(target, self.step.how, now, left)
        this = CurrentAttempt(target, self.step.how, now, wait)
        this.take_turn(now)
        return this

    def content_timeout(self, now: float) -> float | None:
        """Return the bound for the wait for content while a fallback is available."""
        if not self.target.request.stream:
            return None
        others = self.route[self.step.at + 1 :]
        if self._delivered is not None:
            others = [target for target in self.route if target is not self.target]
        free = any(target.circuit.allows(now) for target in others)
        return self.policy.fallback_after if free else None

    def idle_timeout(self, now: float) -> float | None:
        """Return the same for the wait in mid-answer, where another model could go on."""
        goes_on = self.policy.on_cut in ("auto", "continue") and self.policy.continue_by_prompt
        if not self.target.request.stream or not goes_on or not is_plain(self.target.request):
            return None
        others = (target for target in self.route if target is not self.target)
        free = any(target.circuit.allows(now) for target in others)
        return self.policy.fallback_after if free else None

    def after(
        self,
        error: UnbrokenError,
        last: CurrentAttempt,
        delivered: Delivered | None,
        now: float,
        elapsed: float,
    ) -> Event | None:
        """Choose the next step; return the notice about it, or None if there is no step.

        `elapsed` are the seconds without progress. The error of a step that proved impossible does
        not replace the reason why it was taken.
        """
        before = self.step
        self._exclude(error)
        failed = before.how != "start" and not error.retryable and self.cut is not None
        cause = self.cut if failed and self.cut is not None else error
        self.cut, self._delivered = cause, delivered
        state = RecoveryState(
            at=before.at,
            error=cause,
            delivered=delivered,
            authors=self._authors,
            resumable=last.cursor is not None,
            tries=self._tries,
            excluded=self._excluded,
            allowed=[target.circuit.allows(now) for target in self.route],
            waits=[target.wait(now) for target in self.route],
            elapsed=elapsed,
            jitter=self._jitter(),
            had_content=last.received_content,
        )
        step = choose(self.route, self.policy, state)
        if step is None:
            return None
        self.step = step
        number = sum(self._tries) + 1
        if step.at != before.at:
            return FellBack(number, self.target.name, str(error))
        return Retrying(number, step.delay, str(error))

    def look_again(self) -> None:
        """A continuation ended without a word: one that does so again is believed."""
        self._ended_empty = True
        if self.step.how == "continue":
            self._excluded |= {(self.step.at, "continue")}

    def request(self, this: CurrentAttempt, before: CurrentAttempt) -> HttpRequest:
        """Return what the attempt `this` sends, and give it its filter."""
        target, delivered, how = this.target, self._delivered, this.how
        if delivered is None:
            return target.first_request() if self._tries[self.step.at] == 1 else target.again()
        if how == "resume":
            return this.resume_from(before)
        if how == "restart":
            this.filter = RestartFilter(str(self.cut))
            return target.again()
        if how == "replay":
            this.filter = ReplayFilter(delivered.texts, delivered.names).skip_asides(
                delivered.asides, delivered.tokens, delivered.boundaries
            )
            return target.again()
        request, sent = continuation(target, delivered, how)
        this.filter = self._continued(delivered, sent, how)
        return target.build(request)

    def on_content(self) -> None:
        """The current model's answer is part of what is delivered."""
        if self.step.at not in self._authors:
            self._authors |= {self.step.at}

    def forget(self) -> None:
        """What was delivered no longer counts."""
        self._authors, self._ended_empty = frozenset(), False

    def resumed(self) -> list[Event]:
        """Return the notices that go out with the first content of this attempt."""
        if self.step.how in ("start", "restart"):
            return []
        return [Resumed(sum(self._tries), self.step.how, str(self.cut))]

    def _continued(self, delivered: Delivered, sent: str, how: How) -> ContinuationFilter:
        made: ContinuationFilter
        if how == "prompt":
            made = PromptFilter(delivered.text, sent)
        else:
            prefill = self.target.prefill
            echoes = prefill is not None and prefill.echoes
            texts = delivered.texts
            calls = {channel: text for channel, text in texts.items() if channel[0] == "call"}
            made = ContinuationFilter(delivered.text, sent, calls, delivered.names, echoes=echoes)
        made.accept_empty = self._ended_empty
        return made

    def _exclude(self, error: UnbrokenError) -> None:
        """Remember what can't succeed: this step, or anything at this model."""
        at = self.step.at
        if isinstance(error, ONLY_HERE) and not isinstance(error, ContextTooLong):
            self._excluded |= {(at, how) for how in _MODES}
        elif self.step.how != "start" and not error.retryable:
            self._excluded |= {(at, self.step.how)}
