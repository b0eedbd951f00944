"""The contract's part about producers, stopping them, lists and retention; see `contract`."""

import asyncio

from unbroken import errors
from unbroken.stores.testing.tools import DONE, SOON, Hands, data_of, equal, lease_of, refused
from unbroken.stores.base import Ack, Factory, NewStream, Search, Store

# Readers elsewhere


async def check_a_producer_learns_of_readers_elsewhere(factory: Factory) -> None:
    async with factory(clock := Hands()) as store:
        await store.create(NewStream("s"))
        equal(await store.attended("s"), 0)
        await store.attend("s", 10)
        await store.attend("s", 5)
        equal(await store.attended("s"), 10)
        clock.now += 8
        await store.attend("s", 5)
        equal(await store.attended("s"), 5)
        clock.now += 6
        equal(await store.attended("s"), 0)
        await refused(errors.StreamMissing, store.attend("none", 5))
        await refused(errors.StreamMissing, store.attended("none"))


# Leases


async def check_one_producer_at_a_time(factory: Factory) -> None:
    async with factory(clock := Hands()) as store:
        await store.create(NewStream("s"))
        first = await lease_of(store, "s", "p")
        equal((first.producer, first.expires, first.tail), ("p", clock.now + 10, 0))
        equal(await store.acquire("s", "q", 10), None)
        equal(await store.append("s", [b"a"], 0, first.fence), Ack(1))
        clock.now += 11
        second = await lease_of(store, "s", "q")
        equal((second.fence > first.fence, second.tail), (True, 1))


async def check_a_revived_producer_is_fenced(factory: Factory) -> None:
    async with factory(clock := Hands()) as store:
        await store.create(NewStream("s"))
        old = await lease_of(store, "s", "p")
        clock.now += 11
        new = await lease_of(store, "s", "q")
        await refused(errors.OffsetConflict, store.append("s", [b"x"], 0, old.fence))
        await refused(errors.OffsetConflict, store.append("s", [b"x"], 0))
        await refused(errors.OffsetConflict, store.close("s", DONE, 0, old.fence))
        await refused(errors.OffsetConflict, store.renew(old, 10))
        await store.release(old)
        equal(await store.append("s", [b"a"], 0, new.fence), Ack(1))
        equal((await store.info("s")).producer, "q")


async def check_a_late_producer_goes_on_if_nobody_took_over(factory: Factory) -> None:
    async with factory(clock := Hands()) as store:
        await store.create(NewStream("s"))
        lease = await lease_of(store, "s", "p")
        clock.now += 100
        equal(await store.append("s", [b"a"], 0, lease.fence), Ack(1))
        equal((await store.renew(lease, 10)).fence, lease.fence)
        equal(await store.acquire("s", "q", 10), None)


async def check_a_producer_started_anew_fences_itself(factory: Factory) -> None:
    async with factory(Hands()) as store:
        await store.create(NewStream("s"))
        first, second = await lease_of(store, "s", "p"), await lease_of(store, "s", "p")
        await refused(errors.OffsetConflict, store.append("s", [b"x"], 0, first.fence))
        equal(await store.append("s", [b"a"], 0, second.fence), Ack(1))


async def check_renewing_lengthens_a_lease(factory: Factory) -> None:
    async with factory(clock := Hands()) as store:
        await store.create(NewStream("s"))
        lease = await lease_of(store, "s", "p")
        clock.now += 9
        equal((await store.renew(lease, 10)).expires, clock.now + 10)
        clock.now += 9
        equal(await store.acquire("s", "q", 10), None)
        await store.append("s", [b"a"], 0, lease.fence, DONE)
        await refused(errors.StreamClosed, store.renew(lease, 10))


async def check_a_released_stream_is_free_at_once(factory: Factory) -> None:
    async with factory(Hands()) as store:
        await store.create(NewStream("s"))
        lease = await lease_of(store, "s", "p")
        await store.release(lease)
        await refused(errors.OffsetConflict, store.append("s", [b"x"], 0, lease.fence))
        equal([info.id for info in await store.orphans()], ["s"])
        equal((await lease_of(store, "s", "q")).fence > lease.fence, True)


async def check_one_of_many_takes_over(factory: Factory) -> None:
    async with factory(Hands()) as store:
        await store.create(NewStream("s"))
        leases = await asyncio.gather(*(store.acquire("s", f"p{n}", 10) for n in range(20)))
        equal(sum(lease is not None for lease in leases), 1)


async def check_orphans_are_open_and_have_no_live_producer(factory: Factory) -> None:
    async with factory(clock := Hands()) as store:
        for name, seconds in (("long", 30), ("late", 9), ("early", 5), ("closed", 5)):
            await store.create(NewStream(name), (), "p", seconds)
        await store.create(NewStream("never"))
        await store.close("closed", DONE, 0, 1)
        clock.now += 5
        equal([info.id for info in await store.orphans()], ["never", "early"])
        clock.now += 5
        equal([info.id for info in await store.orphans()], ["never", "early", "late"])
        equal([info.id for info in await store.orphans(1)], ["never"])
        equal([info.orphaned(clock.now) for info in await store.orphans()], [True] * 3)


