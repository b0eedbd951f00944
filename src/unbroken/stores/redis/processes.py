"""Processes in Redis: heartbeats, orphans, adoption, hand-over, locks, readers elsewhere.

The streams that have or need a producer are in the sorted set `open` of their shard: by the number
of their process, which is a hash of its name, or by minus the time of their release. Whatever is
not at the number of a live process is an orphan.
"""

import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from hashlib import sha1
from typing import Any, NamedTuple

from unbroken.stores.base import PROCESS_MEMORY, Heartbeat, Lease
from unbroken.stores.redis import scripts
from unbroken.stores.redis.client import RetryingClient
from unbroken.stores.redis.index import Index
from unbroken.stores.redis.nodes import Shard
from unbroken.stores.redis.rows import pairs_of

ORPHAN_GRACE = 3.0
"""Seconds after an outage in which there are no orphans: live processes send heartbeats first."""

_BATCH = 500
"""Streams that are released in one step."""


class Orphan(NamedTuple):
    """A stream to adopt. `since`: when it lost its producer; 0 if that process is not known."""

    since: float
    stream: str
    score: str  # in `open`: whatever happens to the stream changes it


class _Known(NamedTuple):
    """The processes that Redis knows: the end of each one's heartbeat."""

    now: float
    until: dict[str, float]

    def alive(self, process: str) -> bool:
        return self.until.get(process, 0.0) > self.now

    def ranges(self) -> list[tuple[float, str, str]]:
        """Return the ranges of `open` that have orphans: since when, lowest and highest score."""
        numbers = sorted(map(number, self.until))
        dead = [(end, number(name)) for name, end in self.until.items() if end <= self.now]
        bounds = ["(0", *(f"({n}" for n in numbers), "+inf"]
        return [
            (-1.0, "-inf", "(0"),
            *((end, str(n), str(n)) for end, n in dead),
            *((0.0, low, high) for low, high in itertools.pairwise(bounds)),
        ]


def number(process: str) -> int:
    """Return the number of a process, of 48 bits, which a score holds exactly."""
    return int.from_bytes(sha1(process.encode(), usedforsecurity=False).digest()[:6]) + 1


