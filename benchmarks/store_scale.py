"""What hundreds of open streams and thousands of old ones cost a store.

    python benchmarks/store_scale.py [memory:] [sqlite] [redis://localhost] [--open 400]
        [--old 5000] [--before DIR] [--rounds 3]

`--before` is the `src` directory of an older version, which is measured in the same run, round by
round, so that a busy machine hits both alike: it has a lease for each stream instead of one
heartbeat, prunes in one call, and adopts stream by stream. The median round is shown:

    create     seconds for a burst of streams, all at once
    beat       milliseconds to prove that their process lives (once each half second)
    adopt      seconds until another process has all of them
    release    seconds to hand all over
    old        seconds to delete the old streams; `append`: the worst append meanwhile, in ms
    search     seconds of a search without a hit over the old streams; `info`: the worst
               `info` while six of them run, in ms
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from unbroken.stores import registry
from unbroken.stores.base import End, NewStream, Search

COLUMNS = ("create", "beat", "adopt", "release", "search", "info", "old", "append")


class Stopwatch:
    """Seconds within a `with`."""

    def __enter__(self):
        self._began = time.perf_counter()
        return self

    def __exit__(self, *_):
        self.seconds = time.perf_counter() - self._began


class Leases:
    """The version with a lease for each stream."""

    def __init__(self, store):
        self.store, self.leases = store, {}

    async def create(self, new, process):
        made = await self.store.create(new, [b"question"], process, 0.5)
        self.leases[new.id] = made.lease

    async def beat(self, _process):
        renewed = (self.store.renew(lease, 0.5) for lease in self.leases.values())
        await asyncio.gather(*renewed)

    async def adopt(self, process):
        while orphans := await self.store.orphans():
            for orphan in orphans:
                self.leases[orphan.id] = await self.store.acquire(orphan.id, process, 60)

    async def release(self, _process):
        for lease in self.leases.values():
            await self.store.release(lease)

    async def keep(self, stream):
        await self.store.create(NewStream(stream), (), "r", 600)

    async def prune(self):
        await self.store.prune(age=1)


class Heartbeats:
    """The version with one heartbeat for each process."""

    def __init__(self, store):
        self.store, self._alive = store, set()

    async def create(self, new, process):
        if process not in self._alive:
            self._alive.add(process)
            await self.store.heartbeat(process, 0.5)
        await self.store.create(new, [b"question"], process)

    async def beat(self, process):
        await self.store.heartbeat(process, 0.5)

    async def adopt(self, process):
        await self.store.heartbeat(process, 60)
        while await self.store.adopt(process, 20):
            pass

    async def release(self, process):
        await self.store.release_all(process)

    async def keep(self, stream):
        await self.store.heartbeat("r", 600)
        await self.store.create(NewStream(stream), (), "r")

    async def prune(self):
        while (await self.store.prune(age=1)).more:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def closed(store, number):
    labels = {"model": "sim/demo", "question": "what is " * 10}
    await store.create(NewStream(f"old{number}", "ann", labels), [b"x" * 200] * 5)
    await store.close(f"old{number}", End("complete"), 5)


async def fill(store, count):
    for at in range(0, count, 500):
        await asyncio.gather(*(closed(store, n) for n in range(at, min(at + 500, count))))
    await asyncio.sleep(1.1)  # they are old then


async def worst_while(call, work):
    """The longest of many calls, in milliseconds, while some work is done."""
    worst, task = 0.0, asyncio.ensure_future(work)
    while not task.done():
        with Stopwatch() as watch:
            await call()
        worst = max(worst, watch.seconds)
        await asyncio.sleep(0.002)
    await task
    return worst * 1e3


async def measure(url, open_, old):
    found = {}
    async with registry.open(url) as store:
        version = (Heartbeats if hasattr(store, "heartbeat") else Leases)(store)
        with Stopwatch() as watch:
            await asyncio.gather(*(version.create(NewStream(f"s{n}"), "p") for n in range(open_)))
        found["create"] = watch.seconds
        beats = []
        for _ in range(5):
            with Stopwatch() as watch:
                await version.beat("p")
            beats.append(watch.seconds * 1e3)
        found["beat"] = statistics.median(beats)
        await asyncio.sleep(0.6)
        with Stopwatch() as watch:
            await version.adopt("q")
        found["adopt"] = watch.seconds
        with Stopwatch() as watch:
            await version.release("q")
        found["release"] = watch.seconds
        found |= await upkeep(store, version, old)
    return found


async def upkeep(store, version, old):
    found, at = {}, 0
    await fill(store, old)
    with Stopwatch() as watch:
        await search(store)
    found["search"] = watch.seconds
    six = asyncio.gather(*(search(store) for _ in range(6)))
    found["info"] = await worst_while(lambda: store.info("s0"), six)
    await version.keep("live")

    async def append():
        nonlocal at
        at = (await store.append("live", [b"x" * 100], at, 1)).tail

    with Stopwatch() as watch:
        found["append"] = await worst_while(append, version.prune())
    return found | {"old": watch.seconds}


async def search(store):
    """To the end, page by page, as a caller does who wants to know."""
    found = await store.find("ann", Search(text="zzz"))
    while found.next is not None:
        found = await store.find("ann", Search(text="zzz", before=found.next))


def child(source, kind, given):
    """One round in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        redis = f"{kind}?prefix=b{os.getpid()}-{time.time_ns()}"
        url = {"sqlite": f"sqlite:///{folder}/s.db", "memory:": kind}.get(kind, redis)
        command = [sys.executable, __file__, "--child", url]
        command += ["--open", str(given.open), "--old", str(given.old)]
        environment = os.environ | ({"PYTHONPATH": source} if source else {})
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kinds", nargs="*", default=["memory:", "sqlite"])
    parser.add_argument("--open", type=int, default=400)
    parser.add_argument("--old", type=int, default=5000)
    parser.add_argument("--before")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child")
    given = parser.parse_args()
    if given.child:
        print(json.dumps(asyncio.run(measure(given.child, given.open, given.old))))
        return
    sources = {"": ""} | ({"before": str(Path(given.before).resolve())} if given.before else {})
    rounds = {(kind, name): [] for kind in given.kinds for name in sources}
    for _ in range(given.rounds):
        for kind, name in rounds:
            rounds[kind, name].append(child(sources[name], kind, given))
    print(f"{'':24}" + "".join(f"{column:>9}" for column in COLUMNS))
    for (kind, name), found in rounds.items():
        medians = (statistics.median(one[column] for one in found) for column in COLUMNS)
        print(f"{kind[:14] + ' ' + name:24}" + "".join(f"{value:9.3f}" for value in medians))


if __name__ == "__main__":
    main()
