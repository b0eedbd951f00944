"""Checks of lists, retention, and readers at other processes."""

import asyncio

from unbroken import errors
from unbroken.stores.base import FIND_SCAN, PRUNE_BATCH, Ack, Factory, NewStream, Search
from unbroken.stores.counters import Charge
from unbroken.stores.testing.tools import (
    DONE,
    Hands,
    adopt,
    closed,
    data_of,
    equal,
    names,
    produce,
    prune,
    refused,
)


async def check_a_producer_learns_of_readers_elsewhere(factory: Factory) -> None:
    async with factory(clock := Hands()) as store:
        for name in ("s", "t", "u"):
            await store.create(NewStream(name))
        equal(await store.reader_leases(["s", "t", "none"]), {})
        await store.announce_readers(["s", "u", "none"], 10)
        await store.announce_readers(["s"], 5)
        equal(await store.reader_leases(["s", "t", "none"]), {"s": 10})
        clock.now += 8
        await store.announce_readers(["s", "t"], 5)
        equal(await store.reader_leases(["s", "t", "u"]), {"s": 5, "t": 5, "u": 2})
        clock.now += 6
        equal(await store.reader_leases(["s", "t", "u"]), {})
        await store.announce_readers([], 5)
        equal(await store.reader_leases([]), {})


async def check_everyone_finds_their_own(factory: Factory) -> None:
    async with factory(Hands()) as store:
        for name, owner in (("a", "ann"), ("b", "bob"), ("c", "ann"), ("d", "")):
            await store.create(NewStream(name, owner), [b"12"])
        equal(await names(store, "ann", Search()), ["c", "a"])
        equal(await names(store, "", Search()), ["d"])
        equal(await names(store, None, Search()), ["d", "c", "b", "a"])
        equal((await store.find("ann")).streams[0], await store.info("c"))


async def check_streams_are_searched_by_label_text_and_state(factory: Factory) -> None:
    async with factory(Hands()) as store:
        for name, title, model in (("a", "Über uns", "m1"), ("b", "Kaffee", "m1"), ("c", "", "m2")):
            await store.create(NewStream(name, "ann", {"title": title, "model": model}))
        await store.close("b", DONE, 0)
        equal(await names(store, "ann", Search({"model": "m1"})), ["b", "a"])
        equal(await names(store, "ann", Search({"model": "m1", "title": "Kaffee"})), ["b"])
        equal(await names(store, "ann", Search({"nothing": "m1"})), [])
        equal(await names(store, "ann", Search(text="üBER")), ["a"])
        equal(await names(store, "ann", Search(text="ff")), ["b"])
        equal(await names(store, "ann", Search(text="%")), [])
        equal(await names(store, "ann", Search(closed=True)), ["b"])
        equal(await names(store, "ann", Search(closed=False)), ["c", "a"])


async def check_a_long_list_comes_in_pages(factory: Factory) -> None:
    async with factory(Hands()) as store:
        for number in range(7):
            await store.create(NewStream(f"s{number}", "ann"))
        first = await store.find("ann", Search(limit=3))
        await store.create(NewStream("new", "ann"))
        second = await store.find("ann", Search(limit=3, before=first.next))
        third = await store.find("ann", Search(limit=3, before=second.next))
        pages = [[info.id for info in page.streams] for page in (first, second, third)]
        equal(pages, [["s6", "s5", "s4"], ["s3", "s2", "s1"], ["s0"]])
        equal(third.next, None)


async def check_a_search_looks_at_a_bounded_number_of_streams(factory: Factory) -> None:
    async with factory(Hands()) as store:
        await store.create(NewStream("needle", "ann", {"title": "needle"}))
        more = (store.create(NewStream(f"s{n}", "ann")) for n in range(FIND_SCAN + 5))
        await asyncio.gather(*more)
        first = await store.find("ann", Search(text="needle"))
        equal((first.streams, first.next is not None), ([], True))
        second = await store.find("ann", Search(text="needle", before=first.next))
        equal(([info.id for info in second.streams], second.next), (["needle"], None))


