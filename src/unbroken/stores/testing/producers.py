"""Checks of processes: heartbeats, fences, adoption, hand-over, and requests to stop."""

import asyncio

from unbroken import errors
from unbroken.stores.base import Ack, Factory, Heartbeat, Lease, NewStream
from unbroken.stores.testing.tools import (
    DONE,
    Hands,
    adopt,
    data_of,
    equal,
    produce,
    refused,
)


async def check_a_live_process_keeps_its_streams(factory: Factory) -> None:
    async with factory(clock := Hands()) as store:
        lease = await produce(store, "s", "p")
        for _ in range(3):
            clock.now += 9
            equal(await adopt(store, "q"), [])
            equal(await store.heartbeat("p", 10), Heartbeat())
        equal(await store.append("s", [b"a"], 0, lease.fence), Ack(1))


async def check_one_heartbeat_is_for_all_streams_of_a_process(factory: Factory) -> None:
    async with factory(clock := Hands()) as store:
        for number in range(5):
            await produce(store, f"s{number}", "p")
        clock.now += 9
        await store.heartbeat("p", 10)
        clock.now += 9
        equal(await adopt(store, "q"), [])
        clock.now += 2
        equal(len(await adopt(store, "q")), 5)


async def check_an_adopted_stream_is_closed_to_its_old_producer(factory: Factory) -> None:
    async with factory(clock := Hands()) as store:
        old = await produce(store, "s", "p", [b"a"])
        clock.now += 11
        [new] = await adopt(store, "q")
        equal((new.stream, new.producer, new.tail, new.cancelled), ("s", "q", 1, False))
        equal(new.fence > old.fence, True)
        await refused(errors.OffsetConflict, store.append("s", [b"x"], 1, old.fence))
        await refused(errors.OffsetConflict, store.append("s", [b"x"], 1))
        await refused(errors.OffsetConflict, store.close("s", DONE, 1, old.fence))
        equal(await store.append("s", [b"b"], 1, new.fence), Ack(2))
        equal((await store.info("s")).producer, "q")


async def check_a_late_process_goes_on_if_its_streams_were_not_adopted(factory: Factory) -> None:
    async with factory(clock := Hands()) as store:
        lease = await produce(store, "s", "p")
        clock.now += 100
        equal(await store.append("s", [b"a"], 0, lease.fence), Ack(1))
        equal(await store.heartbeat("p", 10), Heartbeat(lapsed=True, held={"s": lease.fence}))
        equal(await store.heartbeat("p", 10), Heartbeat())
        equal(await adopt(store, "q"), [])


async def check_a_late_process_learns_what_it_has_lost(factory: Factory) -> None:
    async with factory(clock := Hands()) as store:
        leases = [await produce(store, f"s{number}", "p") for number in range(3)]
        clock.now += 11
        [lost] = await adopt(store, "q", 1)
        held = {lease.stream: lease.fence for lease in leases if lease.stream != lost.stream}
        equal(await store.heartbeat("p", 10), Heartbeat(lapsed=True, held=held))


async def check_a_process_without_heartbeat_adopts_nothing(factory: Factory) -> None:
    async with factory(clock := Hands()) as store:
        await produce(store, "s", "p")
        clock.now += 11
        equal(await store.adopt("q"), [])
        equal(await store.adopt("p"), [])
        await store.heartbeat("p", 10)
        equal(await store.adopt("p"), [])  # its own stream is no orphan now


async def check_orphans_are_adopted_longest_waiting_first(factory: Factory) -> None:
    async with factory(clock := Hands()) as store:
        for number in range(6):
            await produce(store, f"s{number}", f"p{number % 3}")
            clock.now += 1
        await store.create(NewStream("unproduced"))
        lease = await produce(store, "closed", "p0")
        await store.close("closed", DONE, 0, lease.fence)
        await store.heartbeat("p0", 10)
        clock.now += 20
        first, second = await adopt(store, "q", 2), await adopt(store, "q", 3)
        equal(sorted(lease.stream for lease in first), ["s1", "s4"])
        equal(len(second), 3)
        equal({lease.stream for lease in second} >= {"s2", "s5"}, True)
        equal(len(await adopt(store, "q")), 1)
        equal(await adopt(store, "r"), [])


