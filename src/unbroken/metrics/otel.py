"""Answers as OpenTelemetry spans and metrics, by the conventions for generative AI.

    Client(observers=[Spans()])             a gateway has them by itself

One span for the answer as its caller saw it, over all attempts ("the span SHOULD cover the duration
of the logical operation with all retries"), and within it one for each attempt. Only the answer's
has a `gen_ai.operation.name`, so that no answer is counted twice. Spans are created when the answer
has ended, with the measured times.

Names: opentelemetry.io/docs/specs/semconv/gen-ai (gen-ai-spans, gen-ai-metrics), the last that core
released, 1.41; status of all `gen_ai.*`: development; `error.type` and `server.*`: stable. They
have moved to github.com/open-telemetry/semantic-conventions-genai, which has only development
releases and renames the metrics (`gen_ai.client.inference.*`): docs/adr/0012.

Prompt and answer are recorded only if `content` or OpenTelemetry's own variable
OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT (`true`, `span_only`, `span_and_event`) asks for
it. Error descriptions are the exception's class, since a provider's message may quote the prompt.

Only the API is needed (extra `otel`): without a configured SDK nothing is recorded.
"""

import os
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from opentelemetry import metrics, trace
from opentelemetry.context import Context, get_current
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from unbroken.errors import ProviderError
from unbroken.metrics.answered import AnswerCompleted
from unbroken.metrics.otel_content import content_of
from unbroken.response import Attempt, Response

Facts = dict[str, AttributeValue]

CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_ASKED = frozenset({"true", "span_only", "span_and_event"})

PROVIDERS = {
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "openai-responses": "openai",
    "xai": "x_ai",
}
"""Names for `gen_ai.provider.name` that differ from the provider names of this package."""

# The conventions' own bounds; for the first chunk those of the server's time to first token.
_DURATIONS = [0.01 * 2**n for n in range(14)]
_FIRST = [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1]
_FIRST += [0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0]
_COUNTS = [float(4**n) for n in range(14)]

_W3C = TraceContextTextMapPropagator()
_BROKEN = frozenset({"failed", "truncated"})

# Request parameters: the conventions' name, the field of Request.
_PARAMETERS = {
    "gen_ai.request.choice.count": "n",
    "gen_ai.request.frequency_penalty": "frequency_penalty",
    "gen_ai.request.max_tokens": "max_tokens",
    "gen_ai.request.presence_penalty": "presence_penalty",
    "gen_ai.request.seed": "seed",
    "gen_ai.request.stop_sequences": "stop",
    "gen_ai.request.temperature": "temperature",
    "gen_ai.request.top_k": "top_k",
    "gen_ai.request.top_p": "top_p",
}


class Spans:
    """Records answers with the program's tracer and meter providers, or the given ones."""

    def __init__(
        self,
        tracers: trace.TracerProvider | None = None,
        meters: metrics.MeterProvider | None = None,
        *,
        content: bool | None = None,
    ) -> None:
        self._tracer = trace.get_tracer("unbroken", tracer_provider=tracers)
        self._content = (
            os.environ.get(CAPTURE, "").lower() in _ASKED if content is None else content
        )
        self._meters = _Meters(metrics.get_meter("unbroken", meter_provider=meters))

    def answered(self, answer: AnswerCompleted) -> None:
        """Record the spans and metrics of an answer that has just ended."""
        end = time.time_ns()
        start = end - _nanoseconds(answer.metrics.duration)
        last = _last(answer.response)
        who = {"gen_ai.operation.name": "chat", **_asked(last)}
        parent = _parent(answer.traceparent)
        span = self._tracer.start_span(
            f"chat {last.model}", parent, SpanKind.CLIENT, who, start_time=start
        )
        within = trace.set_span_in_context(span)
        if span.is_recording():
            self._describe(span, answer)
            self._attempts(answer.response.attempts, within, start, end)
        span.end(end)
        self._meters.measure(answer, who, within)

    def _describe(self, span: Span, answer: AnswerCompleted) -> None:
        span.set_attributes(_answer_facts(answer))
        if self._content and answer.request is not None:
            span.set_attributes(content_of(answer.request, answer.response))
        if answer.state in _BROKEN:
            span.set_status(Status(StatusCode.ERROR, _cause(answer.response)))

    def _attempts(
        self, attempts: tuple[Attempt, ...], within: Context, start: int, end: int
    ) -> None:
        """Record the attempts in order; a hedge overlaps the attempt before it."""
        for attempt in attempts:
            begun = min(start + _nanoseconds(attempt.delay), end)
            start = min(begun + _nanoseconds(attempt.duration), end)
            span = self._tracer.start_span(
                f"attempt {attempt.provider}/{attempt.model}",
                within,
                SpanKind.CLIENT,
                _attempt_facts(attempt),
                start_time=begun,
            )
            if attempt.error is not None:
                span.set_status(Status(StatusCode.ERROR, type(attempt.error).__name__))
            span.end(start)


