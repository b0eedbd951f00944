"""What answers in Redis cost: CPU of Redis and of us an event, memory, round trips, latency.

    python benchmarks/redis_store.py [--streams 200] [--rate 50] [--seconds 10] [--bytes 100]

Starts a Redis of its own for each line (the one that the tests use), one process that produces
all streams, and where it says so processes that follow each of them. CPU of Redis is what its INFO
says, ours that of the process; both are for one event of one stream. The events of a stream come
one by one at the rate; those that come due while an append is under way go with the next.
"""

import argparse
import asyncio
import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.append(str(Path(__file__).resolve().parent.parent / "tests" / "stores"))

from redis_server import RedisServer

from unbroken.stores.base import End, NewStream
from unbroken.stores.redis import from_url

KINDS = {  # appendfsync (none: nothing is written to disk), processes that follow, batch window in ms
    "no file": ("", 0, 2),
    "everysec": ("everysec", 0, 2),
    "always": ("always", 0, 2),
    "always, one event a trip": ("always", 0, 0),
    "always, 50 ms": ("always", 0, 50),
    "always, 100 ms": ("always", 0, 100),
    "always, a follower elsewhere": ("always", 1, 2),
    "always, 100 ms, a follower elsewhere": ("always", 1, 100),
}


class Measured(msgspec.Struct):
    """One process of ours."""

    cpu: float  # microseconds an event
    events: int
    trips: float = 0.0  # round trips an event
    delay: list[float] = []  # ms, p50 and p99: until it was durable, or had come


