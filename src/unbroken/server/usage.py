"""What each key has used: counters in the store, which all its processes share.

A request is counted when its answer is created, in the same step of the store, and refused there
if a limit is reached. Tokens and money are counted when the answer is closed, also in one step: so
each is counted exactly once, whichever process ends the answer and whatever is killed meanwhile.
"""

import math
import time
from collections.abc import Mapping, Sequence

from msgspec import Struct

from unbroken.errors import QuotaExhausted
from unbroken.events import Usage
from unbroken.stores.base import Store
from unbroken.stores.counters import MAX_AMOUNT, Charge, QuotaReached, Window

MICRO = 1_000_000
"""Money is counted in millionths of a USD: sums of floats drift."""

WINDOWS: tuple[Window, ...] = ("day", "minute")
"""Every answer is counted in both, so that a limit can be set at any time."""

LimitsByWindow = Mapping[Window, Mapping[str, float]]
"""The most that may be used in a window, by the fields of UsageTotals."""


class UsageTotals(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was used in a window of time."""

    requests: int = 0
    tokens: int = 0
    usd: float = 0.0


def request_charges(owner: str, limits: LimitsByWindow) -> list[Charge]:
    """Return what creating an answer charges; empty for callers without a key."""
    if not owner:
        return []
    return [
        Charge(owner, {"requests": 1}, window, _units(limits.get(window, {}))) for window in WINDOWS
    ]


def answer_charges(owner: str, usage: Usage | None, usd: float | None) -> list[Charge]:
    """Return what closing an answer charges. Amounts that no answer can cost are cut."""
    if not owner or usage is None:
        return []
    tokens = usage.input_tokens + usage.output_tokens
    used = {"tokens": _amount(tokens), "usd": _amount((usd or 0.0) * MICRO)}
    return [Charge(owner, used, window) for window in WINDOWS]


async def read_totals(
    store: Store, owners: Sequence[str], window: Window = "day"
) -> list[UsageTotals]:
    """Return what each owner has used in the current window. Constant time for each."""
    return [
        UsageTotals(
            requests=found.get("requests", 0),
            tokens=found.get("tokens", 0),
            usd=found.get("usd", 0) / MICRO,
        )
        for found in await store.usage(owners, window)
    ]


def quota_error(reached: QuotaReached, name: str) -> QuotaExhausted:
    """Return the 429 for a reached limit of the key `name`."""
    limit = reached.limit / MICRO if reached.field == "usd" else reached.limit
    most = f"${limit:.2f}" if reached.field == "usd" else f"{limit} {reached.field}"
    period = "daily" if reached.window == "day" else "per-minute"
    resets = time.strftime("%H:%M UTC", time.gmtime(reached.resets))
    return QuotaExhausted(
        f"Key {name!r} has reached its {period} limit of {most}; it resets at {resets}.",
        status=429,
        code="insufficient_quota" if reached.window == "day" else "rate_limit_exceeded",
        retry_after=float(max(1, math.ceil(reached.resets - time.time()))),
    )


def _units(limits: Mapping[str, float]) -> dict[str, int]:
    return {
        field: math.ceil(limit * MICRO) if field == "usd" else int(limit)
        for field, limit in limits.items()
    }


def _amount(value: float) -> int:
    return min(max(round(value), 0), MAX_AMOUNT) if math.isfinite(value) else 0
