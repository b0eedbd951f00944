"""The behaviour of every store, as checks that run on any of them.

    await testing.run(lambda clock: MyStore(..., clock=clock))

or one by one: each of `CHECKS` is an async function that takes such a factory, and raises Broken
if the store behaves otherwise. The factory is called once a check and returns an empty store. The
clock belongs to the check, which sets it; only heartbeats, windows, ages and times of streams
may follow it: waiting takes real time. No test framework is needed.
"""

from collections.abc import Awaitable, Callable

from unbroken.stores.base import Factory
from unbroken.stores.testing import counters, lists, producers, records, scale
from unbroken.stores.testing.tools import Broken

Check = Callable[[Factory], Awaitable[None]]

CHECKS: tuple[Check, ...] = tuple(
    check
    for part in (records, producers, counters, lists, scale)
    for name, check in vars(part).items()
    if name.startswith("check_")
)


async def run(factory: Factory) -> None:
    """All checks, one after the other; the first that fails says what it found."""
    for check in CHECKS:
        try:
            await check(factory)
        except Broken as error:
            raise Broken(f"{check.__name__}: {error}") from error


__all__ = ["CHECKS", "Broken", "Check", "run"]