def percentiles(values):
    """p50 and p99 in milliseconds."""
    ranked = sorted(values) or [0.0]
    return [ranked[len(ranked) // 2] * 1e3, ranked[len(ranked) * 99 // 100] * 1e3]


def names(given):
    """Of all streams."""
    return [f"ans_{number:018}" for number in range(given.streams)]


def trips(store):
    """Round trips so far."""
    return sum(node.writes.round_trips + node.reads.round_trips for node in store._client.nodes.all)


async def produce(store, given):
    """All streams, each at its rate."""
    delays = []
    total, step = int(given.seconds * given.rate), 1 / given.rate
    cpu, begun, start = time.process_time(), trips(store), time.monotonic() + 0.2

    async def one(number, name):
        begin, at = start + step * number / given.streams, 0
        while at < total:
            await asyncio.sleep(max(0.0, begin + at * step - time.monotonic()))
            now, wall = time.monotonic(), time.time()
            count = max(1, min(total - at, int((now - begin) / step) + 1 - at))
            data = b"%.6f " % wall + b"x" * (given.bytes - 18)
            at = (await store.append(name, [data] * count, at, 1)).tail
            delays.extend([time.monotonic() - now] * count)
        await store.close(name, End("complete"), at, 1)

    await asyncio.gather(*(one(*item) for item in enumerate(names(given))))
    cpu, events = time.process_time() - cpu, len(delays)
    return Measured(
        cpu / events * 1e6, events, (trips(store) - begun) / events, percentiles(delays)
    )


async def follow(store, given):
    """All streams, to their ends."""
    delays, cpu = [], time.process_time()

    async def one(name):
        page = await store.read(name)
        while not page.closed:
            await store.wait(name, page.next, 30)
            page = await store.read(name, page.next)
            now = time.time()
            delays.extend(now - float(record.data[:17]) for record in page.records)

    await asyncio.gather(*map(one, names(given)))
    cpu = time.process_time() - cpu
    return Measured(cpu / len(delays) * 1e6, len(delays), 0.0, percentiles(delays))


WORK = {"produce": produce, "follow": follow}


async def work(given):
    """What a process of ours does."""
    async with from_url(given.url) as store:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        print(msgspec.json.encode(await WORK[given.work](store, given)).decode())


def child(word, url):
    """A process of ours; it begins at a line of input."""
    command = [sys.executable, __file__, *sys.argv[1:], "--work", word, "--url", url]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    return process


async def told(server, *sections):
    """What INFO says."""
    async with from_url(server.url) as store:
        answers = [await store._client.each("INFO", section) for section in sections]
    lines = b"\n".join(answer[0] for answer in answers).decode().split()
    return {name: value for name, _, value in (line.partition(":") for line in lines)}


def redis_cpu(server):
    """Seconds."""
    found = asyncio.run(told(server, "cpu"))
    return float(found["used_cpu_user"]) + float(found["used_cpu_sys"])


async def fill(server, given):
    """The streams, with a lease each."""
    async with from_url(server.url) as store:
        for name in names(given):
            await store.create(NewStream(name, labels={"title": "Cats"}), (), "p")


def load(kind, given):
    """One line of the table."""
    fsync, followers, window = KINDS[kind]
    options = ("--appendonly", "yes", "--appendfsync", fsync) if fsync else ()
    with tempfile.TemporaryDirectory() as folder, RedisServer(folder, *options) as server:
        asyncio.run(fill(server, given))
        processes = [child("follow", server.url) for _ in range(followers)]
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        time.sleep(1)
        before = redis_cpu(server)
        processes.insert(0, child("produce", f"{server.url}?batch_window={window / 1000}"))
        outs = [process.communicate("\n")[0] for process in processes[:1]]
        outs += [process.communicate()[0] for process in processes[1:]]
        spent = redis_cpu(server) - before
    found = [msgspec.json.decode(out, type=Measured) for out in outs]
    producer, readers = found[0], found[1:]
    cells = [f"{spent / producer.events * 1e6:.1f}", f"{producer.cpu:.1f}"]
    cells.append(f"{sum(r.cpu for r in readers) / len(readers):.1f}" if readers else "")
    cells.append(f"{producer.trips:.2f}")
    cells.append("{:.1f}, {:.1f}".format(*producer.delay))
    cells.append("{:.1f}, {:.1f}".format(*readers[0].delay) if readers else "")
    print(f"| {kind} | " + " | ".join(cells) + " |", flush=True)


async def memory(server, count, records, size):
    """Bytes a stream, bytes an event, bytes a stream that is closed."""
    used = [int((await told(server, "memory"))["used_memory"])]
    async with from_url(server.url) as store:
        streams = [f"ans_{os.urandom(9).hex()}" for _ in range(count)]
        for name in streams:
            await store.create(NewStream(name, "key_" + "0" * 40, {"title": "Cats"}), (), "p" * 16)
        used.append(int((await told(server, "memory"))["used_memory"]))
        for at in range(0, records, 5):
            await asyncio.gather(*(store.append(n, [b"x" * size] * 5, at, 1) for n in streams))
        used.append(int((await told(server, "memory"))["used_memory"]))
        final = End("complete", b"x" * 250)
        await asyncio.gather(*(store.close(name, final, records, 1) for name in streams))
        used.append(int((await told(server, "memory"))["used_memory"]))
    each = [(after - before) / count for before, after in itertools.pairwise(used)]
    print(
        f"memory: {each[0]:.0f} bytes a stream, {each[1] / records:.0f} an event of {size} bytes, "
        f"{each[2]:.0f} for its end"
    )


async def upkeep(server, count):
    """Microseconds of Redis for the other calls."""
    async with from_url(server.url) as store:
        streams = [f"u{number}" for number in range(count)]
        for name in streams:
            await store.create(NewStream(name), [b"x" * 300], "p")
        calls = {
            "heartbeat": [lambda: store.heartbeat("p", 60) for _ in streams],
            "info": [lambda name=name: store.info(name) for name in streams],
            "page of one record": [lambda name=name: store.read(name) for name in streams],
            "look for orphans": [lambda: store.adopt("p") for _ in streams],
            "head (a new follower)": [lambda name=name: store.wait(name, 1, 0) for name in streams],
        }
        for what, made in calls.items():
            before = await told(server, "cpu")
            ours = time.process_time()
            await asyncio.gather(*(call() for call in made))
            ours = time.process_time() - ours
            after = await told(server, "cpu")
            spent = sum(
                float(after[name]) - float(before[name])
                for name in ("used_cpu_user", "used_cpu_sys")
            )
            print(f"{what}: Redis {spent / count * 1e6:.1f} us, we {ours / count * 1e6:.1f} us")


def main():
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--rate", type=float, default=50)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--bytes", type=int, default=100)
    parser.add_argument("--work", default="")
    parser.add_argument("--url", default="")
    given = parser.parse_args()
    if given.work:
        asyncio.run(work(given))
        return
    print(
        "| Redis | Redis us | producer us | follower us | trips | durable ms p50, p99 | delivered ms |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|")
    for kind in KINDS:
        load(kind, given)
    with tempfile.TemporaryDirectory() as folder, RedisServer(folder) as server:
        asyncio.run(memory(server, 2000, 500, given.bytes))
        asyncio.run(upkeep(server, 2000))


if __name__ == "__main__":
    main()
