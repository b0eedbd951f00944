"""Answers as OpenTelemetry spans and metrics, by the conventions for generative AI.

    Spans().answered(Answered(...))

One span for the answer as its caller saw it, over all attempts, and one within it for each
attempt (opentelemetry.io/docs/specs/semconv/gen-ai: "the span SHOULD cover the duration of the
logical operation with all retries"). The conventions are in development: names are those of
version 1.41. Prompts and answers are never recorded.

Only the API is needed here (extra `otel`). Without an SDK that the program sets up, for example by
`opentelemetry-instrument`, it does nothing.
"""

import time
from collections.abc import Mapping

from opentelemetry import metrics, trace
from opentelemetry.propagate import extract
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.util.types import AttributeValue

from unbroken.errors import ProviderError
from unbroken.metrics.answered import Answered
from unbroken.response import Attempt, Response

Facts = dict[str, AttributeValue]

PROVIDERS = {
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "openai-responses": "openai",
    "xai": "x_ai",
}
"""The conventions' words for `gen_ai.provider.name` where they are not our own."""


class Spans:
    """Tells the tracer and the meter that the program has set up."""

    def __init__(
        self,
        tracers: trace.TracerProvider | None = None,
        meters: metrics.MeterProvider | None = None,
    ) -> None:
        self._tracer = trace.get_tracer("unbroken", tracer_provider=tracers)
        meter = metrics.get_meter("unbroken", meter_provider=meters)
        self._duration = meter.create_histogram("gen_ai.client.operation.duration", "s")
        self._first = meter.create_histogram("gen_ai.client.operation.time_to_first_chunk", "s")
        self._tokens = meter.create_histogram("gen_ai.client.token.usage", "{token}")

    def answered(self, told: Answered) -> None:
        """An answer has just ended."""
        end = time.time_ns()
        start = end - _nanoseconds(told.metrics.duration or 0.0)
        span = self._tracer.start_span(
            f"chat {told.model}",
            extract({"traceparent": told.traceparent}),
            SpanKind.CLIENT,
            _answer_facts(told),
            start_time=start,
        )
        within = trace.set_span_in_context(span)
        at = start
        for attempt in told.response.attempts:
            begun = at + _nanoseconds(attempt.delay)
            at = begun + _nanoseconds(attempt.duration)
            self._attempt(attempt, within, begun, min(at, end))
        if told.state == "failed":
            span.set_status(Status(StatusCode.ERROR))
        span.end(end)
        self._measure(told)

    def _attempt(self, attempt: Attempt, within: object, start: int, end: int) -> None:
        name = f"attempt {attempt.provider}/{attempt.model}"
        span = self._tracer.start_span(
            name,
            within,  # type: ignore[arg-type]
            SpanKind.CLIENT,
            _attempt_facts(attempt),
            start_time=start,
        )
        if attempt.error is not None:
            span.set_status(Status(StatusCode.ERROR, str(attempt.error)))
        span.end(max(start, end))

    def _measure(self, told: Answered) -> None:
        who = _who(told.response.provider, told.model)
        failed: Facts = {"error.type": _cause(told.response)} if told.state == "failed" else {}
        if told.metrics.duration is not None:
            self._duration.record(told.metrics.duration, {**who, **failed})
        if told.metrics.time_to_first_token is not None:
            self._first.record(told.metrics.time_to_first_token, who)
        if told.response.usage is not None:
            usage = told.response.usage
            kinds = {"input": usage.input_tokens, "output": usage.output_tokens}
            for kind, count in kinds.items():
                self._tokens.record(count, {**who, "gen_ai.token.type": kind})


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


def _who(provider: str, model: str) -> Facts:
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": PROVIDERS.get(provider, provider),
        "gen_ai.request.model": model,
    }


def _answer_facts(told: Answered) -> Facts:
    response = told.response
    reasons = [choice.finish_reason for choice in response.choices if choice.finish_reason]
    facts: Mapping[str, AttributeValue | None] = {
        **_who(response.provider, told.model),
        "gen_ai.request.stream": True,
        "gen_ai.response.id": response.id or None,
        "gen_ai.response.model": response.model or None,
        "gen_ai.response.finish_reasons": reasons or None,
        "gen_ai.response.time_to_first_chunk": told.metrics.time_to_first_token,
        "error.type": _cause(response) if told.state == "failed" else None,
        "unbroken.state": told.state,
        "unbroken.reason": told.reason or None,
        "unbroken.attempts": len(response.attempts),
        "unbroken.cost_usd": response.cost,
    }
    return {**_known(facts), **_usage_facts(response)}


def _usage_facts(response: Response) -> Facts:
    usage = response.usage
    if usage is None:
        return {}
    return {
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_input_tokens,
        "gen_ai.usage.cache_creation.input_tokens": usage.cache_write_tokens,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
    }


def _attempt_facts(attempt: Attempt) -> Facts:
    error = attempt.error
    status = error.status if isinstance(error, ProviderError) else attempt.status
    facts: Mapping[str, AttributeValue | None] = {
        **_who(attempt.provider, attempt.model),
        "http.response.status_code": status,
        "error.type": None if error is None else type(error).__name__,
        "unbroken.how": attempt.how,
        "unbroken.delay": attempt.delay,
        "unbroken.request_id": attempt.request_id or None,
    }
    return _known(facts)


def _known(facts: Mapping[str, AttributeValue | None]) -> Facts:
    return {name: fact for name, fact in facts.items() if fact is not None}


def _cause(response: Response) -> str:
    errors = [attempt.error for attempt in response.attempts if attempt.error is not None]
    return type(errors[-1]).__name__ if errors else "_OTHER"
