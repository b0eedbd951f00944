"""How an answer goes on when an attempt breaks: one table of steps, each with its condition.

    start      nothing has been delivered: ask (this model, or the next of the route)
    resume     the server keeps the answer and can go on after what was delivered
    continue   the beginning is sent back as prefill, and the model goes on from it
    replay     the same request again; what equals the delivered text is dropped
    prompt     the model is asked in words to go on; it has to repeat the last words first
    restart    the caller takes back what it was given, and the answer begins again

Pure decisions over values. The waiting and the doing are elsewhere.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec
from msgspec import Struct

from unbroken.continuation import continuation_prompt
from unbroken.engine.circuit import CircuitBreaker
from unbroken.engine.limits import RateLimiter, estimate_tokens
from unbroken.engine.policy import RecoveryPolicy, is_retryable, retry_after
from unbroken.engine.stitch import Channel
from unbroken.errors import (
    AuthenticationFailed,
    ConfigurationError,
    ConnectFailed,
    ContextTooLong,
    LocalProtocolError,
    NotFound,
    PermissionDenied,
    QuotaExhausted,
    TimedOut,
    UnbrokenError,
)
from unbroken.messages import Message, Request, Text
from unbroken.providers.base import Prefill, Provider
from unbroken.response import How
from unbroken.transport.base import HttpRequest

ONLY_HERE = (
    QuotaExhausted,
    ContextTooLong,
    AuthenticationFailed,
    PermissionDenied,
    NotFound,
    ConfigurationError,
    LocalProtocolError,
)
"""Errors that say nothing about the other models of the route, and will not change here."""


def unknown_window(_provider: str, _model: str) -> int | None:
    """Return no context window: it is not known."""
    return None


class Target(Struct, frozen=True, kw_only=True):
    """One model of the route: its provider, what it is asked, and how that is sent.

    `build` makes the HTTP request for a request of this model and `resume` the one that goes on at
    the server; `first` is what is sent first, if it was built already. `window` knows how many
    tokens a model's context holds.
    """

    provider: Provider
    request: Request
    build: Callable[[Request], HttpRequest]
    resume: Callable[[Mapping[str, str]], HttpRequest]
    limiter: RateLimiter
    circuit: CircuitBreaker
    first: HttpRequest | None = None
    window: Callable[[str, str], int | None] = unknown_window

    @property
    def name(self) -> str:
        """`provider/model`."""
        return f"{self.provider.name}/{self.request.model}"

    def first_request(self) -> HttpRequest:
        """Return the HTTP request to send first.

        It is a copy, even if the same is sent twice at once: each can be cancelled by itself.
        """
        return self.again() if self.first is None else msgspec.structs.replace(self.first)

    def again(self) -> HttpRequest:
        """Return the HTTP request that asks the same again, signed anew."""
        return self.build(self.request)

    def tokens(self) -> float:
        """Return about how many tokens the request takes, answer included."""
        return estimate_tokens(self.request) if self.limiter.counts_tokens else 0.0

    def wait(self, now: float) -> float:
        """Return the seconds until the rate limit lets the request through."""
        return self.limiter.wait(now, self.tokens())

    @property
    def prefill(self) -> Prefill | None:
        """How this model takes the beginning of its answer, if it does."""
        prefill = self.provider.prefill
        return prefill if prefill is not None and prefill.takes(self.request.model) else None


class Delivered(Struct, frozen=True):
    """What the caller holds: texts by channel, names of the calls, whether there was reasoning,
    and how many asides (citations and the like), pieces of text, and boundaries of blocks.
    """

    texts: dict[Channel, str]
    names: dict[Channel, str]
    reasoning: bool
    asides: int
    pieces: int
    tokens: dict[tuple[int, bool], int] = {}
    boundaries: int = 0

    @property
    def text(self) -> str:
        """The visible text of the first choice."""
        return self.texts.get(("text", 0, 0), "")

    @property
    def has_no_text(self) -> bool:
        """Neither text nor refusal: only reasoning, calls or asides."""
        return not any(text for (kind, _, _), text in self.texts.items() if kind != "call")

    @property
    def is_only_reasoning(self) -> bool:
        """Nothing that a caller acts on: the answer may begin again."""
        return self.has_no_text and not self.names and self.reasoning


class RecoveryState(Struct, frozen=True, kw_only=True):
    """Where a delivery stands when the attempt at `at` breaks with `error`.

    `authors` are the targets that wrote what was delivered. `tries` counts the attempts by target;
    `excluded` are steps that turned out impossible; `allowed` says by target whether its circuit
    lets a request through, and `waits` how many seconds its rate limit asks for; `elapsed` is in
    seconds.
    """

    at: int
    error: UnbrokenError
    delivered: Delivered | None
    authors: frozenset[int]
    resumable: bool
    tries: Sequence[int]
    excluded: frozenset[tuple[int, How]]
    allowed: Sequence[bool]
    waits: Sequence[float]
    elapsed: float
    jitter: float
    had_content: bool = False


class RecoveryStep(Struct, frozen=True):
    """What is done next: target `at` of the route, how, and after how many seconds."""

    at: int
    how: How
    delay: float = 0.0


def choose(
    route: Sequence[Target], policy: RecoveryPolicy, now: RecoveryState
) -> RecoveryStep | None:
    """Return the next recovery step, or None if the policy allows no more."""
    if not (is_retryable(now.error) or isinstance(now.error, ONLY_HERE)):
        return None
    # A server that answered and broke off is not being restarted: `attempts` bounds it.
    begun = now.delivered is not None and not now.had_content
    again = policy.delay(now.error, now.tries[now.at], now.elapsed, now.jitter, begun=begun)
    order = _order(route, policy, now, here=again is not None)
    steps = [step for step in _candidates(route, policy, now, order) if step not in now.excluded]
    if isinstance(now.error, TimedOut):  # a silent model is asked again only if no other can go on
        steps.sort(key=lambda step: step[0] == now.at)
    if not steps:
        return None
    at, how = steps[0]
    return RecoveryStep(at, how, again or 0.0 if at == now.at else 0.0)


def _order(
    route: Sequence[Target], policy: RecoveryPolicy, now: RecoveryState, *, here: bool
) -> list[int]:
    """The targets that may be asked now, the best first."""
    late = policy.max_elapsed is not None and now.elapsed > policy.max_elapsed
    left = [] if late else [at for at in _others(route, now) if now.tries[at] < policy.attempts]
    free = [at for at in left if now.allowed[at] and now.waits[at] <= policy.fallback_after]
    busy = [at for at in left if at not in free]
    own = [now.at] if here else []
    wait = max(retry_after(now.error) or 0.0, now.waits[now.at])
    unavailable = isinstance(now.error, TimedOut | ConnectFailed) or not now.allowed[now.at]
    leave = unavailable or wait > policy.fallback_after
    return [*free, *own, *busy] if leave else [*own, *free, *busy]


def _others(route: Sequence[Target], now: RecoveryState) -> list[int]:
    """The rest of the route; in mid-answer also what came before, since it may know the answer."""
    places = [*range(now.at + 1, len(route))]
    if now.delivered is not None:
        places += range(now.at)
    if isinstance(now.error, ContextTooLong):
        places = [at for at in places if _larger(route[at], route[now.at])]
    return places


def _larger(other: Target, this: Target) -> bool:
    """Whether a context that was too long here may fit there."""
    sizes = [t.window(t.provider.name, t.request.model) for t in (other, this)]
    return sizes[0] is None or sizes[1] is None or sizes[0] > sizes[1]


def _candidates(
    route: Sequence[Target], policy: RecoveryPolicy, now: RecoveryState, order: list[int]
) -> Iterator[tuple[int, How]]:
    """Every step that is possible here, the best first."""
    if now.delivered is None:
        yield from ((at, "start") for at in order)
        return
    for how, eligible in _ALLOWED[policy.on_cut]:
        for at in order:
            if eligible(route[at], policy, now, at):
                yield at, how


# The conditions of the steps in mid-answer: the target, the policy, the state, the target's place.
_Condition = Callable[[Target, RecoveryPolicy, RecoveryState, int], bool]


def _can_resume(target: Target, _policy: RecoveryPolicy, now: RecoveryState, at: int) -> bool:
    return now.resumable and at == now.at and bool(target.provider.resume_path)


def _can_prefill(target: Target, _policy: RecoveryPolicy, now: RecoveryState, _at: int) -> bool:
    """Return whether the model goes on from its text, without reasoning or a call around it."""
    assert now.delivered is not None
    thinks = now.delivered.reasoning or _asks_to_think(target.request)
    return target.prefill is not None and not thinks and _can_go_on(target.request, now.delivered)


def _can_prompt(target: Target, policy: RecoveryPolicy, now: RecoveryState, _at: int) -> bool:
    assert now.delivered is not None
    plain = not now.delivered.names and _can_go_on(target.request, now.delivered)
    return policy.continue_by_prompt and plain


def _can_go_on(request: Request, delivered: Delivered) -> bool:
    """Return whether there is one text to go on from, and no grammar over it."""
    refused = delivered.texts.get(("refusal", 0, 0))
    return bool(is_plain(request) and not refused and delivered.text.strip())


def is_plain(request: Request) -> bool:
    """Return whether an answer to the request may be continued by another model."""
    return (request.n or 1) == 1 and request.response_format is None


def _can_replay(_target: Target, _policy: RecoveryPolicy, now: RecoveryState, at: int) -> bool:
    """Return whether the target wrote all of the text; only it can repeat it."""
    assert now.delivered is not None
    return now.authors == {at} or now.delivered.has_no_text


def _will_replay(target: Target, policy: RecoveryPolicy, now: RecoveryState, at: int) -> bool:
    """Return whether the same text can be expected again."""
    request = target.request
    same = request.temperature == 0 or request.seed is not None or request.response_format
    return bool(same) and _can_replay(target, policy, now, at)


def _can_begin_again(_: Target, _policy: RecoveryPolicy, now: RecoveryState, _at: int) -> bool:
    assert now.delivered is not None
    return now.delivered.is_only_reasoning


def _can_restart(_: Target, policy: RecoveryPolicy, _now: RecoveryState, _at: int) -> bool:
    return policy.allow_restart


_RESUME: tuple[tuple[How, _Condition], ...] = (("resume", _can_resume),)
_AGAIN: tuple[tuple[How, _Condition], ...] = (("restart", _can_begin_again),)
_RESTART: tuple[tuple[How, _Condition], ...] = (("restart", _can_restart),)

_ALLOWED: dict[str, tuple[tuple[How, _Condition], ...]] = {
    "auto": (
        *_RESUME,
        *_AGAIN,
        ("continue", _can_prefill),
        ("replay", _will_replay),
        ("prompt", _can_prompt),
        ("replay", _can_replay),
        *_RESTART,
    ),
    "continue": (
        *_RESUME,
        *_AGAIN,
        ("continue", _can_prefill),
        ("prompt", _can_prompt),
        *_RESTART,
    ),
    "replay": (*_RESUME, *_AGAIN, ("replay", _can_replay), *_RESTART),
    "raise": (),
}


def _asks_to_think(request: Request) -> bool:
    thinking = request.option("thinking") or {"type": "disabled"}
    off = isinstance(thinking, dict) and thinking.get("type") == "disabled"
    return request.reasoning_effort not in (None, "none") or not off


def continuation(target: Target, delivered: Delivered, how: How) -> tuple[Request, str]:
    """Return the request for the rest of an answer, and what of its beginning is sent along.

    A limit of tokens shrinks by the pieces that came, which are a token or more each.
    """
    prefill, request = target.prefill, target.request
    keeps = how == "continue" and prefill is not None and prefill.keeps_space
    sent = delivered.text if keeps else delivered.text.rstrip()
    messages = _with_beginning(request, sent)
    limit = request.max_tokens and max(1, request.max_tokens - delivered.pieces)
    if how == "prompt":
        messages = (*messages, Message("user", (Text(continuation_prompt(messages[-1].text)),)))
        limit = limit and limit + _REPEATED
    return msgspec.structs.replace(request, messages=messages, max_tokens=limit), sent


_REPEATED = 24
"""Tokens that repeating the last words takes."""


def _with_beginning(request: Request, sent: str) -> tuple[Message, ...]:
    """Return the messages with an assistant's turn at the end that holds the answer so far."""
    begun = request.partial_turn
    kept = request.messages[:-1] if begun else request.messages
    return (*kept, Message("assistant", (Text(begun + sent),)))