async def check_deleting_forgets_everything(factory: Factory) -> None:
    async with factory(clock := Hands()) as store:
        await store.heartbeat("p", 10)
        await store.create(NewStream("s", "ann", key="k"), [b"a"], "p")
        await store.create(NewStream("t", "ann"), [b"b"])
        await store.delete("s")
        await refused(errors.StreamMissing, store.append("s", [b"x"], 1, 1))
        equal((await names(store, None, Search()), await data_of(store, "t")), (["t"], [b"b"]))
        equal((await store.create(NewStream("u", "ann", key="k"))).fresh, True)
        clock.now += 20
        equal(await adopt(store, "q"), [])


async def check_a_long_stream_is_deleted_whole(factory: Factory) -> None:
    async with factory(Hands()) as store:
        await store.create(NewStream("s"))
        for at in range(0, 1500, 500):
            await store.append("s", [b"x"] * 500, at)
        await store.delete("s")
        await store.create(NewStream("t"), [b"a"])
        equal(await data_of(store, "t"), [b"a"])
        await refused(errors.StreamMissing, store.read("s"))
        equal(await prune(store, size=1), 0)


async def check_old_streams_are_pruned_by_age(factory: Factory) -> None:
    async with factory(clock := Hands()) as store:
        await store.create(NewStream("kept"), [b"a"])  # it has no producer and needs none
        leases = {name: await produce(store, name, name) for name in ("closed", "lost", "young")}
        live = await produce(store, "live", "live")
        await store.close("closed", DONE, 0, leases["closed"].fence)
        clock.now += 50
        await store.heartbeat("live", 20)
        await store.close("young", DONE, 0, leases["young"].fence)
        equal(await prune(store, age=51), 0)
        clock.now += 10
        equal(await prune(store, age=50), 2)
        equal(await names(store, None, Search()), ["live", "young", "kept"])
        equal(await store.append("live", [b"b"], 0, live.fence), Ack(1))


async def check_released_streams_are_pruned_by_age(factory: Factory) -> None:
    async with factory(clock := Hands()) as store:
        await produce(store, "s", "p")
        await store.release_all("p")
        clock.now += 10
        equal((await prune(store, age=11), await prune(store, age=10)), (0, 1))


async def check_the_oldest_closed_are_pruned_by_size(factory: Factory) -> None:
    async with factory(clock := Hands()) as store:
        for name in ("open", "c", "a", "b"):
            await store.create(NewStream(name), [b"x" * 100])
        for name in ("a", "b", "c"):
            clock.now += 1
            await store.close(name, DONE, 1)
        equal(await prune(store, size=400), 0)
        equal(await prune(store, size=399), 1)
        equal(await names(store, None, Search()), ["b", "c", "open"])
        equal(await prune(store, size=101), 2)
        equal(await prune(store, size=0), 0)
        equal(await data_of(store, "open"), [b"x" * 100])


async def check_one_step_of_pruning_is_small(factory: Factory) -> None:
    async with factory(clock := Hands()) as store:
        await closed(store, PRUNE_BATCH * 2 + 1)
        clock.now += 10
        step = await store.prune(age=5)
        equal((0 < step.deleted <= PRUNE_BATCH, step.more), (True, True))
        equal(step.deleted + await prune(store, age=5), PRUNE_BATCH * 2 + 1)
        equal(await names(store, None, Search()), [])


async def check_pruning_goes_on_beside_appends(factory: Factory) -> None:
    async with factory(clock := Hands()) as store:
        await closed(store, PRUNE_BATCH * 2 + 1)
        clock.now += 100
        lease = await produce(store, "s", "p")
        more, tail = True, 0
        while more:
            more = (await store.prune(age=50)).more
            tail = (await store.append("s", [b"%d" % tail], tail, lease.fence)).tail
            equal((await store.heartbeat("p", 10)).lapsed, False)
        equal(await data_of(store, "s"), [b"%d" % at for at in range(tail)])
        equal(await names(store, None, Search()), ["s"])


async def check_pruning_forgets_old_counters_and_keeps_new_ones(factory: Factory) -> None:
    async with factory(clock := Hands()) as store:
        await store.charge([Charge("k", {"requests": 1}), Charge("k", {"requests": 1}, "minute")])
        clock.now += 61
        await prune(store, age=1)
        equal(await store.usage(["k"]), [{"requests": 1}])
        equal(await store.usage(["k"], "minute"), [{}])


async def check_a_ping_writes(factory: Factory) -> None:
    async with factory(Hands()) as store:
        await store.ping()
        await store.ping()
        equal(await names(store, None, Search()), [])
