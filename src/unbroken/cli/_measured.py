"""What a benchmark says of one model: samples in, figures out. Pure arithmetic.

The definitions follow the field's (vLLM's serving benchmark, NVIDIA GenAI-Perf, llmperf):

    TTFT   time to first token: from sending the request to the first content
    ITL    inter-token latency: between two reads that brought content
    TPOT   time per output token: from the first content to the last, by output tokens less one
    E2E    from sending the request to the end of the answer

Percentiles are linearly interpolated between the two nearest samples, as numpy does.
"""

from collections import Counter
from collections.abc import Sequence

from msgspec import Struct

PERCENTS = (50, 95, 99)


class Sample(Struct, frozen=True, kw_only=True):
    """One request. Seconds; None where there was none of it."""

    first: float | None = None
    gaps: tuple[float, ...] = ()
    per_token: float | None = None
    duration: float = 0.0
    tokens: int = 0
    cost: float | None = None
    recovered: bool = False
    error: str = ""
    reason: str = ""


class Figures(Struct, frozen=True, kw_only=True):
    """One model. Spreads are percentiles (50, 95, 99) in seconds, empty without samples."""

    model: str
    simulated: bool
    requests: int
    failed: int
    recovered: int
    errors: dict[str, int]
    first_reasons: dict[str, str]
    ttft: tuple[float, ...]
    itl: tuple[float, ...]
    tpot: tuple[float, ...]
    e2e: tuple[float, ...]
    tokens: int
    tokens_per_second: float | None
    throughput: float | None
    cost: float | None
    whole: tuple[float, ...] = ()


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that so many percent of the samples do not exceed, interpolated."""
    ordered = sorted(values)
    at = (len(ordered) - 1) * percent / 100
    below = int(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (at - below)


def spread(values: Sequence[float]) -> tuple[float, ...]:
    """The percentiles that are shown."""
    return tuple(percentile(values, percent) for percent in PERCENTS) if values else ()


def figures(
    model: str, samples: Sequence[Sample], seconds: float, whole: Sequence[Sample] = ()
) -> Figures:
    """What the samples of one model say; `seconds` is how long all of it took."""
    good = [sample for sample in samples if not sample.error]
    paces = [1 / s.per_token for s in good if s.per_token]
    tokens = sum(sample.tokens for sample in good)
    costs = [sample.cost for sample in good]
    known = [cost for cost in costs if cost is not None]
    return Figures(
        model=model,
        simulated=model.partition("/")[0] == "sim",
        requests=len(samples),
        failed=len(samples) - len(good),
        recovered=sum(sample.recovered for sample in good),
        errors=dict(Counter(sample.error for sample in samples if sample.error)),
        first_reasons={s.error: s.reason for s in reversed(samples) if s.error},
        ttft=spread([s.first for s in good if s.first is not None]),
        itl=spread([gap for sample in good for gap in sample.gaps]),
        tpot=spread([s.per_token for s in good if s.per_token is not None]),
        e2e=spread([sample.duration for sample in good]),
        tokens=tokens,
        tokens_per_second=percentile(paces, 50) if paces else None,
        throughput=tokens / seconds if seconds > 0 and tokens else None,
        cost=sum(known) if known and len(known) == len(costs) else None,
        whole=spread([sample.duration for sample in whole if not sample.error]),
    )
