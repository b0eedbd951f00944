"""What the tests of stores run in processes of their own: `store_worker.py WORK URL ...`.

What is acknowledged is printed at once, so that the killer knows what must survive.
"""

import asyncio
import random
import sys
import time

from unbroken.errors import OffsetConflict, StreamClosed
from unbroken.stores import registry
from unbroken.stores.base import End, NewStream


def say(*words):
    print(*words, flush=True)


async def produce(url, name, *streams):
    """Append to all streams at once until killed, each record saying where it should stand."""
    async with registry.open(url) as store:

        async def one(stream):
            lease = await store.acquire(stream, name, 60)
            at = lease.tail
            while True:
                count = random.randint(1, 3)
                records = [b"%s %d" % (stream.encode(), at + n) for n in range(1, count + 1)]
                at = (await store.append(stream, records, at, lease.fence)).tail
                say(stream, at)

        await asyncio.gather(*map(one, streams))


async def contend(url, name, stream, seconds):
    """Fight for one stream: take over what has run out, sleep too long, come back and try."""
    dice, until, refused = random.Random(name), time.monotonic() + float(seconds), 0
    async with registry.open(url) as store:
        while time.monotonic() < until:
            lease = await store.acquire(stream, name, 0.02)
            if lease is None:
                await asyncio.sleep(dice.uniform(0, 0.02))
                continue
            at = lease.tail
            try:
                for number in range(dice.randint(1, 6)):
                    await asyncio.sleep(dice.choice([0, 0, 0.01, 0.06]))
                    record = b"%s %d %d" % (name.encode(), lease.fence, number)
                    at = (await store.append(stream, [record], at, lease.fence)).tail
                    say("stored", at, record.decode())
            except OffsetConflict:
                refused += 1
    say("refused", refused)


async def follow(url, stream):
    """Print each record when it comes."""
    async with registry.open(url) as store:
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
    async with registry.open(url) as store:
        created = await store.create(NewStream(name, "ann", key=key), [b"request"], name, 10)
        say(created.stream.id, created.fresh)


async def stop(url, stream):
    """Produce until somebody, anywhere, asks to stop."""
    async with registry.open(url) as store:
        lease = await store.acquire(stream, "worker", 60)
        say("ready")
        asked = await store.cancelled(stream, 20)
        try:
            await store.close(stream, End("cancelled"), lease.tail, lease.fence)
        except StreamClosed:
            say("closed already")
        say(asked)


if __name__ == "__main__":
    _, work, *arguments = sys.argv
    asyncio.run(globals()[work](*arguments))
