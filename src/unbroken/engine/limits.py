"""Rate limits: what one provider and API key may be asked in a minute, shared by all calls.

Limits in requests and tokens are waited for instead of running into a 429, and the provider's
own headers about what is left are believed. Time comes in as an argument.
"""

from collections.abc import Mapping

import msgspec
from msgspec import Struct

from unbroken.messages import Request
from unbroken.ready import ready
from unbroken.wire.ratelimit_headers import seconds_until_reset

_BELIEF = 60.0
"""Seconds that a header may keep us waiting; past them the provider has to say 429 itself."""


@ready
class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be asked of one provider with one key: requests and tokens a minute."""

    rpm: float | None = None
    tpm: float | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"limit {name}={value} must be more than 0 a minute")


class _Bucket:
    """A token bucket of a tenth of a minute's worth, so that no minute sees much more than the
    limit. It may be overdrawn: the next call waits.
    """

    def __init__(self, per_minute: float) -> None:
        self._size, self._rate = max(1.0, per_minute / 10), per_minute / 60
        self._left, self._at = self._size, 0.0

    def wait(self, amount: float, now: float) -> float:
        """Return the seconds until `amount` is there."""
        self._left = min(self._size, self._left + (now - self._at) * self._rate)
        self._at = now
        return max(0.0, min(amount, self._size) - self._left) / self._rate

    def take(self, amount: float) -> None:
        """Take `amount`; a negative one is given back."""
        self._left = min(self._size, self._left - amount)


class RateLimiter:
    """Rate limiter for one provider and API key, shared by all calls."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._empty_until = 0.0  # the provider reported that nothing is left until then
        self.set_limits(limits)

    def set_limits(self, limits: Limits | None) -> None:
        """Use these limits from now on; None: no limits."""
        limits = limits or Limits()
        self._requests = None if limits.rpm is None else _Bucket(limits.rpm)
        self._tokens = None if limits.tpm is None else _Bucket(limits.tpm)

    @property
    def counts_tokens(self) -> bool:
        """Whether there is a limit in tokens, so that an estimate is worth its time."""
        return self._tokens is not None

    def wait(self, now: float, tokens: float) -> float:
        """Return the seconds until a request of about `tokens` tokens may be sent."""
        waits = [b.wait(n, now) for b, n in self._buckets(1.0, tokens)]
        return max(0.0, self._empty_until - now, *waits)

    def acquire(self, now: float, tokens: float) -> float:
        """Take the turn of a request of about `tokens` tokens; return the seconds to wait."""
        wait = self.wait(now, tokens)
        self._take(1.0, tokens)
        return wait

    def release(self, tokens: float) -> None:
        """Give a turn back that was taken and not used."""
        self._take(-1.0, -tokens)

    def settle(self, expected: float, tokens: float) -> None:
        """Correct the estimate of a request that took `tokens` tokens."""
        self._take(0.0, tokens - expected)

    def update(self, headers: Mapping[str, str], now: float) -> None:
        """Believe the provider's headers about what is left of its limits."""
        self._empty_until = max(self._empty_until, now + min(seconds_until_reset(headers), _BELIEF))

    def _take(self, requests: float, tokens: float) -> None:
        for bucket, amount in self._buckets(requests, tokens):
            bucket.take(amount)

    def _buckets(self, requests: float, tokens: float) -> list[tuple[_Bucket, float]]:
        pairs = ((self._requests, requests), (self._tokens, tokens))
        return [(bucket, amount) for bucket, amount in pairs if bucket is not None]


_ANSWER = 256
"""Tokens that are expected of an answer without a limit."""

_MEDIUM = 1000
"""Tokens of a picture, a document or a sound, whose bytes say nothing about them. A picture of
1024 x 1024 takes 765 at OpenAI in high detail, 1,400 at Anthropic (their pages on vision).
"""

_BYTES = ("url", "data", "file_data")
"""Fields of parts that hold bytes, or say where they are."""


def estimate_tokens(request: Request) -> float:
    """Return about how many tokens a request takes, at four characters each, and its answer."""
    text = sum(_characters(part) for message in request.messages for part in message.parts)
    tools = len(msgspec.json.encode(request.tools)) if request.tools else 0
    return (text + tools) / 4 + (request.max_tokens or _ANSWER)


def _characters(part: object) -> int:
    """Return the length of a part's text; of a medium what its tokens would be as text."""
    if isinstance(part, str):
        return len(part)
    if isinstance(part, tuple | list):
        return sum(_characters(one) for one in part)
    fields = getattr(part, "__struct_fields__", ())
    if any(getattr(part, name, None) for name in _BYTES):
        return 4 * _MEDIUM
    return sum(_characters(getattr(part, name)) for name in fields)
