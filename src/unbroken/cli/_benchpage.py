"""The page of a benchmark: one HTML file with its plots, without anything from elsewhere."""

from collections.abc import Mapping, Sequence
from html import escape

from unbroken.cli._measured import Figures, Sample

_COLOURS = ("#2f6fde", "#d9622b", "#2a9d62", "#9b4dca", "#c2912b", "#d03a6a")
_WIDE, _HIGH, _LEFT, _LOW = 640, 260, 48, 32

_STYLE = """
:root { color-scheme: light dark; --fg: #1c1e21; --bg: #fff; --line: #d5d9de; --dim: #667; }
@media (prefers-color-scheme: dark) {
  :root { --fg: #e6e8eb; --bg: #15181c; --line: #3a4048; --dim: #9aa3ad; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--fg); background: var(--bg);
  max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
svg { width: 100%; height: auto; } svg text { fill: var(--dim); font-size: 12px; }
.axis { stroke: var(--line); } small, dd { color: var(--dim); } dt { font-weight: 600; }
"""

_TERMS = (
    ("TTFT", "time to first token: from sending the request to the first content"),
    ("ITL", "inter-token latency: between two reads that brought content"),
    ("TPOT", "time per output token: from the first content to the last, by tokens less one"),
    ("E2E", "from sending the request to the end of the answer"),
    ("p50, p95, p99", "percentiles, linearly interpolated"),
)


def page(
    rows: Sequence[Sequence[str]], told: Sequence[Figures], samples: Mapping[str, Sequence[Sample]]
) -> str:
    """The whole page: the table, two plots, the definitions."""
    first = {m: [s.first for s in had if s.first is not None] for m, had in samples.items()}
    gaps = {m: [gap for s in had for gap in s.gaps] for m, had in samples.items()}
    names = ", ".join(escape(f.model) + (" (simulated)" if f.simulated else "") for f in told)
    terms = "".join(f"<dt>{term}</dt><dd>{escape(said)}</dd>" for term, said in _TERMS)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>unbroken bench</title><style>{_STYLE}</style>"
        f"<h1>unbroken bench</h1><p>{names}</p>{_table(rows)}"
        f"<h2>Time to first token</h2>{_plot(first, 'share of answers that had begun')}"
        f"<h2>Between tokens</h2>{_plot(gaps, 'share of gaps')}"
        f"<h2>Definitions</h2><dl>{terms}</dl></html>\n"
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in body
    )
    return f"<table><tr>{cells}</tr>{lines}</table>"


def _plot(series: Mapping[str, Sequence[float]], what: str) -> str:
    """Cumulative distributions: for each time, the share that took no longer."""
    longest = max((max(values) for values in series.values() if values), default=0.0)
    if not longest:
        return "<p>nothing was measured</p>"
    lines = "".join(
        _line(name, sorted(values), longest, at) for at, (name, values) in enumerate(series.items())
    )
    ticks = "".join(_tick(longest * part / 4, part / 4) for part in range(5))
    base, right = _HIGH - _LOW, _WIDE - 8
    return (
        f'<svg viewBox="0 0 {_WIDE} {_HIGH}" role="img" aria-label="{escape(what)}">'
        f'<path class="axis" fill="none" d="M{_LEFT} 8V{base}H{right}"/>'
        f'<text x="{_LEFT - 6}" y="16" text-anchor="end">100 %</text>'
        f'<text x="{_LEFT - 6}" y="{base}" text-anchor="end">0 %</text>{ticks}{lines}</svg>'
    )


def _tick(seconds: float, share: float) -> str:
    x = _LEFT + share * (_WIDE - _LEFT - 40)
    return f'<text x="{x:.0f}" y="{_HIGH - 10}" text-anchor="middle">{seconds:.2g} s</text>'


def _line(name: str, values: Sequence[float], longest: float, at: int) -> str:
    colour, base = _COLOURS[at % len(_COLOURS)], _HIGH - _LOW
    step = max(1, len(values) // 400)
    points = [
        (_LEFT + value / longest * (_WIDE - _LEFT - 40), base - (n + 1) / len(values) * (base - 8))
        for n, value in enumerate(values)
        if n % step == 0 or n == len(values) - 1
    ]
    drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    label = f'<text x="{_LEFT + 12}" y="{28 + 16 * at}" style="fill:{colour}">{escape(name)}</text>'
    return f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{drawn}"/>{label}'