# Asking a producer to stop


async def check_a_producer_hears_that_it_should_stop(factory: Factory) -> None:
    async with factory(Hands()) as store:
        lease = (await store.create(NewStream("s"), (), "p", 10)).lease
        if lease is None:
            raise errors.StoreError("no lease was made")
        equal(await store.cancelled("s", 0.01), False)
        wait = asyncio.ensure_future(store.cancelled("s", SOON))
        await asyncio.sleep(0.02)
        equal([await store.cancel("s"), await store.cancel("s"), await wait], [True] * 3)
        equal(await store.cancelled("s", SOON), True)
        equal(await store.append("s", [b"a"], 0, lease.fence), Ack(1, cancelled=True))
        equal((await store.renew(lease, 10)).cancelled, True)
        equal((await lease_of(store, "s", "p")).cancelled, True)
        equal((await store.info("s")).cancelled, True)
        equal(await data_of(store, "s"), [b"a"])


async def check_a_closed_stream_is_not_stopped(factory: Factory) -> None:
    async with factory(Hands()) as store:
        await store.create(NewStream("s"))
        wait = asyncio.ensure_future(store.cancelled("s", SOON))
        await asyncio.sleep(0.02)
        await store.close("s", DONE, 0)
        equal([await wait, await store.cancel("s"), await store.cancelled("s", SOON)], [False] * 3)
        equal((await store.info("s")).cancelled, False)


# Lists


async def _names(store: Store, owner: str | None, search: Search) -> list[str]:
    return [info.id for info in (await store.find(owner, search)).streams]


async def check_everyone_finds_their_own(factory: Factory) -> None:
    async with factory(Hands()) as store:
        for name, owner in (("a", "ann"), ("b", "bob"), ("c", "ann"), ("d", "")):
            await store.create(NewStream(name, owner), [b"12"])
        equal(await _names(store, "ann", Search()), ["c", "a"])
        equal(await _names(store, "", Search()), ["d"])
        equal(await _names(store, None, Search()), ["d", "c", "b", "a"])
        equal((await store.find("ann")).streams[0], await store.info("c"))


async def check_streams_are_searched_by_label_text_and_state(factory: Factory) -> None:
    async with factory(Hands()) as store:
        for name, title, model in (("a", "Über uns", "m1"), ("b", "Kaffee", "m1"), ("c", "", "m2")):
            await store.create(NewStream(name, "ann", {"title": title, "model": model}))
        await store.close("b", DONE, 0)
        equal(await _names(store, "ann", Search({"model": "m1"})), ["b", "a"])
        equal(await _names(store, "ann", Search({"model": "m1", "title": "Kaffee"})), ["b"])
        equal(await _names(store, "ann", Search({"nothing": "m1"})), [])
        equal(await _names(store, "ann", Search(text="üBER")), ["a"])
        equal(await _names(store, "ann", Search(text="ff")), ["b"])
        equal(await _names(store, "ann", Search(text="%")), [])
        equal(await _names(store, "ann", Search(closed=True)), ["b"])
        equal(await _names(store, "ann", Search(closed=False)), ["c", "a"])


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


# Retention


async def check_deleting_forgets_everything(factory: Factory) -> None:
    async with factory(Hands()) as store:
        await store.create(NewStream("s", "ann", key="k"), [b"a"], "p", 10)
        await store.create(NewStream("t", "ann"), [b"b"])
        await store.delete("s")
        await refused(errors.StreamMissing, store.append("s", [b"x"], 1, 1))
        equal((await _names(store, None, Search()), await data_of(store, "t")), (["t"], [b"b"]))
        equal((await store.create(NewStream("u", "ann", key="k"))).fresh, True)


async def check_old_streams_are_pruned_by_age(factory: Factory) -> None:
    async with factory(clock := Hands()) as store:
        for name in ("closed", "lost", "live", "young"):
            await store.create(NewStream(name), [b"a"], "p", 10)
        await store.close("closed", DONE, 1, 1)
        clock.now += 50
        live = await lease_of(store, "live", "p", 100)
        await store.close("young", DONE, 1, 1)
        equal(await store.prune(age=51), 0)
        clock.now += 10
        equal(await store.prune(age=50), 2)
        equal(await _names(store, None, Search()), ["young", "live"])
        equal(await store.append("live", [b"b"], 1, live.fence), Ack(2))


async def check_the_oldest_closed_are_pruned_by_size(factory: Factory) -> None:
    async with factory(clock := Hands()) as store:
        for name in ("open", "c", "a", "b"):
            await store.create(NewStream(name), [b"x" * 100])
        for name in ("a", "b", "c"):
            clock.now += 1
            await store.close(name, DONE, 1)
        equal(await store.prune(size=400), 0)
        equal(await store.prune(size=399), 1)
        equal(await _names(store, None, Search()), ["b", "c", "open"])
        equal(await store.prune(size=101), 2)
        equal(await store.prune(size=0), 0)
        equal(await data_of(store, "open"), [b"x" * 100])
