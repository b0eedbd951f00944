"""The circuit breaker of one model: closed, open, and half open for one probe.

Time comes in as an argument.
"""

from unbroken.errors import (
    ConnectFailed,
    Overloaded,
    ProviderError,
    RemoteProtocolError,
    ServerError,
    StreamTruncated,
    TimedOut,
    TransportError,
    UnbrokenError,
)

_FAILURES = 3
"""Failures in a row that open a circuit; silence and a refused connection open it at once."""

_COOLDOWN, _LONGEST = 2.0, 10.0
"""Seconds that a circuit stays open: doubled by each probe that fails, up to the longest."""

_AT_ONCE = (TimedOut, ConnectFailed)

_FAULTS = (TransportError, RemoteProtocolError, StreamTruncated, ServerError, Overloaded)
"""Failures of the provider: resets, torn streams and garbage as well as its own errors."""


class CircuitBreaker:
    """Whether one model is worth asking."""

    def __init__(self) -> None:
        self._failures = 0
        self._cooldown = _COOLDOWN
        self._open_until = 0.0
        self._probing = False

    def allows(self, now: float) -> bool:
        """Return whether a request may be sent: the circuit is closed, or due for a probe."""
        return now >= self._open_until and not self._probing

    def on_start(self) -> None:
        """Count a request that is sent; after failures it is the probe."""
        self._probing = self._failures >= _FAILURES

    def on_success(self) -> None:
        """Close the circuit: the provider answered."""
        self._failures, self._cooldown, self._probing = 0, _COOLDOWN, False

    def on_cancel(self) -> None:
        """Let another request probe: this one ended before anything was known."""
        self._probing = False

    def on_failure(self, error: UnbrokenError, now: float) -> None:
        """Count a failed attempt; an error that shows a working server closes the circuit."""
        if not isinstance(error, _FAULTS):
            if isinstance(error, ProviderError):
                self.on_success()
            self._probing = False
            return
        probe, self._probing = self._failures >= _FAILURES, False
        least = _FAILURES if isinstance(error, _AT_ONCE) else 0
        self._failures = max(self._failures + 1, least)
        if self._failures >= _FAILURES:
            self._cooldown = min(_LONGEST, self._cooldown * 2) if probe else _COOLDOWN
            self._open_until = now + self._cooldown
