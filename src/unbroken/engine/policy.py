"""How patient we are: four clocks, and what is tried again.

All values are data; the arithmetic is here, the waiting is elsewhere.
"""

from typing import Literal, get_args

from msgspec import Struct

from unbroken.errors import ProviderError, UnbrokenError


class Timeouts(Struct, frozen=True, kw_only=True):
    """Four clocks, each by itself, in seconds; None switches one off.

    `connect`: until the connection stands (DNS, TCP and TLS). `first_event`: from sending the
    request to the first content. `idle`: between two pieces of content; comments, pings and empty
    deltas do not count, so a stream that only keeps itself alive is a stall. `total`: the whole
    call with all retries; off by default, since a long answer that is still coming is not an
    error. A call that does not stream has its one piece of content at the end: for it
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

SETTLE = 5.0
"""Seconds to wait for usage and the end frame once the finish reason has arrived. The content is
whole by then; some servers keep the body open, with comments, for ever."""


OnCut = Literal["auto", "continue", "replay", "raise"]


class RecoveryPolicy(Struct, frozen=True, kw_only=True):
    """What happens when an attempt breaks.

    `attempts` bounds the tries of each model, `max_elapsed` (seconds) the time without progress
    until the last one may start. Between them is full-jitter exponential backoff: a random part
    of `backoff` doubled each time, up to `max_backoff` seconds. A provider's own `Retry-After`
    wins, unless it is longer than `max_retry_after`: then the error is raised at once.

    `patience`, in seconds, is for as long as another model is left: a longer `Retry-After`, a
    longer wait for a limit, or no content within it, and that one is asked instead. `hedge_after`
    asks the next one, or the same again, when there is no content by then; the first to speak
    answers.

    `on_cut` says what to do when content has been delivered already:

    - `auto`: resume where the server kept the answer, else continue where the model truly does,
      else replay;
    - `continue`: resume or continue, never replay. With `instruct` a model that can't be given
      the beginning of its answer is told in words to go on: what it says may repeat or differ;
    - `replay`: ask the same question again and swallow what equals the delivered beginning;
    - `raise`: StreamInterrupted with what arrived.

    A second answer that differs is ResumeMismatch. With `rewind` the caller can take back what
    it was given: it gets `Restarted` and the second answer from its beginning.
    """

    on_cut: OnCut = "auto"
    attempts: int = 3
    max_elapsed: float | None = 120.0
    backoff: float = 0.5
    max_backoff: float = 20.0
    max_retry_after: float = 60.0
    patience: float = 10.0
    hedge_after: float | None = None
    rewind: bool = False
    instruct: bool = False

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts={self.attempts} must be at least 1")
        if self.on_cut not in get_args(OnCut):
            known = ", ".join(map(repr, get_args(OnCut)))
            raise ValueError(f"on_cut={self.on_cut!r} is not known; known: {known}")
        for name in ("max_elapsed", "backoff", "max_backoff", "max_retry_after", "patience"):
            seconds = getattr(self, name)
            if seconds is not None and seconds < 0:
                raise ValueError(f"{name}={seconds} must not be less than 0 seconds")
        if self.hedge_after is not None and self.hedge_after < 0:
            raise ValueError(f"hedge_after={self.hedge_after} must not be less than 0 seconds")

    def delay(
        self, error: UnbrokenError, tries: int, elapsed: float, jitter: float
    ) -> float | None:
        """Seconds until the next try after `tries` tries; None: give up.

        `jitter` is a random number from 0 up to 1.
        """
        if not error.retryable or tries >= self.attempts:
            return None
        wish = wish_of(error)
        if wish is not None and wish > self.max_retry_after:
            return None
        step = min(self.max_backoff, self.backoff * 2.0 ** (tries - 1))
        delay = jitter * step if wish is None else wish
        if self.max_elapsed is not None and elapsed + delay > self.max_elapsed:
            return None
        return delay


def wish_of(error: UnbrokenError) -> float | None:
    """The seconds that the provider asked us to wait."""
    return error.retry_after if isinstance(error, ProviderError) else None
