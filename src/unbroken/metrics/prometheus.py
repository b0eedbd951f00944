"""Prometheus metrics of a gateway: one registry per gateway, in the text format.

Names follow Prometheus' own rules (base units, `_total` for counters). Labels are the provider
and model that answered: few values, and never text of a prompt. Callers may request models by any
name, and a label is never removed: so only the first `MODELS` models that answered get a label of
their own, of at most `MAX_MODEL_NAME` characters and without the simulator's `?...`. All others
share the model `other`.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from unbroken.metrics.answered import AnswerCompleted

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_FIRST = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20, 60)
_PACE = (5, 10, 20, 30, 50, 75, 100, 150, 200, 400)
_WHO = ("provider", "model")

MODELS = 200
"""Models with a label of their own."""
MAX_MODEL_NAME = 100
"""Characters of a model label."""
OTHER = "other"


class Board:
    """The metrics of one gateway."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self._known: set[tuple[str, str]] = set()
        self.answers = Counter(
            "unbroken_answers", "Answers by how they ended", (*_WHO, "state"), registry=registry
        )
        self.attempts = Counter(
            "unbroken_attempts", "Requests to providers", (*_WHO, "outcome"), registry=registry
        )
        self.recoveries = Counter(
            "unbroken_recoveries", "Cut answers that went on", ("how",), registry=registry
        )
        self.first = Histogram(
            "unbroken_time_to_first_token_seconds",
            "From the question to the first content",
            _WHO,
            buckets=_FIRST,
            registry=registry,
        )
        self.pace = Histogram(
            "unbroken_tokens_per_second",
            "Output tokens a second after the first",
            _WHO,
            buckets=_PACE,
            registry=registry,
        )
        self.tokens = Counter(
            "unbroken_tokens", "Tokens as reported", (*_WHO, "kind"), registry=registry
        )
        self.cost = Counter("unbroken_cost_usd", "Known prices, summed", _WHO, registry=registry)
        self.open = Gauge("unbroken_open_answers", "Answers in production", registry=registry)
        self.followers = Gauge("unbroken_followers", "Readers that follow", registry=registry)

    def answered(self, answer: AnswerCompleted) -> None:
        """Count an answer that has ended."""
        response, metrics = answer.response, answer.metrics
        had_content = answer.state == "complete" or metrics.time_to_first_token is not None
        who = self._who(response.provider, response.model, answered=had_content)
        self.answers.labels(*who, answer.state).inc()
        for attempt in response.attempts:
            outcome = "ok" if attempt.error is None else type(attempt.error).__name__
            good = had_content and attempt.error is None
            asked = self._who(attempt.provider, attempt.model, answered=good)
            self.attempts.labels(*asked, outcome).inc()
            if attempt.how != "start" and attempt.error is None:
                self.recoveries.labels(attempt.how).inc()
        if metrics.time_to_first_token is not None:
            self.first.labels(*who).observe(metrics.time_to_first_token)
        if metrics.tokens_per_second is not None:
            self.pace.labels(*who).observe(metrics.tokens_per_second)
        if response.usage is not None:
            self.tokens.labels(*who, "input").inc(response.usage.input_tokens)
            self.tokens.labels(*who, "output").inc(response.usage.output_tokens)
        if response.cost is not None:
            self.cost.labels(*who).inc(response.cost)

    def _who(self, provider: str, model: str, *, answered: bool) -> tuple[str, str]:
        """Return the labels of a model, which gets a label of its own with its first answer."""
        who = (provider, model.partition("?")[0][:MAX_MODEL_NAME])
        if answered and len(self._known) < MODELS:
            self._known.add(who)
        return who if who in self._known else (provider, OTHER)

    def page(self, *, open_: int, followers: int) -> bytes:
        """Return all metrics in the text format."""
        self.open.set(open_)
        self.followers.set(followers)
        return generate_latest(self._registry)
