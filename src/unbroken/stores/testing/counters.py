"""Checks of counters: quotas when a stream is made, charges when it is closed."""

import asyncio

from unbroken import errors
from unbroken.stores.base import Ack, End, Factory, NewStream, Search, Store
from unbroken.stores.counters import MAX_AMOUNT, Charge, QuotaReached
from unbroken.stores.testing.tools import DONE, Broken, Hands, equal, names, produce, refused


def _request(limit: int, counter: str = "ann") -> list[Charge]:
    return [Charge(counter, {"requests": 1}, limits={"requests": limit})]


async def _reached(store: Store, charges: list[Charge]) -> QuotaReached:
    try:
        await store.charge(charges)
    except QuotaReached as error:
        return error
    raise Broken("QuotaReached was not raised")


async def check_charges_are_added_by_window(factory: Factory) -> None:
    async with factory(clock := Hands()) as store:
        equal(await store.usage(["ann"]), [{}])
        spent = {"tokens": 7, "usd": 12_345}
        await store.charge([Charge("ann", spent), Charge("ann", {"tokens": 7}, "minute")])
        await store.charge([Charge("ann", {"tokens": 3}), Charge("bob", {"tokens": 1})])
        equal(
            await store.usage(["bob", "ann", "eve"]),
            [{"tokens": 1}, {"tokens": 10, "usd": 12_345}, {}],
        )
        equal(await store.usage(["ann"], "minute"), [{"tokens": 7}])
        clock.now += 60
        equal(await store.usage(["ann"], "minute"), [{}])
        clock.now += 86_400
        equal(await store.usage(["ann"]), [{}])
        await store.charge([Charge("ann", {"tokens": 1})])
        equal(await store.usage(["ann"]), [{"tokens": 1}])


async def check_a_reached_limit_counts_nothing_and_says_which(factory: Factory) -> None:
    async with factory(clock := Hands()) as store:
        day, minute = Charge("k", {"n": 2}, limits={"n": 4}), Charge("k", {"n": 1}, "minute")
        await store.charge([day, minute])
        await store.charge([minute, day])
        error = await _reached(store, [minute, day])
        equal((error.counter, error.window, error.field), ("k", "day", "n"))
        equal((error.limit, error.used), (4, 4))
        equal(error.resets, (clock.now // 86_400 + 1) * 86_400)
        equal(await store.usage(["k"]) + await store.usage(["k"], "minute"), [{"n": 4}, {"n": 2}])
        clock.now = error.resets
        await store.charge([day])


async def check_wrong_amounts_are_refused(factory: Factory) -> None:
    async with factory(Hands()) as store:
        lease = await produce(store, "s", "p")
        for amount in (-1, MAX_AMOUNT + 1, 0.5):
            wrong = [Charge("k", {"n": 1}), Charge("k", {"n": amount})]  # type: ignore[dict-item]
            await refused(errors.StoreError, store.charge(wrong))
            await refused(errors.StoreError, store.create(NewStream("t"), charges=wrong))
            await refused(errors.StoreError, store.close("s", DONE, 0, lease.fence, (), wrong))
        await refused(errors.StoreError, store.charge([Charge("x\ud800", {"n": 1})]))
        equal((await store.usage(["k"]), await names(store, None, Search())), ([{}], ["s"]))
        equal((await store.info("s")).end, None)
        await store.charge([Charge("k", {"n": MAX_AMOUNT})] * 3)
        equal(await store.usage(["k"]), [{"n": 3 * MAX_AMOUNT}])


async def check_creating_counts_once_for_each_stream(factory: Factory) -> None:
    async with factory(Hands()) as store:
        new = NewStream("s", "ann", key="k")
        equal((await store.create(new, charges=_request(2))).fresh, True)
        for again in (new, NewStream("other", "ann", key="k"), NewStream("s", "ann")):
            equal((await store.create(again, charges=_request(2))).fresh, False)
        equal(await store.usage(["ann"]), [{"requests": 1}])
        await store.create(NewStream("t", "ann"), charges=_request(2))
        repeat = await store.create(NewStream("u", "ann", key="k"), charges=_request(2))
        equal((repeat.fresh, repeat.stream.id), (False, "s"))  # the quota has no say in a repeat


async def check_a_refused_stream_does_not_exist(factory: Factory) -> None:
    async with factory(Hands()) as store:
        new = NewStream("s", "ann", key="k")
        for _ in range(3):
            await refused(QuotaReached, store.create(new, [b"a"], charges=_request(0)))
        await refused(errors.StreamMissing, store.info("s"))
        equal(await store.usage(["ann"]), [{}])
        created = await store.create(NewStream("t", "ann", key="k"), charges=_request(1))
        equal((created.fresh, created.stream.id), (True, "t"))


async def check_of_many_creates_as_many_as_the_limit_are_admitted(factory: Factory) -> None:
    async with factory(Hands()) as store:
        calls = [
            store.create(NewStream(f"s{n}", "ann", key=f"k{n}"), charges=_request(17))
            for n in range(60)
        ]
        results = await asyncio.gather(*calls, return_exceptions=True)
        refusals = [result for result in results if isinstance(result, QuotaReached)]
        equal((len(refusals), len(await names(store, "ann", Search()))), (43, 17))
        equal(await store.usage(["ann"]), [{"requests": 17}])


async def check_repeats_at_once_are_all_refused_or_all_the_same(factory: Factory) -> None:
    async with factory(Hands()) as store:
        for limit, fresh in ((0, 0), (1, 1), (1, 0)):
            calls = [
                store.create(
                    NewStream(f"s{limit}{fresh}{n}", "ann", key=f"k{limit}{fresh}"),
                    charges=_request(limit),
                )
                for n in range(10)
            ]
            results = await asyncio.gather(*calls, return_exceptions=True)
            made = {r.stream.id for r in results if not isinstance(r, BaseException)}
            refusals = [result for result in results if isinstance(result, QuotaReached)]
            equal((len(made), len(refusals)), (fresh, 0 if fresh else 10))
        equal(await store.usage(["ann"]), [{"requests": 1}])


async def check_an_end_is_charged_once(factory: Factory) -> None:
    async with factory(Hands()) as store:
        lease = await produce(store, "s", "p")
        charges = [Charge("ann", {"tokens": 7}), Charge("bob", {"tokens": 1}, "minute")]
        await refused(errors.OffsetConflict, store.close("s", DONE, 1, lease.fence, (), charges))
        await refused(errors.OffsetConflict, store.close("s", DONE, 0, 0, (), charges))
        equal(await store.close("s", DONE, 0, lease.fence, [b"a"], charges), Ack(1))
        equal(await store.close("s", DONE, 1, lease.fence, (), charges), Ack(1))
        failed = store.close("s", End("failed"), 1, lease.fence, (), charges)
        await refused(errors.StreamClosed, failed)
        equal(await store.usage(["ann"]), [{"tokens": 7}])
        equal(await store.usage(["bob"], "minute"), [{"tokens": 1}])


async def check_one_of_many_ends_is_charged(factory: Factory) -> None:
    async with factory(Hands()) as store:
        lease = await produce(store, "s", "p")
        calls = [
            store.close("s", End(f"e{n}"), 0, lease.fence, (), [Charge(f"k{n}", {"n": 1})])
            for n in range(10)
        ]
        await asyncio.gather(*calls, return_exceptions=True)
        charged = await store.usage([f"k{n}" for n in range(10)])
        equal(sum(sums.get("n", 0) for sums in charged), 1)
