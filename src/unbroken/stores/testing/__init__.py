"""The behaviour that every store shows, as checks to be run on any of them.

    await contract.run(lambda clock: MyStore(..., clock=clock))

or one by one: each of `CHECKS` is an async function that takes such a factory, and raises Broken
if the store does otherwise. The factory is called once a check and gives a store on empty
ground. The clock belongs to the check, which turns it on; only leases, ages and times of streams
may follow it: waiting takes real time. No test framework is needed.
"""

from collections.abc import Awaitable, Callable

from unbroken.stores.testing import producers, records
from unbroken.stores.testing.tools import Broken
from unbroken.stores.base import Factory

Check = Callable[[Factory], Awaitable[None]]

CHECKS: tuple[Check, ...] = tuple(
    check
    for part in (_contract_records, _contract_producers)
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
