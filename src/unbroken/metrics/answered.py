"""What is told of an answer when it is over: to Prometheus, to OpenTelemetry, to the log."""

from typing import Protocol

from msgspec import Struct

from unbroken.metrics.timing import StreamMetrics
from unbroken.response import Response


class Answered(Struct, frozen=True, kw_only=True):
    """One answer. `model` is what was asked for, `state` how it ended and `reason` why, if it was
    cancelled; `traceparent` is the caller's trace (W3C Trace Context), if it sent one.
    """

    model: str
    state: str
    response: Response
    metrics: StreamMetrics
    reason: str = ""
    traceparent: str = ""


class Observer(Protocol):
    """Somebody who is told."""

    def answered(self, told: Answered, /) -> None: ...
