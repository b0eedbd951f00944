"""How patient we are: four clocks, and what is tried again.

All values are data; the arithmetic is here, the waiting is elsewhere.
"""

from typing import Literal

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


class RecoveryPolicy(Struct, frozen=True, kw_only=True):
    """What happens when an attempt breaks.

    `attempts` bounds the tries in all, `max_elapsed` (seconds) the time until the last one may
    start. Between them is full-jitter exponential backoff: a random part of `backoff` doubled
    each time, up to `max_backoff` seconds. A provider's own `Retry-After` wins, unless it is
    longer than `max_retry_after`: then the error is raised at once. `on_cut` says what to do
    when content has been delivered already: `raise` StreamInterrupted with what arrived.
    """

    on_cut: Literal["raise"] = "raise"
    attempts: int = 3
    max_elapsed: float | None = 120.0
    backoff: float = 0.5
    max_backoff: float = 20.0
    max_retry_after: float = 60.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts={self.attempts} must be at least 1")
        if self.on_cut != "raise":
            raise ValueError(f"on_cut={self.on_cut!r} is not known; known: 'raise'")

    def delay(
        self, error: UnbrokenError, tries: int, elapsed: float, jitter: float
    ) -> float | None:
        """Seconds until the next try after `tries` tries; None: give up.

        `jitter` is a random number from 0 up to 1.
        """
        if not error.retryable or tries >= self.attempts:
            return None
        wish = error.retry_after if isinstance(error, ProviderError) else None
        if wish is not None and wish > self.max_retry_after:
            return None
        step = min(self.max_backoff, self.backoff * 2.0 ** (tries - 1))
        delay = jitter * step if wish is None else wish
        if self.max_elapsed is not None and elapsed + delay > self.max_elapsed:
            return None
        return delay
