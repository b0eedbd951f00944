"""The rate limiters and circuit breakers of one client, by provider, key and model."""

from collections import OrderedDict
from collections.abc import Mapping

from unbroken.engine.circuit import CircuitBreaker
from unbroken.engine.limits import Limits, RateLimiter

_KNOWN = 1000
"""Models whose circuits are remembered: callers of a gateway make up names without end."""


class GuardRegistry:
    """What every request of one client has to pass."""

    def __init__(self, limits: Mapping[str, Limits]) -> None:
        self.limits = limits
        self._limiters: dict[tuple[str, str, str], RateLimiter] = {}
        self._circuits = OrderedDict[tuple[str, str, str, str], CircuitBreaker]()

    def set_limits(self, limits: Mapping[str, Limits]) -> None:
        """Use other limits from now on, also for providers that are known already."""
        self.limits = limits
        for (provider, _, _), limiter in self._limiters.items():
            limiter.set_limits(limits.get(provider))

    def of(
        self, provider: str, base_url: str, key: str, model: str
    ) -> tuple[RateLimiter, CircuitBreaker]:
        """Return the rate limiter of the key and the circuit breaker of the model."""
        place = (provider, base_url, key)
        limiter = self._limiters.setdefault(place, RateLimiter(self.limits.get(provider)))
        circuit = self._circuits.setdefault((*place, model), CircuitBreaker())
        if len(self._circuits) > _KNOWN:
            self._circuits.popitem(last=False)
        return limiter, circuit
