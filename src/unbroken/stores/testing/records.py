"""Checks of streams and their records."""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

from unbroken import errors
from unbroken.stores.base import (
    PAGE_BYTES,
    Ack,
    End,
    Factory,
    Lease,
    NewStream,
    Offset,
    Page,
    Record,
)
from unbroken.stores.testing.tools import (
    DONE,
    SOON,
    Broken,
    Hands,
    data_of,
    equal,
    follow,
    refused,
    rest,
)

# Creating


async def check_a_new_stream_is_open_and_empty(factory: Factory) -> None:
    async with factory(clock := Hands()) as store:
        created = await store.create(NewStream("s", "ann", {"title": "hi"}))
        equal((created.fresh, created.lease), (True, None))
        equal(created.stream, info := await store.info("s"))
        equal((info.id, info.owner, dict(info.labels)), ("s", "ann", {"title": "hi"}))
        equal((info.tail, info.size, info.end, info.cancelled), (0, 0, None, False))
        equal((info.created, info.changed), (clock.now, clock.now))
        equal(await store.read("s"), Page([], 0))


async def check_stream_records_and_lease_are_made_in_one_step(factory: Factory) -> None:
    async with factory(Hands()) as store:
        await store.heartbeat("p", 10)
        created = await store.create(NewStream("s"), [b"a", b"bc"], "p")
        equal(created.lease, Lease("s", "p", 1, 2))
        equal((created.stream.tail, created.stream.size, created.stream.producer), (2, 3, "p"))
        equal(await store.read("s"), Page([Record(1, b"a"), Record(2, b"bc")], 2))


async def check_the_same_key_gives_the_same_stream(factory: Factory) -> None:
    async with factory(Hands()) as store:
        first = await store.create(NewStream("s", "ann", key="k"), [b"a"], "p")
        again = await store.create(NewStream("t", "ann", key="k"), [b"b"], "q")
        equal((again.fresh, again.lease, again.stream), (False, None, first.stream))
        await refused(errors.StreamMissing, store.info("t"))
        other = await store.create(NewStream("t", "bob", key="k"))
        equal((other.fresh, other.stream.id), (True, "t"))


async def check_the_same_id_is_the_same_stream_or_taken(factory: Factory) -> None:
    async with factory(Hands()) as store:
        await store.create(NewStream("s", "ann"), [b"a"])
        equal((await store.create(NewStream("s", "ann"), [b"b"])).fresh, False)
        await refused(errors.StoreError, store.create(NewStream("s", "bob")))
        equal(await data_of(store, "s"), [b"a"])


async def check_one_of_many_creates_with_a_key_wins(factory: Factory) -> None:
    async with factory(Hands()) as store:
        new = [store.create(NewStream(f"s{n}", "ann", key="k")) for n in range(20)]
        created = await asyncio.gather(*new)
        equal(sum(one.fresh for one in created), 1)
        equal(len({one.stream.id for one in created}), 1)


async def check_half_a_character_is_refused_and_harms_no_other(factory: Factory) -> None:
    half = "x\ud800"  # half a surrogate pair, as JSON may bring it: no UTF-8 says it
    async with factory(Hands()) as store:
        wrong = [NewStream(half), NewStream("s", half), NewStream("s", key=half)]
        wrong += [NewStream("s", labels={"t": half}), NewStream("s", labels={half: "t"})]
        calls = [refused(errors.StoreError, store.create(new)) for new in wrong]
        good = [store.create(NewStream(f"s{n}", key=f"k{n}")) for n in range(5)]
        created = (await asyncio.gather(*calls, *good))[len(calls) :]
        equal([one.fresh for one in created if one], [True] * 5)
        for call in (store.info(half), store.append(half, [b"a"], 0), store.wait(half, 0, SOON)):
            await refused(errors.StoreError, call)


# Appending


