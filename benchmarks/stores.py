"""What a durable log costs: many streams trickle into a store at once.

    python benchmarks/stores.py [--streams 200] [--rate 50] [--seconds 10] [--dir DIR] [--rounds 3]

Each kind runs in a process of its own; all rounds are interleaved, so that a busy machine hits
them alike, and the median round is shown. `bare loop` has the same tasks, timers and events, and
stores nothing: what is above it is the store. `+1 follower` has one follower for each stream,
which also costs a wake-up an event. CPU is that of the whole process, all threads.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from unbroken.stores.base import Ack, End, NewStream
from unbroken.stores.memory import MemoryStore
from unbroken.stores.sqlite import SqliteStore

TAIL = b'"}}],"id":"chatcmpl-0123456789","model":"m","object":"chat.completion.chunk"}' + b"x" * 200


class Nothing:
    """A store that stores nothing."""

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        pass

    async def create(self, new):
        pass

    async def append(self, _stream, records, at, _fence=0):
        return Ack(at + len(records))

    async def close(self, _stream, _end, at):
        return Ack(at)


KINDS = {
    "bare loop": lambda _: Nothing(),
    "memory": lambda _: MemoryStore(limit=1 << 30),
    "sqlite full": lambda path: SqliteStore(path),
    "sqlite normal": lambda path: SqliteStore(path, "normal"),
    "sqlite full +1 follower": lambda path: SqliteStore(path),
    "memory +1 follower": lambda _: MemoryStore(limit=1 << 30),
}


class Measured(msgspec.Struct):
    """One round."""

    cpu: float  # seconds per million events
    durable: list[float]  # ms, p50 and p99
    late: list[float]  # ms behind the timetable when an event was produced, p50 and p99
    delivered: list[float]  # ms from the event to its follower, p50 and p99
    size: float  # bytes on disk an event


def percentiles(values):
    """p50 and p99 in milliseconds."""
    ranked = sorted(values) or [0.0]
    return [ranked[len(ranked) // 2] * 1e3, ranked[len(ranked) * 99 // 100] * 1e3]


class Round:
    """One kind of store under the load."""

    def __init__(self, store, arguments):
        self.store, self.arguments = store, arguments
        self.durable, self.late, self.delivered = [], [], []

    async def producer(self, name, number):
        """Appends what has come due since the last append was acknowledged."""
        step = 1 / self.arguments.rate
        start = self.start + step * number / self.arguments.streams
        at, total = 0, int(self.arguments.seconds * self.arguments.rate)
        while at < total:
            await asyncio.sleep(max(0.0, start + at * step - time.monotonic()))
            now = time.monotonic()
            count = max(1, min(total - at, int((now - start) / step) + 1 - at))
            self.late += [now - start - (at + n) * step for n in range(count)]
            records = [b'{"at":%.6f,"delta":"%d' % (now, at + n) + TAIL for n in range(count)]
            at = (await self.store.append(name, records, at)).tail
            self.durable += [time.monotonic() - now] * count
        await self.store.close(name, End("complete"), at)

    async def follower(self, name):
        """Waits for more, reads it."""
        page = await self.store.read(name)
        while not page.closed:
            await self.store.wait(name, page.next, 15)
            page = await self.store.read(name, page.next)
            now = time.monotonic()
            self.delivered += [
                now - float(record.data[6:18].split(b",")[0]) for record in page.records
            ]

    async def run(self, *, followed):
        """CPU seconds of the load."""
        names = [f"stream-{number}" for number in range(self.arguments.streams)]
        for name in names:
            await self.store.create(NewStream(name, "bench"))
        cpu, self.start = time.process_time(), time.monotonic() + 0.1
        async with asyncio.TaskGroup() as tasks:
            for number, name in enumerate(names):
                tasks.create_task(self.producer(name, number))
                if followed:
                    tasks.create_task(self.follower(name))
        return time.process_time() - cpu


async def one(kind, arguments):
    """One kind, one round, in this process."""
    with tempfile.TemporaryDirectory(dir=arguments.dir) as place:
        path = Path(place) / "bench.db"
        async with KINDS[kind](str(path)) as store:
            run = Round(store, arguments)
            cpu = await run.run(followed="follower" in kind)
        events = len(run.durable)
        size = path.stat().st_size / events if path.exists() else 0.0
        return Measured(
            cpu / events * 1e6,
            percentiles(run.durable),
            percentiles(run.late),
            percentiles(run.delivered),
            size,
        )


def loop_factory():
    """uvloop where it is installed, as the gateway runs."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def child(kind):
    """The figures of one round in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--kind", kind]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return msgspec.json.decode(done.stdout, type=Measured)


def middle(rounds):
    """The round whose CPU is the median."""
    return sorted(rounds, key=lambda found: found.cpu)[len(rounds) // 2]


def table(results):
    """Print it in Markdown."""
    print(
        "| store | CPU s per 1M events | over the bare loop | durable ms p50, p99 | delivered ms p50, p99 | late ms p99 | bytes/event |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|")
    bare = middle(results["bare loop"]).cpu
    for kind, rounds in results.items():
        found = middle(rounds)
        durable, delivered = (
            f"{p50:.1f}, {p99:.1f}" for p50, p99 in (found.durable, found.delivered)
        )
        print(
            f"| {kind} | {found.cpu:.1f} | {found.cpu - bare:+.1f} | {durable} | {delivered} | {found.late[1]:.1f} | {found.size:.0f} |"
        )
    spread = {kind: [round(found.cpu, 1) for found in rounds] for kind, rounds in results.items()}
    print(
        "\nCPU of all rounds:",
        json.dumps(spread),
        "median of medians:",
        round(statistics.median(middle(r).cpu for r in results.values()), 1),
    )


def main():
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--rate", type=float, default=50)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", default=None)
    parser.add_argument("--kind", default=None)
    arguments = parser.parse_args()
    if arguments.kind:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            print(msgspec.json.encode(runner.run(one(arguments.kind, arguments))).decode())
        return
    results = {kind: [] for kind in KINDS}
    for _ in range(arguments.rounds):
        for kind, rounds in results.items():
            rounds.append(child(kind))
    table(results)


if __name__ == "__main__":
    main()
