"""What is told of an answer when it is over: to Prometheus, to OpenTelemetry, to a log, to yours.

    Client(observers=[Spans()])

While an answer comes nobody is told anything, and without observers there is nothing to tell: the
one seam lies where an answer ends, whichever way it does.
"""

import logging
from collections.abc import Sequence
from contextvars import copy_context
from typing import Protocol

from msgspec import Struct

from unbroken.messages import Request
from unbroken.metrics.timing import StreamMetrics
from unbroken.response import Response

LOGGER = logging.getLogger("unbroken.metrics")


class Answered(Struct, frozen=True, kw_only=True):
    """One answer. `model` is what was asked for, a route's name perhaps, and `request` the whole
    question. `state` says how it ended and `reason` why, if it was cancelled; `traceparent` is the
    caller's trace (W3C Trace Context), if it came from elsewhere.
    """

    model: str
    state: str
    response: Response
    metrics: StreamMetrics
    request: Request | None = None
    reason: str = ""
    traceparent: str = ""


class Observer(Protocol):
    """Somebody who is told, once for each answer, and who does not wait. What it raises is logged:
    the answer is as good as it was.
    """

    def answered(self, told: Answered, /) -> None: ...


class Ended(Protocol):
    """An answer that is over."""

    @property
    def response(self) -> Response: ...

    @property
    def metrics(self) -> StreamMetrics: ...


class Watch:
    """Tells the observers of one answer, in the context that asked for it: a span finds its parent
    there, wherever the answer was read.
    """

    def __init__(self, observers: Sequence[Observer], model: str, request: Request) -> None:
        self._observers, self._model, self._request = observers, model, request
        self._context = copy_context() if observers else None

    def over(self, answer: Ended) -> None:
        """It has ended."""
        if self._context is None:
            return
        response = answer.response
        told = Answered(
            model=self._model,
            state=response.end or "cancelled",
            response=response,
            metrics=answer.metrics,
            request=self._request,
        )
        self._context.run(tell, self._observers, told)


def tell(observers: Sequence[Observer], told: Answered) -> None:
    """Tell them all, whatever becomes of one of them."""
    for observer in observers:
        try:
            observer.answered(told)
        except Exception:
            LOGGER.exception("%r could not note an answer of %s", observer, told.model)