async def check_records_get_rising_offsets(factory: Factory) -> None:
    async with factory(Hands()) as store:
        await store.create(NewStream("s"))
        equal(await store.append("s", [b"a", b"b"], 0), Ack(2))
        equal(await store.append("s", [b"c"], 2), Ack(3))
        expected = [Record(1, b"a"), Record(2, b"b"), Record(3, b"c")]
        equal(await store.read("s"), Page(expected, 3))
        equal((await store.info("s")).size, 3)


async def check_any_bytes_come_back(factory: Factory) -> None:
    async with factory(Hands()) as store:
        await store.create(NewStream("s"))
        odd = [b"", b"\0", bytes(range(256)), "ключ\r\n".encode(), b"", b"x" * 3_000_000, b""]
        await store.append("s", odd, 0)
        await store.append("s", [b""], len(odd))
        equal(await data_of(store, "s") == [*odd, b""], True)


async def check_only_the_tail_can_be_appended_to(factory: Factory) -> None:
    async with factory(Hands()) as store:
        await store.create(NewStream("s"), [b"a", b"b"])
        for at in (0, 1, 3, -1):
            await refused(errors.OffsetConflict, store.close("s", DONE, at, 0, [b"x"]))
        equal(await store.read("s"), Page([Record(1, b"a"), Record(2, b"b")], 2))


