"""Work that tests of stores run in processes of their own: `store_worker.py WORK URL ...`.

What is acknowledged is printed at once, so that a test that kills it knows what must survive.
"""

import asyncio
import random
import sys
import time

from unbroken.errors import OffsetConflict
from unbroken.stores import registry
from unbroken.stores.base import End, NewStream
from unbroken.stores.counters import Charge, QuotaReached


def say(*words):
    print(*words, flush=True)


async def live(store, name, seconds):
    """Send heartbeats for as long as the process lives."""
    while True:
        await store.heartbeat(name, seconds)
        await asyncio.sleep(seconds / 4)


async def adopt(store, name, count):
    """Adopt until there are so many streams."""
    leases = []
    while len(leases) < count:
        leases += await store.adopt(name)
        await asyncio.sleep(0.01)
    return leases


async def produce(url, name, count):
    """Adopt so many streams and append to all until killed; records say where they stand."""
    async with registry.open_store(url) as store:
        await store.heartbeat(name, 0.3)
        beats = asyncio.create_task(live(store, name, 0.3))

        async def one(lease):
            at, stream = lease.tail, lease.stream
            while True:
                number = random.randint(1, 3)
                records = [b"%s %d" % (stream.encode(), at + n) for n in range(1, number + 1)]
                at = (await store.append(stream, records, at, lease.fence)).tail
                say(stream, at)

        await asyncio.gather(beats, *map(one, await adopt(store, name, int(count))))


async def contend(url, name, seconds):
    """Fight for one stream: adopt it, live too shortly, come back and go on where no other did."""
    dice, until, refused = random.Random(name), time.monotonic() + float(seconds), 0
    async with registry.open_store(url) as store:
        while time.monotonic() < until:
            beat = await store.heartbeat(name, 0.02)
            fences = {lease.stream: lease.fence for lease in await store.adopt(name, 1)}
            for stream, fence in (beat.held | fences).items():
                at = (await store.info(stream)).tail
                try:
                    for number in range(dice.randint(1, 6)):
                        await asyncio.sleep(dice.choice([0, 0, 0.01, 0.06]))
                        record = b"%s %d %d" % (name.encode(), fence, number)
                        at = (await store.append(stream, [record], at, fence)).tail
                        say("stored", at, record.decode())
                except OffsetConflict:
                    refused += 1
            await asyncio.sleep(dice.uniform(0.02, 0.04))
    say("refused", refused)


async def spend(url, name, count, limit):
    """Create streams, all at once, for as long as a quota lasts."""
    charges = [Charge("ann", {"requests": 1}, limits={"requests": int(limit)})]
    async with registry.open_store(url) as store:
        calls = [store.create(NewStream(f"{name}{n}"), charges=charges) for n in range(int(count))]
        made = await asyncio.gather(*calls, return_exceptions=True)
    say(sum(not isinstance(one, QuotaReached) for one in made))


async def hand_over(url, name, seconds):
    """Adopt and release everything, again and again; then say what was adopted in the end."""
    until = time.monotonic() + float(seconds)
    async with registry.open_store(url) as store:
        while time.monotonic() < until:
            await store.heartbeat(name, 30)
            await store.adopt(name, 50)
            await asyncio.sleep(0.005)
            await store.release_all(name)
        await store.heartbeat(name, 30)
        say(*[lease.stream for lease in await store.adopt(name, 50)])


async def follow(url, stream):
    """Print each record when it comes."""
    async with registry.open_store(url) as store:
        page = await store.read(stream)
        say("ready", len(page.records))
        while not page.closed:
            await store.wait(stream, page.next, 20)
            page = await store.read(stream, page.next)
            for record in page.records:
                say(record.offset, record.data.decode())
        say("end", page.end.state)


async def create(url, name, key):
    """Create a stream with a key, as others do at the same time."""
    async with registry.open_store(url) as store:
        await store.heartbeat(name, 10)
        created = await store.create(NewStream(name, "ann", key=key), [b"request"], name)
        say(created.stream.id, created.fresh)


async def stop(url):
    """Produce until another process asks to stop."""
    async with registry.open_store(url) as store:
        await store.heartbeat("worker", 60)
        [lease] = await adopt(store, "worker", 1)
        say("ready")
        while not (await store.heartbeat("worker", 60)).cancelled:
            await asyncio.sleep(0.01)
        await store.close(lease.stream, End("cancelled"), lease.tail, lease.fence)
        say("stopped")


if __name__ == "__main__":
    _, work, *arguments = sys.argv
    asyncio.run(globals()[work](*arguments))
