"""Counters: sums in fixed windows of time (UTC), such as what a key has used today."""

from collections.abc import Iterable, Mapping
from typing import Literal, TypeAlias

from msgspec import Struct

from unbroken.errors import StoreError

Window: TypeAlias = Literal["minute", "hour", "day"]
WINDOW_SECONDS: Mapping[str, int] = {"minute": 60, "hour": 3600, "day": 86_400}
MAX_AMOUNT = 10**12  # of one charge: a million of these still fit into 64 bits


class Charge(Struct, frozen=True):
    """Amounts to be added to the fields of a counter, in its current window.

    With `limits` nothing is added if a field has reached its limit before. Fields are free words;
    money is kept in whole numbers (such as micro-USD), because sums of floats drift.
    """

    counter: str
    amounts: dict[str, int]
    window: Window = "day"
    limits: dict[str, int] = {}


class QuotaReached(StoreError):
    """A counter has reached a limit: nothing was counted and nothing was created.

    `resets` is the end of the counter's window, in seconds since the epoch.
    """

    def __init__(self, charge: Charge, field: str, used: int, resets: float) -> None:
        self.counter, self.window, self.field = charge.counter, charge.window, field
        self.limit, self.used, self.resets = charge.limits[field], used, resets
        super().__init__(
            f"counter {self.counter!r} has {used} of {self.limit} {field} in this {self.window}"
        )


def encode_utf8(text: str) -> bytes:
    """Encode text as it is stored. StoreError for half a surrogate pair, which JSON may contain."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise StoreError(f"half a character can't be stored: {error}") from error


def check_charges(charges: Iterable[Charge]) -> None:
    """StoreError for an unknown window or an amount that no honest caller charges."""
    for charge in charges:
        encode_utf8("\0".join((charge.counter, *charge.amounts)))
        if charge.window not in WINDOW_SECONDS:
            raise StoreError(f"there is no window {charge.window!r} for counters")
        for field, amount in charge.amounts.items():
            if not (isinstance(amount, int) and 0 <= amount <= MAX_AMOUNT):
                raise StoreError(
                    f"{amount!r} {field} can't be charged to counter {charge.counter!r}",
                    hint=f"Amounts are whole numbers from 0 to {MAX_AMOUNT}.",
                )


def window_end(window: Window, now: float) -> int:
    """Return when the window that contains `now` ends."""
    seconds = WINDOW_SECONDS[window]
    return (int(now) // seconds + 1) * seconds


def check_limits(charge: Charge, used: Mapping[str, int], now: float) -> None:
    """QuotaReached if a field of the counter has reached its limit."""
    for field, limit in charge.limits.items():
        if used.get(field, 0) >= limit:
            raise QuotaReached(charge, field, used.get(field, 0), window_end(charge.window, now))
