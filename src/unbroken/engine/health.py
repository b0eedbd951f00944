"""What all calls share: the circuit of each model, and the limits of each provider and key.

A model that keeps failing is skipped for a while (circuit breaker: closed, open, and half open
for one probe). Limits in requests and tokens a minute are waited for instead of running into a
429, and the provider's own words about what is left are believed. Time comes in as an argument.
"""

from collections import OrderedDict
from collections.abc import Mapping

from msgspec import Struct

from unbroken.errors import ConnectFailed, Overloaded, ServerError, TimedOut, UnbrokenError
from unbroken.ready import ready
from unbroken.wire.ratelimit_headers import seconds_until_reset

_FAILURES = 3
"""Failures in a row that open a circuit; silence and a refused connection open it at once."""

_COOLDOWN, _LONGEST = 2.0, 10.0
"""Seconds that a circuit stays open: doubled by each probe that fails, up to the longest."""

_KNOWN = 1000
"""Models whose circuits are remembered: callers of a gateway make up names without end."""

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
    """Refilled steadily, a tenth of a minute's worth at most, so that no minute sees much more
    than the limit. May be overdrawn: then whoever comes next waits.
    """

    def __init__(self, per_minute: float) -> None:
        self._size, self._rate = max(1.0, per_minute / 10), per_minute / 60
        self._left, self._at = self._size, 0.0

    def take(self, amount: float, now: float) -> float:
        """Take `amount`; the seconds until it will have been there."""
        self._refill(now)
        wait = max(0.0, min(amount, self._size) - self._left) / self._rate
        self._left -= amount
        return wait

    def give_back(self, amount: float) -> None:
        """Less, or more, was used than had been taken."""
        self._left = min(self._size, self._left + amount)

    def _refill(self, now: float) -> None:
        self._left = min(self._size, self._left + (now - self._at) * self._rate)
        self._at = now


class Gate:
    """The way to one provider with one key: everybody waits here for a turn."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._empty_until = 0.0  # the provider reported that nothing is left until then
        self.set_limits(limits)

    def set_limits(self, limits: Limits | None) -> None:
        """Use these limits from now on; None: no limits."""
        limits = limits or Limits()
        self._requests = None if limits.rpm is None else _Bucket(limits.rpm)
        self._tokens = None if limits.tpm is None else _Bucket(limits.tpm)

    def enter(self, now: float, tokens: float) -> float:
        """A request of about so many tokens wants to go: the seconds it waits for its turn."""
        turns = [b.take(n, now) for b, n in ((self._requests, 1.0), (self._tokens, tokens)) if b]
        return max(self.wait(now), *turns, 0.0)

    def wait(self, now: float) -> float:
        """The seconds that the provider has asked everybody to wait."""
        return max(0.0, self._empty_until - now)

    def used(self, expected: float, tokens: float) -> None:
        """An answer is over: what it really used."""
        if self._tokens is not None:
            self._tokens.give_back(expected - tokens)

    def learn(self, headers: Mapping[str, str], now: float) -> None:
        """Believe the provider's headers about what is left of its limits."""
        self._empty_until = max(self._empty_until, now + min(seconds_until_reset(headers), _BELIEF))


class Circuit:
    """Whether one model is worth asking."""

    def __init__(self) -> None:
        self._failures = 0
        self._cooldown = _COOLDOWN
        self._open_until = 0.0
        self._probing = False

    def ready(self, now: float) -> bool:
        """Whether a request should go through: the circuit is closed, or due for a probe."""
        return now >= self._open_until and not self._probing

    def enter(self) -> None:
        """A request goes through; after failures it is the probe."""
        self._probing = self._failures >= _FAILURES

    def worked(self) -> None:
        """Content came."""
        self._failures, self._cooldown, self._probing = 0, _COOLDOWN, False

    def left(self) -> None:
        """The caller left before anything was known: somebody else may probe."""
        self._probing = False

    def failed(self, error: UnbrokenError, now: float) -> None:
        """An attempt failed."""
        self._probing = False
        if not isinstance(error, TimedOut | ConnectFailed | ServerError | Overloaded):
            return
        probe = self._failures >= _FAILURES
        at_once = isinstance(error, TimedOut | ConnectFailed)
        self._failures = max(self._failures + 1, _FAILURES if at_once else 0)
        if self._failures >= _FAILURES:
            self._cooldown = min(_LONGEST, self._cooldown * 2) if probe else _COOLDOWN
            self._open_until = now + self._cooldown


class Health:
    """The gates and circuits of one client."""

    def __init__(self, limits: Mapping[str, Limits]) -> None:
        self.limits = limits
        self._gates: dict[tuple[str, str, str], Gate] = {}
        self._circuits = OrderedDict[tuple[str, str, str, str], Circuit]()

    def set_limits(self, limits: Mapping[str, Limits]) -> None:
        """Use other limits from now on, also for the providers that are known already."""
        self.limits = limits
        for (provider, _, _), gate in self._gates.items():
            gate.set_limits(limits.get(provider))

    def of(self, provider: str, base_url: str, key: str, model: str) -> tuple[Gate, Circuit]:
        """What a request for `model` has to pass."""
        place = (provider, base_url, key)
        gate = self._gates.setdefault(place, Gate(self.limits.get(provider)))
        circuit = self._circuits.setdefault((*place, model), Circuit())
        if len(self._circuits) > _KNOWN:
            self._circuits.popitem(last=False)
        return gate, circuit