class _Meters:
    """The client histograms of the conventions."""

    def __init__(self, meter: metrics.Meter) -> None:
        self._duration = meter.create_histogram(
            "gen_ai.client.operation.duration",
            "s",
            "GenAI operation duration.",
            explicit_bucket_boundaries_advisory=_DURATIONS,
        )
        self._first = meter.create_histogram(
            "gen_ai.client.operation.time_to_first_chunk",
            "s",
            "Time to receive the first chunk.",
            explicit_bucket_boundaries_advisory=_FIRST,
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            "{token}",
            "Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=_COUNTS,
        )

    def measure(self, answer: AnswerCompleted, who: Facts, within: Context) -> None:
        """Record the figures of one answer; `within` is the context of its span, for exemplars."""
        response, figures = answer.response, answer.metrics
        answered = _known({**who, "gen_ai.response.model": response.model or None})
        failed: Facts = {"error.type": _cause(response)} if answer.state in _BROKEN else {}
        self._duration.record(figures.duration, {**answered, **failed}, within)
        if figures.time_to_first_token is not None and _streams(answer):
            self._first.record(figures.time_to_first_token, answered, within)
        if response.usage is not None:
            usage = response.usage
            kinds = {"input": usage.input_tokens, "output": usage.output_tokens}
            for kind, count in kinds.items():
                self._tokens.record(count, {**answered, "gen_ai.token.type": kind}, within)


def _parent(traceparent: str) -> Context:
    """Return the context of the current span, else that of the caller's `traceparent`."""
    here = get_current()
    if trace.get_current_span(here).get_span_context().is_valid:
        return here
    return _W3C.extract({"traceparent": traceparent}, here)


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


def _last(response: Response) -> Attempt:
    """Return the attempt that answered, or the last one made."""
    tried = response.attempts
    return tried[-1] if tried else Attempt(response.provider, response.model)


def _asked(attempt: Attempt) -> Facts:
    """Return provider, model and server: attributes that samplers may use."""
    place = urlsplit(attempt.url)
    port = place.port or {"http": 80, "https": 443}.get(place.scheme)
    facts: Mapping[str, AttributeValue | None] = {
        "gen_ai.provider.name": PROVIDERS.get(attempt.provider, attempt.provider),
        "gen_ai.request.model": attempt.model,
        "server.address": place.hostname,
        "server.port": port,
    }
    return _known(facts)


def _answer_facts(answer: AnswerCompleted) -> Facts:
    response = answer.response
    missing = None if answer.state == "complete" else "error"
    reasons = [choice.finish_reason or missing for choice in response.choices]
    facts: Mapping[str, AttributeValue | None] = {
        "gen_ai.request.stream": _streams(answer) or None,
        "gen_ai.response.id": response.id or None,
        "gen_ai.response.model": response.model or None,
        "gen_ai.response.finish_reasons": [reason for reason in reasons if reason] or None,
        "gen_ai.response.time_to_first_chunk": (
            answer.metrics.time_to_first_token if _streams(answer) else None
        ),
        "error.type": _cause(response) if answer.state in _BROKEN else None,
        "unbroken.model": answer.model,
        "unbroken.state": answer.state,
        "unbroken.reason": answer.reason or None,
        "unbroken.attempts": len(response.attempts),
        "unbroken.recoveries": sum(one.how != "start" for one in response.attempts),
        "unbroken.cost_usd": response.cost,
    }
    return {**_parameter_facts(answer), **_known(facts), **_usage_facts(response)}


def _streams(answer: AnswerCompleted) -> bool:
    return answer.request is None or answer.request.stream


def _parameter_facts(answer: AnswerCompleted) -> Facts:
    request = answer.request
    if request is None:
        return {}
    parameters = {name: getattr(request, ours) for name, ours in _PARAMETERS.items()}
    form = request.response_format
    parameters["gen_ai.output.type"] = form and ("text" if form.get("type") == "text" else "json")
    if request.n == 1:
        del parameters["gen_ai.request.choice.count"]  # the conventions want it only if it is not 1
    return _known(parameters)


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
        **_asked(attempt),
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