async def check_takeovers_without_progress_are_counted(factory: Factory) -> None:
    async with factory(clock := Hands()) as store:
        await produce(store, "s", "p", [b"question"])
        for count in (1, 2, 3):
            clock.now += 11
            [lease] = await adopt(store, f"q{count}")
            equal(lease.takeovers, count)
        await store.append("s", [], 1, lease.fence)
        await store.release_all("q3")
        [lease] = await adopt(store, "r")
        equal(lease.takeovers, 3)  # a release is no failure
        await store.append("s", [b"a"], 1, lease.fence)
        clock.now += 11
        [lease] = await adopt(store, "t")
        equal(lease.takeovers, 1)


async def check_released_streams_are_free_at_once(factory: Factory) -> None:
    async with factory(clock := Hands()) as store:
        leases = [await produce(store, f"s{number}", "p") for number in range(3)]
        kept = await produce(store, "other", "q")
        clock.now += 1
        equal(await store.release_all("p"), 3)
        equal(await store.release_all("p"), 0)
        await refused(errors.OffsetConflict, store.append("s0", [b"x"], 0, leases[0].fence))
        equal((await store.info("s0")).producer, "")
        adopted = await adopt(store, "r")
        equal(sorted(lease.stream for lease in adopted), ["s0", "s1", "s2"])
        equal(all(new.fence > old.fence for new, old in zip(adopted, leases, strict=True)), True)
        equal(await store.append("other", [b"a"], 0, kept.fence), Ack(1))


async def check_one_of_many_adopts(factory: Factory) -> None:
    async with factory(clock := Hands()) as store:
        for number in range(40):
            await produce(store, f"s{number}", "p")
        clock.now += 11
        adopted = await asyncio.gather(*(adopt(store, f"q{n}", 10) for n in range(8)))
        leases: list[Lease] = [lease for some in adopted for lease in some]
        equal((len(leases), len({lease.stream for lease in leases})), (40, 40))


async def check_a_producer_learns_that_it_should_stop(factory: Factory) -> None:
    async with factory(clock := Hands()) as store:
        lease = await produce(store, "s", "p")
        await produce(store, "t", "p")
        await produce(store, "u", "q")
        equal([await store.cancel("s"), await store.cancel("s")], [True, True])
        await store.cancel("u")
        equal(await store.heartbeat("p", 10), Heartbeat(cancelled=["s"]))
        equal(await store.append("s", [b"a"], 0, lease.fence), Ack(1, cancelled=True))
        equal(await store.heartbeat("p", 10), Heartbeat(cancelled=["s"]))
        equal((await store.info("s")).cancelled, True)
        await store.close("s", DONE, 1, lease.fence)
        equal((await store.heartbeat("p", 10), await store.cancel("s")), (Heartbeat(), False))
        clock.now += 11
        adopted = {lease.stream: lease.cancelled for lease in await adopt(store, "r")}
        equal(adopted, {"t": False, "u": True})
        equal(await store.heartbeat("r", 10), Heartbeat(cancelled=["u"]))
        equal(await data_of(store, "s"), [b"a"])


async def check_a_closed_stream_is_not_stopped(factory: Factory) -> None:
    async with factory(Hands()) as store:
        await store.create(NewStream("s"))
        await store.close("s", DONE, 0)
        equal((await store.cancel("s"), (await store.info("s")).cancelled), (False, False))


async def check_a_lock_has_one_holder_until_it_lapses(factory: Factory) -> None:
    async with factory(clock := Hands()) as store:
        claims = await asyncio.gather(*(store.claim("prune", f"p{n}", 10) for n in range(5)))
        equal(sum(claims), 1)
        holder, other = f"p{claims.index(True)}", f"p{claims.index(False)}"
        equal(await store.claim("other", other, 10), True)
        clock.now += 9
        equal(
            (await store.claim("prune", holder, 10), await store.claim("prune", other, 10)),
            (True, False),
        )
        clock.now += 11
        equal(
            (await store.claim("prune", other, 10), await store.claim("prune", holder, 10)),
            (True, False),
        )
        equal(await store.claim("prune", other, 0), True)
        equal(await store.claim("prune", holder, 10), True)
