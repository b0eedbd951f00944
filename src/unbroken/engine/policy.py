"""Timeouts and the recovery policy.

All values are data; the arithmetic is here, the waiting is elsewhere.
"""

import warnings
from typing import Literal, get_args

from msgspec import Struct
from msgspec.structs import force_setattr

from unbroken.errors import ConnectFailed, ProviderError, UnbrokenError


class Timeouts(Struct, frozen=True, kw_only=True):
    """Four independent timeouts in seconds; None switches one off.

    `connect`: until the connection is established (DNS, TCP and TLS). `first_event`: from sending
    the request to the first content. `idle`: between two pieces of content; comments, pings and
    empty deltas do not count, so a stream that only keeps itself alive is a stall. `total`: the
    whole call with all retries and waits; off by default, since a long answer that is still coming
    is not an error. A call that does not stream has its one piece of content at the end: for it
    `first_event` is not used, and `total` is 600 seconds unless given.
    """

    connect: float | None = 10.0
    first_event: float | None = 60.0
    idle: float | None = 60.0
    total: float | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"timeout {name}={value} must be more than 0 seconds, or None")


WHOLE_TOTAL = 600.0
"""Seconds for an answer in one piece when no `total` was given."""

END_GRACE = 5.0
"""Seconds to wait for usage and the end frame once the finish reason has arrived. The content is
whole by then; some servers keep the body open, with comments, for ever."""


OnCut = Literal["auto", "continue", "replay", "raise"]

_SECONDS = ("max_elapsed", "backoff", "max_backoff", "max_retry_after", "fallback_after")

_RENAMED = {
    "patience": "fallback_after",
    "rewind": "allow_restart",
    "instruct": "continue_by_prompt",
}


class RecoveryPolicy(Struct, frozen=True, kw_only=True):
    """What happens when an attempt breaks.

    `attempts` bounds the tries of each model, `max_elapsed` (seconds) the time without progress
    until the last one may start. Between them is full-jitter exponential backoff: a random part
    of `backoff` doubled each time, up to `max_backoff` seconds. A provider's own `Retry-After`
    wins, unless it is longer than `max_retry_after`: then the error is raised at once.

    While another model of the list can answer, `fallback_after` (seconds) bounds the wait for
    content, for a rate limit and for a `Retry-After`; then that model is asked instead.
    `hedge_after` asks the next one, or the same again, when there is no content by then; the first
    to send content answers.

    `on_cut` says what to do when text has been delivered already:

    - `auto`: resume where the server kept the answer, else continue by prefill where the model
      takes it, else replay where the model can be expected to repeat itself (`temperature=0`, a
      seed, structured output), else continue by prompt, else replay;
    - `continue`: resume or continue, never replay;
    - `replay`: send the same request again and drop what equals the delivered text;
    - `raise`: StreamInterrupted with what arrived.

    `continue_by_prompt=False` forbids continuing by prompt, so no sentence of this package is
    ever sent to a model. An answer that is not the rest of the delivered one is ResumeMismatch.
    With `allow_restart` the caller can take back what it was given: it then gets `Restarted` and
    another answer from its beginning, where nothing else is possible.

    A finish reason that no dialect knows is UnknownFinishReason, unless `unknown_finish` is
    `accept`.

    `patience`, `rewind` and `instruct` are deprecated names of `fallback_after`, `allow_restart`
    and `continue_by_prompt`.
    """

    on_cut: OnCut = "auto"
    attempts: int = 3
    max_elapsed: float | None = 120.0
    backoff: float = 0.5
    max_backoff: float = 20.0
    max_retry_after: float = 60.0
    fallback_after: float = 10.0
    hedge_after: float | None = None
    allow_restart: bool = False
    continue_by_prompt: bool = True
    unknown_finish: Literal["fail", "accept"] = "fail"
    patience: float | None = None
    rewind: bool | None = None
    instruct: bool | None = None

    def __post_init__(self) -> None:
        self._take_old_names()
        if self.attempts < 1:
            raise ValueError(f"attempts={self.attempts} must be at least 1")
        if self.on_cut not in get_args(OnCut):
            known = ", ".join(map(repr, get_args(OnCut)))
            raise ValueError(f"on_cut={self.on_cut!r} is not known; known: {known}")
        if self.unknown_finish not in ("fail", "accept"):
            raise ValueError(f"unknown_finish={self.unknown_finish!r} must be 'fail' or 'accept'")
        for name in (*_SECONDS, "hedge_after"):
            seconds = getattr(self, name)
            if seconds is not None and seconds < 0:
                raise ValueError(f"{name}={seconds} must not be less than 0 seconds")

    def _take_old_names(self) -> None:
        for old, new in _RENAMED.items():
            value = getattr(self, old)
            if value is not None:
                warnings.warn(f"{old} is now {new}", DeprecationWarning, stacklevel=4)
                force_setattr(self, new, value)
                force_setattr(self, old, None)  # so that a copy can change the new one

    def delay(
        self, error: UnbrokenError, tries: int, elapsed: float, jitter: float, *, begun: bool
    ) -> float | None:
        """Return the seconds until the next try after `tries` tries, or None to give up.

        `jitter` is a random number from 0 up to 1; `begun`: the caller has content already.
        """
        if not is_retryable(error):
            return None
        if tries >= self.attempts and not (begun and _is_away(error)):
            return None
        wanted = retry_after(error)
        if wanted is not None and wanted > self.max_retry_after:
            return None
        step = min(self.max_backoff, self.backoff * 2.0 ** min(tries - 1, 32))
        # The provider's time is the least; without jitter "Retry-After: 0" would be a busy loop.
        delay = max(jitter * step, wanted or 0.0)
        if self.max_elapsed is not None and elapsed + delay > self.max_elapsed:
            return None
        return delay


def is_retryable(error: UnbrokenError) -> bool:
    """Return whether the same request may be sent again; the provider's own word wins."""
    wanted = error.should_retry if isinstance(error, ProviderError) else None
    return error.retryable if wanted is None else wanted


def retry_after(error: UnbrokenError) -> float | None:
    """Return Retry-After in seconds, if the provider sent one."""
    return error.retry_after if isinstance(error, ProviderError) else None


def _is_away(error: UnbrokenError) -> bool:
    """Return whether the server is being restarted: it was there, and it will be again."""
    return isinstance(error, ConnectFailed) or (
        isinstance(error, ProviderError) and error.status == 503
    )
