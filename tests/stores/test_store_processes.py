"""One store and several real processes: killed, revived, racing, waking each other."""

import asyncio
import os
import random
import signal
import stat
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from redis_server import fresh_url

from unbroken.stores import registry
from unbroken.stores.base import End, NewStream
from unbroken.stores.sqlite import SqliteStore

WORKER = Path(__file__).with_name("store_worker.py")
SOON = 30


@pytest.fixture(params=["sqlite", "redis"])
def url(request, tmp_path):
    """An empty store that several processes can open."""
    return fresh_url() if request.param == "redis" else f"sqlite:///{tmp_path}/new/s.db"


@asynccontextmanager
async def worker(*arguments):
    process = await asyncio.create_subprocess_exec(
        sys.executable, WORKER, *map(str, arguments), stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        await process.wait()


async def finished(*arguments):
    """All lines of a worker that ends by itself."""
    async with worker(*arguments) as process:
        out, _ = await asyncio.wait_for(process.communicate(), SOON)
        assert process.returncode == 0
    return out.decode().splitlines()


async def line(process):
    return (await asyncio.wait_for(process.stdout.readline(), SOON)).decode().strip()


async def whole(store, stream):
    records, page = [], await store.read(stream)
    while page.records:
        records += page.records
        page = await store.read(stream, page.next)
    return records


async def follow(store, stream):
    page = await store.read(stream)
    records = page.records
    while not page.closed:
        assert await store.wait(stream, page.next, SOON)
        page = await store.read(stream, page.next)
        records += page.records
    return records


async def free(store, *streams):
    """Create streams that any process can adopt."""
    await store.heartbeat("first", 60)
    for stream in streams:
        await store.create(NewStream(stream), (), "first")
    await store.release_all("first")


async def adopted(store, count):
    """Adopt so many streams, when their processes are dead."""
    leases = []
    while len(leases) < count:
        await store.heartbeat("last", 60)
        leases += await store.adopt("last")
        await asyncio.sleep(0.02)
    return leases


async def killed_producer(url, streams, delay):
    """What was acknowledged to a producer when it was killed."""
    acknowledged = {}
    async with worker("produce", url, f"p{delay}", len(streams)) as process:
        await line(process)
        asyncio.get_running_loop().call_later(delay, os.kill, process.pid, signal.SIGKILL)
        out = await asyncio.wait_for(process.stdout.read(), SOON)
        for words in (one.split() for one in out.decode().split("\n")[:-1]):
            acknowledged[words[0]] = int(words[1])
    return acknowledged


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_producer_loses_nothing_that_was_acknowledged_or_read(url, seed):
    dice, streams = random.Random(seed), [f"s{n}" for n in range(5)]

    async def story():
        async with registry.open_store(url) as store:
            await free(store, *streams)
            followers = [asyncio.ensure_future(follow(store, stream)) for stream in streams]
            acknowledged = {}
            for _ in range(5):
                acknowledged |= await killed_producer(url, streams, dice.uniform(0, 0.15))
                for stream, tail in acknowledged.items():
                    assert (await store.info(stream)).tail >= tail > 0
            for lease in await adopted(store, len(streams)):
                await store.close(lease.stream, End("complete"), lease.tail, lease.fence)
            for stream, seen in zip(streams, await asyncio.gather(*followers), strict=True):
                assert seen == await whole(store, stream)
                expected = [b"%s %d" % (stream.encode(), n + 1) for n in range(len(seen))]
                assert [record.data for record in seen] == expected
                assert [record.offset for record in seen] == [*range(1, len(seen) + 1)]
            assert len(acknowledged) == len(streams)

    asyncio.run(story())


def test_producers_that_fight_for_a_stream_never_mix(url):
    async def story():
        async with registry.open_store(url) as store:
            await free(store, "s")
            fights = (finished("contend", url, f"p{n}", 2) for n in range(4))
            outs = await asyncio.gather(*fights)
            records = await whole(store, "s")
        lines = [one for out in outs for one in out]
        stored = [one.split(" ", 2)[1:] for one in lines if one.startswith("stored")]
        stored = sorted((int(at), record.encode()) for at, record in stored)
        refused = sum(int(one.split()[1]) for one in lines if "refused" in one)
        fences = [int(record.data.split()[1]) for record in records]

        assert stored == [(record.offset, record.data) for record in records]
        assert fences == sorted(fences)
        assert len({record.data.split()[0] for record in records}) > 1
        assert refused > 0

    asyncio.run(story())


def test_a_key_makes_one_stream_over_all_processes(url):
    async def story():
        outs = await asyncio.gather(*(finished("create", url, f"s{n}", "k") for n in range(6)))
        async with registry.open_store(url) as store:
            streams = (await store.find("ann")).streams

        assert sorted(out[0].split()[1] for out in outs) == ["False"] * 5 + ["True"]
        assert {out[0].split()[0] for out in outs} == {info.id for info in streams}
        assert streams[0].tail == 1

    asyncio.run(story())


def test_processes_together_create_no_more_than_a_quota_allows(url):
    async def story():
        outs = await asyncio.gather(*(finished("spend", url, f"p{n}-", 20, 37) for n in range(3)))
        async with registry.open_store(url) as store:
            assert await store.usage(["ann"]) == [{"requests": 37}]
            assert len((await store.find(None)).streams) == 37
        assert sum(int(out[0]) for out in outs) == 37

    asyncio.run(story())


def test_processes_that_adopt_and_release_lose_no_stream_and_share_none(url):
    streams = [f"s{n}" for n in range(40)]

    async def story():
        async with registry.open_store(url) as store:
            await free(store, *streams)
            outs = await asyncio.gather(*(finished("hand_over", url, f"p{n}", 1) for n in range(3)))
        held = [stream for out in outs for stream in out[0].split()]
        assert sorted(held) == sorted(streams)

    asyncio.run(story())


def test_a_follower_in_another_process_is_woken(url):
    async def story():
        async with registry.open_store(url) as store:
            await store.create(NewStream("s"))
            async with worker("follow", url, "s") as process:
                lines = [await line(process)]
                for at in range(5):
                    await store.append("s", [b"%d" % at], at)
                    lines.append(await line(process))
                await store.close("s", End("complete"), 5)
                lines.append(await line(process))

        assert lines == ["ready 0", "1 0", "2 1", "3 2", "4 3", "5 4", "end complete"]

    asyncio.run(story())


def test_a_producer_in_another_process_is_asked_to_stop(url):
    async def story():
        async with registry.open_store(url) as store:
            await free(store, "s")
            async with worker("stop", url) as process:
                ready = await line(process)
                assert await store.cancel("s")
                assert [ready, await line(process)] == ["ready", "stopped"]
            assert (await store.read("s")).end == End("cancelled")

    asyncio.run(story())


def test_what_another_process_deleted_is_gone_for_those_who_follow_it(url):
    async def story():
        async with registry.open_store(url) as here, registry.open_store(url) as there:
            await here.create(NewStream("s"), [b"a"])
            assert not await here.wait("s", 1, 0.01)
            await here.append("s", [b"b"], 1)
            wait = asyncio.ensure_future(here.wait("s", 2, SOON))
            await asyncio.sleep(0)
            await there.delete("s")
            (gone,) = await asyncio.gather(wait, return_exceptions=True)
            assert type(gone).__name__ == "StreamMissing"

    asyncio.run(story())


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_no_other_user_may_read_the_files(tmp_path):
    place = tmp_path / "new"

    async def story():
        async with SqliteStore(str(place / "s.db")) as store:
            await store.create(NewStream("s"))
            assert await store.read("s")
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()}
        assert modes == {"s.db": 0o600, "s.db-wal": 0o600, "s.db-shm": 0o600}
        assert [path.name for path in place.iterdir()] == ["s.db"]

    asyncio.run(story())
