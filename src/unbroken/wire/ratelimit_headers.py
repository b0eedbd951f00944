"""What providers say in headers about what is left of their limits.

OpenAI and most compatible servers: "Rate limits in headers", a remaining number and a span such as
`6m0s` or `20ms`. Anthropic: "Rate limits, response headers", a remaining number and a moment
(RFC 3339), which is measured against the answer's own `Date`: no clock of ours is asked.
"""

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

_PAIRS = (
    *((f"x-ratelimit-remaining-{k}", f"x-ratelimit-reset-{k}") for k in ("requests", "tokens")),
    *(
        (f"anthropic-ratelimit-{k}-remaining", f"anthropic-ratelimit-{k}-reset")
        for k in ("requests", "tokens", "input-tokens", "output-tokens")
    ),
)
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")


def seconds_until_reset(headers: Mapping[str, str]) -> float:
    """Seconds until something is left again; 0 where something is, or where that is unknown.

    Header names are expected in lower case.
    """
    empty = (reset for left, reset in _PAIRS if headers.get(left, "").strip() == "0")
    return max((_seconds(headers.get(name, ""), headers) for name in empty), default=0.0)


def _seconds(wait: str, headers: Mapping[str, str]) -> float:
    try:
        if "T" not in wait:
            return _span(wait)
        now = parsedate_to_datetime(headers.get("date", ""))
        return max(0.0, (type(now).fromisoformat(wait) - now).total_seconds())
    except (ValueError, TypeError):
        return 0.0  # headers that cannot be parsed are ignored


def _span(wait: str) -> float:
    found = _SPAN.findall(wait)
    return sum(float(number) * _UNITS[unit] for number, unit in found) if found else float(wait)
