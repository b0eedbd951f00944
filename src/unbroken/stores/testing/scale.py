"""Checks with hundreds of streams, and of processes that race."""

import asyncio

from unbroken import errors
from unbroken.stores.base import Factory, Lease, NewStream, Store
from unbroken.stores.counters import Charge
from unbroken.stores.testing.tools import DONE, Hands, adopt, data_of, equal

_MANY = 300


async def _created(store: Store, process: str) -> list[Lease]:
    await store.heartbeat(process, 10)
    calls = [store.create(NewStream(f"s{n}"), [b"q"], process) for n in range(_MANY)]
    return [one.lease for one in await asyncio.gather(*calls) if one.lease is not None]


async def _adopt_all(store: Store, process: str) -> list[Lease]:
    leases: list[Lease] = []
    while some := await adopt(store, process):
        leases += some
    return leases


async def check_hundreds_of_orphans_are_adopted_once_each(factory: Factory) -> None:
    async with factory(clock := Hands()) as store:
        old = await _created(store, "p")
        clock.now += 11
        both = await asyncio.gather(_adopt_all(store, "q"), _adopt_all(store, "r"))
        leases = [lease for some in both for lease in some]
        equal(len({lease.stream for lease in leases}), _MANY)
        equal(len(leases), _MANY)
        late = [store.append(lease.stream, [b"x"], 1, lease.fence) for lease in old]
        refusals = await asyncio.gather(*late, return_exceptions=True)
        equal(all(isinstance(one, errors.OffsetConflict) for one in refusals), True)
        ends = [Charge("k", {"n": 1})]
        closes = (store.close(one.stream, DONE, 1, one.fence, [b"a"], ends) for one in leases)
        await asyncio.gather(*closes)
        equal(await store.usage(["k"]), [{"n": _MANY}])


async def check_a_stopping_process_hands_hundreds_over(factory: Factory) -> None:
    async with factory(Hands()) as store:
        await _created(store, "p")
        released, first, second = await asyncio.gather(
            store.release_all("p"), adopt(store, "q"), adopt(store, "r")
        )
        rest = await asyncio.gather(_adopt_all(store, "q"), _adopt_all(store, "r"))
        adopted = [lease.stream for some in (first, second, *rest) for lease in some]
        equal((released, sorted(adopted)), (_MANY, sorted(f"s{n}" for n in range(_MANY))))


async def check_an_append_and_an_adoption_at_once_leave_one_producer(factory: Factory) -> None:
    async with factory(clock := Hands()) as store:
        old = (await _created(store, "p"))[:40]
        clock.now += 11
        await store.heartbeat("q", 10)
        appends = [store.append(one.stream, [b"p"], 1, one.fence) for one in old]
        adoptions = [store.adopt("q", 20) for _ in range(_MANY // 20)]
        adopted, outcomes = await asyncio.gather(
            asyncio.gather(*adoptions), asyncio.gather(*appends, return_exceptions=True)
        )
        new = {lease.stream: lease for some in adopted for lease in some}
        equal(len(new), _MANY)
        for lease, outcome in zip(old, outcomes, strict=True):
            records = [b"q", b"p"] if new[lease.stream].tail == 2 else [b"q"]
            equal(await data_of(store, lease.stream), records)
            equal(isinstance(outcome, errors.OffsetConflict), len(records) == 1)
