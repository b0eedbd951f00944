"""How an answer goes on when an attempt breaks: one table of ways, each with its condition.

    start      nothing has been delivered: ask (this model, or the next of the route)
    resume     the server keeps the answer and can go on after what we have
    continue   the beginning is sent back, and the model truly goes on from it
    replay     the same question again; what equals the delivered beginning is swallowed

Pure decisions over values. The waiting and the doing are elsewhere.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec
from msgspec import Struct

from unbroken.engine.health import Circuit, Gate
from unbroken.engine.policy import RecoveryPolicy, wish_of
from unbroken.engine.seam import Channel
from unbroken.errors import (
    ConnectFailed,
    ContextTooLong,
    QuotaExhausted,
    TimedOut,
    UnbrokenError,
)
from unbroken.messages import Message, Request, Text
from unbroken.providers.base import Prefill, Provider
from unbroken.response import How
from unbroken.transport.base import HttpRequest


def unknown_window(_provider: str, _model: str) -> int | None:
    """For when nobody knows how long a context may be."""
    return None


class Question(Struct, frozen=True, kw_only=True):
    """What is asked, of whom, and how that looks on the wire.

    `http` is the request as it is first sent, `resend` makes the ones after it and `follow` the
    one that resumes at the server. `window` tells how many tokens a model's context holds.
    """

    provider: Provider
    request: Request
    http: HttpRequest
    resend: Callable[[Request], HttpRequest]
    follow: Callable[[Mapping[str, str]], HttpRequest]
    gate: Gate
    circuit: Circuit
    window: Callable[[str, str], int | None] = unknown_window

    @property
    def name(self) -> str:
        """`provider/model`."""
        return f"{self.provider.name}/{self.request.model}"

    @property
    def tokens(self) -> float:
        """About how many tokens it takes, by four bytes of the request each, answer included."""
        return len(self.http.body) / 4 + (self.request.max_tokens or 256)

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
    def only_asides(self) -> bool:
        """Neither text nor refusal: what came does not tie anybody to the model that said it."""
        return not any(text for (kind, _, _), text in self.texts.items() if kind != "call")


class Situation(Struct, frozen=True, kw_only=True):
    """Where a delivery stands when the attempt at `at` breaks with `error`.

    `authors` are the questions whose answers make up what was delivered. `tries` counts the
    attempts by question; `barred` are ways that turned out closed; `ready` tells by question
    whether its circuit lets a request through; `elapsed` is in seconds.
    """

    at: int
    error: UnbrokenError
    delivered: Delivered | None
    authors: frozenset[int]
    resumable: bool
    tries: Sequence[int]
    barred: frozenset[tuple[int, How]]
    ready: Sequence[bool]
    elapsed: float
    jitter: float


class Way(Struct, frozen=True):
    """What is done next: question `at` of the route, how, and after how many seconds."""

    at: int
    how: How
    delay: float = 0.0


def choose(route: Sequence[Question], policy: RecoveryPolicy, now: Situation) -> Way | None:
    """The next way to go; None when there is none that is allowed."""
    if not (now.error.retryable or isinstance(now.error, QuotaExhausted | ContextTooLong)):
        return None
    again = policy.delay(now.error, now.tries[now.at], now.elapsed, now.jitter)
    order = _order(route, policy, now, here=again is not None)
    for at, how in _ways(route, policy, now, order):
        if (at, how) not in now.barred:
            return Way(at, how, again or 0.0 if at == now.at else 0.0)
    return None


def _order(
    route: Sequence[Question], policy: RecoveryPolicy, now: Situation, *, here: bool
) -> list[int]:
    """The questions that may be asked now, the best first."""
    late = policy.max_elapsed is not None and now.elapsed > policy.max_elapsed
    left = [] if late else [at for at in _others(route, now) if now.tries[at] < policy.attempts]
    well = [at for at in left if now.ready[at]]
    down = [at for at in left if not now.ready[at]]
    own = [now.at] if here else []
    wish = wish_of(now.error)
    impatient = isinstance(now.error, TimedOut | ConnectFailed) or (wish or 0) > policy.patience
    return [*well, *own, *down] if impatient or not now.ready[now.at] else [*own, *well, *down]


def _others(route: Sequence[Question], now: Situation) -> list[int]:
    """The rest of the route; in mid-answer also what came before, since it may know the answer."""
    places = [*range(now.at + 1, len(route))]
    if now.delivered is not None:
        places += range(now.at)
    if isinstance(now.error, ContextTooLong):
        places = [at for at in places if _larger(route[at], route[now.at])]
    return places


def _larger(other: Question, this: Question) -> bool:
    """Whether a context that was too long here may fit there."""
    sizes = [q.window(q.provider.name, q.request.model) for q in (other, this)]
    return sizes[0] is None or sizes[1] is None or sizes[0] > sizes[1]


def _ways(
    route: Sequence[Question], policy: RecoveryPolicy, now: Situation, order: list[int]
) -> Iterator[tuple[int, How]]:
    """Every way that is honest here, the best first."""
    if now.delivered is None:
        yield from ((at, "start") for at in order)
        return
    allowed = _ALLOWED[policy.on_cut]
    if now.delivered.only_asides and allowed:
        allowed = ("resume", "replay")  # there is no text to go on from
    for how in allowed:
        for at in order:
            if _HONEST[how](route[at], policy, now, at):
                yield at, how


_ALLOWED: dict[str, tuple[How, ...]] = {
    "auto": ("resume", "continue", "replay"),
    "continue": ("resume", "continue"),
    "replay": ("resume", "replay"),
    "raise": (),
}


def _can_resume(question: Question, _policy: RecoveryPolicy, now: Situation, at: int) -> bool:
    return now.resumable and at == now.at and bool(question.provider.resume_path)


def _can_continue(question: Question, policy: RecoveryPolicy, now: Situation, _at: int) -> bool:
    """Whether the model truly goes on: one text, no reasoning around it, no grammar over it."""
    request, delivered = question.request, now.delivered
    assert delivered is not None
    plain = (request.n or 1) == 1 and not delivered.texts.get(("refusal", 0, 0))
    shaped = request.response_format is not None
    thinks = delivered.reasoning or _asks_to_think(request)
    if not plain or not delivered.text.strip():
        return False
    return (question.prefill is not None and not shaped and not thinks) or policy.instruct


def _can_replay(_question: Question, _policy: RecoveryPolicy, now: Situation, at: int) -> bool:
    """Every replay is checked against what was delivered; only its one author can say it again."""
    assert now.delivered is not None
    return now.authors == {at} or now.delivered.only_asides


_HONEST: dict[How, Callable[[Question, RecoveryPolicy, Situation, int], bool]] = {
    "resume": _can_resume,
    "continue": _can_continue,
    "replay": _can_replay,
}


def _asks_to_think(request: Request) -> bool:
    thinking = request.option("thinking") or {"type": "disabled"}
    off = isinstance(thinking, dict) and thinking.get("type") == "disabled"
    return request.reasoning_effort not in (None, "none") or not off


INSTRUCTION = (
    "Your last message was cut off by the network. Write only the rest of it, starting with the "
    "very next character. Do not repeat anything, do not apologise, do not comment."
)


def continuation(question: Question, delivered: Delivered) -> tuple[Request, str]:
    """The request for the rest of an answer, and what of its beginning is sent along.

    A limit of tokens shrinks by the pieces that came, which are a token or more each.
    """
    prefill, request = question.prefill, question.request
    sent = delivered.text
    if prefill is not None and not prefill.keeps_space:
        sent = sent.rstrip()
    messages = _with_beginning(request, sent)
    if prefill is None:
        messages = (*messages, Message("user", (Text(INSTRUCTION),)))
    limit = request.max_tokens and max(1, request.max_tokens - delivered.pieces)
    return msgspec.structs.replace(request, messages=messages, max_tokens=limit), sent


def _with_beginning(request: Request, sent: str) -> tuple[Message, ...]:
    """The messages, ending in an assistant's turn that holds all of the answer so far."""
    begun = request.partial_turn
    kept = request.messages[:-1] if begun else request.messages
    return (*kept, Message("assistant", (Text(begun + sent),)))
