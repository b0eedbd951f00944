"""What is the memory store's own: its bounds."""

import asyncio

import pytest

from unbroken.errors import StoreError
from unbroken.stores.base import End, NewStream, Search
from unbroken.stores.memory import RECORD_COST, STREAM_COST, MemoryStore


async def names(store):
    return [info.id for info in (await store.find(None, Search())).streams]


def test_the_streams_closed_first_make_room():
    async def story():
        async with MemoryStore(limit=10 * STREAM_COST) as store:
            for name in ("a", "b", "c"):
                await store.create(NewStream(name, key=name), [b"x" * STREAM_COST])
            for name in ("b", "a"):
                await store.close(name, End("complete"), 1)
            await store.create(NewStream("d"), [b"x" * 4 * STREAM_COST])
            return await names(store), (await store.create(NewStream("e", key="b"))).fresh

    assert asyncio.run(story()) == (["d", "c", "a"], True)


def test_open_streams_are_never_dropped():
    async def story():
        async with MemoryStore(limit=4 * STREAM_COST) as store:
            await store.create(NewStream("a"), [b"x" * STREAM_COST])
            with pytest.raises(StoreError, match="full of open streams"):
                await store.append("a", [b"x" * 3 * STREAM_COST], 1)
            with pytest.raises(StoreError, match="full of open streams"):
                await store.append("a", [b""] * (3 * STREAM_COST // RECORD_COST), 1)
            return await names(store), (await store.info("a")).tail

    assert asyncio.run(story()) == (["a"], 1)


def test_deleting_gives_the_room_back():
    async def story():
        async with MemoryStore(limit=3 * STREAM_COST) as store:
            for _ in range(10):
                await store.create(NewStream("a"), [b"x" * STREAM_COST])
                await store.delete("a")
            return store._cost

    assert asyncio.run(story()) == 0


def test_a_full_store_takes_an_end_but_no_records():
    async def story():
        async with MemoryStore(limit=4 * STREAM_COST) as store:
            await store.create(NewStream("a"), [b"x" * STREAM_COST])
            with pytest.raises(StoreError, match="full of open streams"):
                await store.close("a", End("complete"), 1, 0, [b"x" * 3 * STREAM_COST])
            await store.close("a", End("failed"), 1)
            return (await store.info("a")).end

    assert asyncio.run(story()) == End("failed")
