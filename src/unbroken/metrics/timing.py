"""Timing of one answer. Times are seconds on the transport's monotonic clock."""

from msgspec import Struct


class StreamMetrics(Struct, frozen=True):
    """The timing of one answer, all attempts and waits included.

    `time_to_first_token`: from the call to the first content; None if none came.
    `time_per_output_token`: from the first content to the last, by output tokens less one
    (the field's TPOT); None without usage or with fewer than two tokens.
    `duration`: from the call to the end. `attempts`: how many attempts were made.
    """

    time_to_first_token: float | None = None
    time_per_output_token: float | None = None
    duration: float = 0.0
    attempts: int = 0
    output_tokens: int | None = None

    @property
    def tokens_per_second(self) -> float | None:
        """Output tokens per second after the first one."""
        per_token = self.time_per_output_token
        return 1 / per_token if per_token else None


class Stopwatch:
    """Records the moments of one answer. The caller passes the time in."""

    def __init__(self) -> None:
        self.started: float | None = None
        self.first: float | None = None
        self.last: float | None = None
        self.ended: float | None = None

    def content(self, now: float) -> None:
        """Record that content arrived."""
        if self.first is None:
            self.first = now
        self.last = now

    def since(self, other: "Stopwatch") -> None:
        """Start at the earlier of both starts."""
        begun = [watch.started for watch in (self, other) if watch.started is not None]
        self.started = min(begun, default=None)

    def metrics(self, attempts: int, output_tokens: int | None) -> StreamMetrics:
        """Return the timing so far."""
        if self.started is None:
            return StreamMetrics()
        end = self.ended or self.last or self.started
        return StreamMetrics(
            time_to_first_token=None if self.first is None else self.first - self.started,
            time_per_output_token=self._per_token(output_tokens),
            duration=end - self.started,
            attempts=attempts,
            output_tokens=output_tokens,
        )

    def _per_token(self, output_tokens: int | None) -> float | None:
        if self.first is None or self.last is None or not output_tokens or output_tokens < 2:
            return None
        return (self.last - self.first) / (output_tokens - 1)