class Processes:
    """The processes of a store."""

    def __init__(self, client: RetryingClient) -> None:
        self._client = client

    @property
    def _shards(self) -> list[Shard]:
        return self._client.nodes.shards

    def _grouped(self, streams: Iterable[str]) -> list[tuple[Shard, list[str]]]:
        groups: dict[Shard, list[str]] = defaultdict(list)
        for stream in streams:
            groups[self._client.nodes.shard(stream)].append(stream)
        return [*groups.items()]

    async def heartbeat(self, process: str, seconds: float) -> Heartbeat:
        before, *stops = await asyncio.gather(
            self._beat(process, seconds), *(self._stops(shard, process) for shard in self._shards)
        )
        held = {} if before == b"fresh" else await self._held(process)
        cancelled = [name.decode() for some in stops for name in some]
        return Heartbeat(before == b"lapsed" or bool(held), cancelled, held)

    async def _beat(self, process: str, seconds: float) -> Any:
        first = self._shards[0]
        given = (process, self._client.now(), repr(seconds))
        return (await self._client.run(first, scripts.BEAT, [first.key("procs")], *given))[1]

    async def _stops(self, shard: Shard, process: str) -> Any:
        keys = [shard.key("stops")]
        return (await self._client.run(shard, scripts.STOPS, keys, number(process)))[1]

    async def _held(self, process: str) -> dict[str, int]:
        """Return the fences of a process's streams."""
        found = await asyncio.gather(*(self._streams(shard, process) for shard in self._shards))
        streams = [stream for some in found for stream in some]
        fences = await asyncio.gather(*map(self._fence, streams))
        return {stream: int(fence) for stream, fence in zip(streams, fences, strict=True) if fence}

    async def _fence(self, stream: str) -> Any:
        shard = self._client.nodes.shard(stream)
        return (await self._client.run(shard, scripts.FENCE, [shard.key("h", stream)]))[1]

    async def _streams(self, shard: Shard, process: str) -> list[str]:
        score = str(number(process))
        [found] = await self._ranges(shard, -1, [(0.0, score, score)])
        return [stream for _, stream in found]

    async def _ranges(
        self, shard: Shard, limit: int, ranges: Sequence[tuple[float, str, str]]
    ) -> list[list[tuple[str, str]]]:
        """Return the scores and streams in some ranges of `open`."""
        bounds = [bound for _, low, high in ranges for bound in (low, high)]
        keys = [shard.key("open")]
        found = (await self._client.run(shard, scripts.RANGES, keys, limit, *bounds))[1]
        return [pairs_of(flat) for flat in found]

    # Orphans

    async def _known(self) -> _Known:
        first = self._shards[0]
        answer = await self._client.run(
            first, scripts.PROCESSES, [first.key("procs")], self._client.now()
        )
        flat = answer[2]
        names = [name.decode() for name in flat[::2]]
        return _Known(float(answer[1]), dict(zip(names, map(float, flat[1::2]), strict=True)))

    async def orphans(self, limit: int, process: str | None = None) -> list[Orphan]:
        """Return streams without a live producer, longest waiting first.

        None after an outage, or for a process that has no fresh heartbeat.
        """
        known = await self._known()
        if not (process is None or known.alive(process)):
            return []
        ranges = known.ranges()
        shards = await asyncio.gather(*(self._ranges(s, limit, ranges) for s in self._shards))
        found = [
            Orphan(-float(score) if since < 0 else since, stream, score)
            for shard in shards
            for (since, *_), some in zip(ranges, shard, strict=True)
            for score, stream in some
        ]
        if time.monotonic() < self._client.last_outage_at + ORPHAN_GRACE:
            return []
        await self._forget(known, {float(orphan.score) for orphan in found})
        return sorted(found)[:limit]

    async def orphaned_before(self, age: float, limit: int, index: Index) -> dict[str, str]:
        """Return streams that have had no producer for so many seconds, and their scores."""
        orphans = {orphan.stream: orphan for orphan in await self.orphans(limit)}
        before = (await self._known()).now - age
        return {
            row.info.id: orphans[row.info.id].score
            for row in await index.rows([*orphans])
            if max(orphans[row.info.id].since, row.info.created) <= before
        }

    async def _forget(self, known: _Known, producing: set[float]) -> None:
        """Forget dead processes of which no stream is left."""
        gone = [
            (process, repr(until))
            for process, until in known.until.items()
            if until + PROCESS_MEMORY < known.now and float(number(process)) not in producing
        ]
        if gone:
            await self._retire(gone)

    async def _retire(self, gone: list[tuple[str, str]]) -> None:
        first = self._shards[0]
        words = [word for pair in gone for word in pair]
        await self._client.run(first, scripts.RETIRE, [first.key("procs")], *words)

    async def adopt(self, process: str, limit: int) -> list[Lease]:
        while orphans := await self.orphans(limit, process):
            scores = {orphan.stream: orphan.score for orphan in orphans}
            some = await asyncio.gather(
                *(self._adopt(*group, process, scores) for group in self._grouped(scores))
            )
            leases = {lease.stream: lease for taken in some for lease in taken}
            if leases:
                return [leases[one.stream] for one in orphans if one.stream in leases]
        return []  # else others were faster with all of these, and there may be more

    async def _adopt(
        self, shard: Shard, streams: list[str], process: str, scores: dict[str, str]
    ) -> list[Lease]:
        keys = [shard.key("open"), shard.key("stops"), *(shard.key("h", s) for s in streams)]
        words = [word for stream in streams for word in (stream, scores[stream])]
        answer = await self._client.run(
            shard, scripts.ADOPT, keys, number(process), process, *words
        )
        return [
            Lease(stream, process, int(fence), int(tail), bool(cancelled), int(takeovers))
            for stream, [fence, tail, cancelled, takeovers] in zip(streams, answer[1], strict=True)
            if fence
        ]

    async def release_all(self, process: str) -> list[str]:
        """Release all streams of a process, and return them."""
        found = await asyncio.gather(*(self._release(shard, process) for shard in self._shards))
        await self._retire([(process, "")])
        return [stream for some in found for stream in some]

    async def _release(self, shard: Shard, process: str) -> list[str]:
        streams = await self._streams(shard, process)
        for at in range(0, len(streams), _BATCH):
            some = streams[at : at + _BATCH]
            keys = [shard.key("open"), shard.key("stops"), *(shard.key("h", s) for s in some)]
            now = self._client.now()
            await self._client.run(shard, scripts.RELEASE, keys, number(process), now, *some)
        return streams

    # Locks and readers

    async def claim(self, name: str, process: str, seconds: float) -> bool:
        shard = self._client.nodes.shard(name)
        given = (process, self._client.now(), repr(seconds))
        answer = await self._client.run(shard, scripts.LOCK, [shard.key("lock", name)], *given)
        return bool(answer[1])

    async def attend(self, streams: Sequence[str], seconds: float | None) -> dict[str, float]:
        """Announce a reader, or only ask (None): the seconds left, for streams that have one."""
        groups = self._grouped(dict.fromkeys(streams))
        found = await asyncio.gather(*(self._attend(*group, seconds) for group in groups))
        return {stream: left for some in found for stream, left in some if left > 0}

    async def _attend(
        self, shard: Shard, streams: list[str], seconds: float | None
    ) -> list[tuple[str, float]]:
        keys = [shard.key("h", stream) for stream in streams]
        given = (self._client.now(), "" if seconds is None else repr(seconds))
        answer = await self._client.run(shard, scripts.ATTEND, keys, *given)
        return [*zip(streams, map(float, answer[1]), strict=True)]