async def check_one_of_many_appends_at_an_offset_wins(factory: Factory) -> None:
    async with factory(Hands()) as store:
        await store.create(NewStream("s"))
        calls = [store.append("s", [b"%d" % n], 0) for n in range(20)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        lost = [result for result in results if isinstance(result, errors.OffsetConflict)]
        equal((len(lost), (await store.info("s")).tail), (19, 1))


async def check_no_records_ask_who_is_the_producer(factory: Factory) -> None:
    async with factory(Hands()) as store:
        await store.create(NewStream("s"), [b"a"])
        equal(await store.append("s", [], 1), Ack(1))
        await refused(errors.OffsetConflict, store.append("s", [], 1, fence=1))


async def check_what_is_not_there_is_missing(factory: Factory) -> None:
    async with factory(Hands()) as store:
        calls: Sequence[Awaitable[Any]] = (
            store.append("s", [b"a"], 0),
            store.close("s", DONE, 0),
            store.read("s"),
            store.wait("s", 0, SOON),
            store.info("s"),
            store.delete("s"),
            store.cancel("s"),
        )
        for call in calls:
            await refused(errors.StreamMissing, call)


# Closing


async def check_closed_is_final(factory: Factory) -> None:
    async with factory(clock := Hands()) as store:
        await store.create(NewStream("s"), [b"a"])
        clock.now += 5
        equal(await store.close("s", DONE, 1), Ack(1))
        equal(await store.read("s"), Page([Record(1, b"a")], 1, DONE))
        equal(await store.read("s", 1), Page([], 1, DONE))
        info = await store.info("s")
        equal((info.end, info.changed - info.created, info.size), (DONE, 5, 1))
        await refused(errors.StreamClosed, store.append("s", [b"b"], 1))
        equal(await store.close("s", DONE, 1), Ack(1))
        await refused(errors.StreamClosed, store.close("s", DONE, 1, 0, [b"b"]))
        await refused(errors.StreamClosed, store.close("s", End("failed"), 1))


async def check_the_last_records_and_the_end_come_together(factory: Factory) -> None:
    async with factory(Hands()) as store:
        await store.create(NewStream("s"))
        equal(await store.close("s", DONE, 0, 0, [b"a", b"b"]), Ack(2))
        equal(await store.read("s", 0, 1), Page([Record(1, b"a")], 1))
        equal(await store.read("s", 1, 1), Page([Record(2, b"b")], 2, DONE))


# Reading


async def check_pages_join_to_the_whole(factory: Factory) -> None:
    async with factory(Hands()) as store:
        data = [b"%d" % n for n in range(100)]
        await store.create(NewStream("s"), data[:30])
        for at in range(30, 100, 7):
            await store.append("s", data[at : at + 7], at)
        for limit in (1, 3, 7, 99, 100, 101):
            page = await rest(store, "s", 0, limit)
            equal([record.data for record in page.records], data)
        for after in range(101):
            records = (await store.read("s", after)).records
            equal(records, [Record(at + 1, data[at]) for at in range(after, 100)])


async def check_offsets_that_are_not_there_are_unknown(factory: Factory) -> None:
    async with factory(Hands()) as store:
        await store.create(NewStream("s"), [b"a"])
        for after in (2, -1, 1 << 80):
            await refused(errors.OffsetUnknown, store.read("s", after))


async def check_a_page_is_bounded(factory: Factory) -> None:
    async with factory(Hands()) as store:
        half = b"x" * (PAGE_BYTES * 2 // 3)
        await store.create(NewStream("s"), [half, half * 2, b""])
        await store.append("s", [half], 3)
        page = await store.read("s")
        equal((len(page.records), page.next), (1, 1))
        equal(
            [len(record.data) for record in (await store.read("s", 1)).records][:1], [len(half) * 2]
        )
        equal([record.offset for record in (await rest(store, "s")).records], [1, 2, 3, 4])


# Waiting


async def check_waiting_ends_at_once_if_there_is_more(factory: Factory) -> None:
    async with factory(Hands()) as store:
        await store.create(NewStream("s"), [b"a"])
        equal(await store.wait("s", 0, SOON), True)
        equal(await store.wait("s", 1, 0.01), False)
        await store.close("s", DONE, 1)
        equal(await store.wait("s", 1, SOON), True)


async def check_followers_are_woken(factory: Factory) -> None:
    async with factory(Hands()) as store:
        await store.create(NewStream("s"))
        for at, end in ((0, None), (1, None), (2, DONE)):
            waits = [asyncio.ensure_future(store.wait("s", at, SOON)) for _ in range(5)]
            await asyncio.sleep(0.02)
            waits.pop().cancel()  # one that leaves takes no other along
            await (store.close("s", end, at) if end else store.append("s", [b"x"], at))
            equal(await asyncio.gather(*waits), [True] * 4)


async def check_any_number_of_streams_can_be_followed(factory: Factory) -> None:
    async with factory(Hands()) as store:
        names = [f"s{number}" for number in range(1100)]  # a store may keep 1024 in mind
        await asyncio.gather(*(store.create(NewStream(name)) for name in names))
        waits = asyncio.gather(*(store.wait(name, 0, 6 * SOON) for name in names))
        await asyncio.sleep(0.02)
        await asyncio.gather(*(store.append(name, [b"x"], 0) for name in names))
        try:
            equal(await asyncio.wait_for(waits, SOON), [True] * len(names))
        except TimeoutError:
            raise Broken("some followers were not woken") from None


async def check_every_follower_sees_each_record_once_in_order(factory: Factory) -> None:
    async with factory(Hands()) as store:
        await store.create(NewStream("s"))

        async def follower(after: Offset) -> list[Record]:
            return [record async for record in follow(store, "s", after)]

        followers = [asyncio.ensure_future(follower(0)) for _ in range(3)]
        for at in range(0, 90, 3):
            await store.append("s", [b"%d" % n for n in range(at, at + 3)], at)
        late = asyncio.ensure_future(follower(45))
        await store.close("s", DONE, 90)
        whole = [Record(n + 1, b"%d" % n) for n in range(90)]
        equal(await asyncio.gather(*followers, late), [whole] * 3 + [whole[45:]])


async def check_a_deleted_stream_wakes_its_followers(factory: Factory) -> None:
    async with factory(Hands()) as store:
        await store.create(NewStream("s", key="k"), [b"a"])
        wait = asyncio.ensure_future(store.wait("s", 1, SOON))
        await asyncio.sleep(0.02)
        await store.delete("s")
        await refused(errors.StreamMissing, wait)
        await refused(errors.StreamMissing, store.read("s"))
        equal((await store.create(NewStream("t", key="k"))).fresh, True)
