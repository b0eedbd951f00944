"""Observers: Prometheus, OpenTelemetry, logs or your own code, notified when an answer ends.

    Client(observers=[Spans()])

Observers are called once per answer, when it ends, however it ends. They cost nothing while the
answer streams.
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


class AnswerCompleted(Struct, frozen=True, kw_only=True):
    """One answer that has ended. `model` is the requested model or route, `request` the whole
    request. `state` is how it ended and `reason` why it was cancelled, if it was; `traceparent` is
    the caller's trace context (W3C Trace Context), if the request came over the network.
    """

    model: str
    state: str
    response: Response
    metrics: StreamMetrics
    request: Request | None = None
    reason: str = ""
    traceparent: str = ""


class Observer(Protocol):
    """Receives each answer when it has ended. Must not block. An exception is logged and does not
    affect the answer.
    """

    def answered(self, answer: AnswerCompleted, /) -> None: ...


class Ended(Protocol):
    """A stream that has ended."""

    @property
    def response(self) -> Response: ...

    @property
    def metrics(self) -> StreamMetrics: ...


class Watch:
    """Notifies the observers of one answer, in the context of the call that started it: a span
    finds its parent there, wherever the answer was read.
    """

    def __init__(self, observers: Sequence[Observer], model: str, request: Request) -> None:
        self._observers, self._model, self._request = observers, model, request
        self._context = copy_context() if observers else None

    def over(self, answer: Ended) -> None:
        """Notify the observers that `answer` has ended."""
        if self._context is None:
            return
        response = answer.response
        completed = AnswerCompleted(
            model=self._model,
            state=response.end or "cancelled",
            response=response,
            metrics=answer.metrics,
            request=self._request,
        )
        self._context.run(notify, self._observers, completed)


def notify(observers: Sequence[Observer], answer: AnswerCompleted) -> None:
    """Call every observer; log what one of them raises."""
    for observer in observers:
        try:
            observer.answered(answer)
        except Exception:
            LOGGER.exception("observer %r failed on an answer of %s", observer, answer.model)


Answered = AnswerCompleted
"""Deprecated alias, to be removed in 0.3."""
