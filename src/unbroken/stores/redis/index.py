"""Streams as sets: finding them, those nobody produces, those too old or too many."""

import asyncio
import time
from typing import Any

from unbroken.errors import StreamMissing
from unbroken.stores.redis import scripts
from unbroken.stores.redis.calls import Calls
from unbroken.stores.redis.nodes import Shard
from unbroken.stores.redis.rows import Row, check, row_of
from unbroken.stores.base import Found, Search, StreamInfo, matches

CALM = 3.0
"""Seconds after an outage in which nobody is an orphan: live producers renew their leases first."""

CLAIM = 600
"""Seconds that a key is claimed for a stream that is not made yet."""

_PAGE = 200


class Lists:
    """All streams of a store."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def row(self, stream: str) -> Row:
        """What is known of one. StreamMissing."""
        shard = self._calls.nodes.shard(stream)
        keys = [shard.key("h", stream), shard.key("m", stream)]
        answer = check(stream, await self._calls.read(shard, scripts.INFO, keys))
        return row_of(stream, answer[1])

    async def _rows(self, names: list[str]) -> list[Row]:
        """Those of them that are still there."""
        found = await asyncio.gather(*map(self.row, names), return_exceptions=True)
        rows = [row for row in found if not isinstance(row, StreamMissing)]
        for row in rows:
            if isinstance(row, BaseException):
                raise row
        return [row for row in rows if isinstance(row, Row)]

    async def find(self, owner: str | None, search: Search) -> Found:
        """The youngest first."""
        found: list[StreamInfo] = []
        below = "+inf" if search.before is None else f"({search.before}"
        while True:
            names, floor = await self._page(owner, below)
            for row in await self._rows(names):
                if matches(row.info, search):
                    found.append(row.info)
                if len(found) == search.limit:
                    return Found(found, row.number)
            if floor is None:
                return Found(found)
            below = f"({floor}"

    async def _page(self, owner: str | None, below: str) -> tuple[list[str], int | None]:
        """The next names of all shards together, and the number down to which they are whole."""
        shards = self._calls.nodes.shards
        keys = [s.key("all") if owner is None else s.key("o", owner) for s in shards]
        pages = await asyncio.gather(
            *(
                self._calls.read(shard, scripts.LIST, [key], below, _PAGE)
                for shard, key in zip(shards, keys, strict=True)
            )
        )
        lists = [_pairs(answer[1]) for answer in pages]
        floors = [page[-1][0] for page in lists if len(page) == _PAGE]
        floor = max(floors, default=None)
        pairs = sorted((pair for page in lists for pair in page), reverse=True)
        names = [name for number, name in pairs if floor is None or number >= floor]
        return names, None if floor is None else int(floor)

    async def orphans(self, limit: int, now: str) -> list[StreamInfo]:
        """Those waiting longest first."""
        answers = await asyncio.gather(
            *(
                self._calls.read(shard, scripts.ORPHANS, [shard.key("open")], now, limit)
                for shard in self._calls.nodes.shards
            )
        )
        if time.monotonic() < self._calls.troubled + CALM:
            return []
        names = [name.decode() for answer in answers for name in answer[2]]
        when = max(float(answer[1]) for answer in answers)
        lost = [row.info for row in await self._rows(names) if row.info.orphaned(when)]
        return sorted(lost, key=lambda info: info.expires)[:limit]

    async def prune_age(self, age: float, now: str) -> list[str]:
        """Those that nobody has worked on for so long."""
        gone: list[str] = []
        for shard in self._calls.nodes.shards:
            keys = [shard.key("open"), shard.key("closed"), shard.key("sum")]
            more = True
            while more:
                answer = await self._calls.read(shard, scripts.OLD, keys, now, repr(age), _PAGE)
                since = answer[2]
                names = [name.decode() for name in (*answer[3], *answer[4])]
                removed = [name for name in names if await self.remove(name, since) is not None]
                gone += removed
                more = bool(removed) and len(answer[4]) == _PAGE
        return gone

    async def prune_size(self, size: int) -> list[str]:
        """Closed ones, oldest first, until all fit."""
        gone: list[str] = []
        while True:
            total, oldest = await self._oldest()
            if total <= size or not oldest:
                return gone
            for _, name in oldest:
                if total > size and (freed := await self.remove(name)) is not None:
                    total -= freed
                    gone.append(name)

    async def _oldest(self) -> tuple[int, list[tuple[float, str]]]:
        """The bytes of all records, and the closed streams to go first."""
        answers = await asyncio.gather(*map(self._old, self._calls.nodes.shards))
        pairs = sorted(pair for answer in answers for pair in _pairs(answer[4]))
        return sum(int(answer[1]) for answer in answers), pairs[:_PAGE]

    async def _old(self, shard: Shard) -> Any:
        keys = [shard.key("open"), shard.key("closed"), shard.key("sum")]
        return await self._calls.read(shard, scripts.OLD, keys, "", "", _PAGE)

    async def remove(self, stream: str, since: bytes = b"") -> int | None:
        """Delete one, and say how many bytes it had; None if it is gone, or was worked on since."""
        try:
            row = await self.row(stream)
        except StreamMissing:
            return None
        owner, shard = row.info.owner, self._calls.nodes.shard(stream)
        keys = [shard.key(kind, stream) for kind in ("h", "m", "s")]
        keys += [shard.key("open"), shard.key("closed"), shard.key("all"), shard.key("o", owner)]
        keys += [shard.key("sum"), shard.key("gone", stream)]
        answer = await self._calls.run(shard, scripts.REMOVE, keys, stream, since)
        if answer[0] == b"busy":
            return None
        if row.key:
            await self.unclaim(owner, row.key, stream)
        return row.info.size

    async def claim(self, owner: str, key: str, stream: str) -> str:
        """The stream that a key stands for: this one, if it stands for none.

        Another shard can't say that the stream is made in the step that makes it, so there the
        claim is for ever at once: one that stands for nothing is better than a stream made twice.
        """
        shard, place = self._claim(owner, key)
        seconds = CLAIM if shard == self._calls.nodes.shard(stream) else 0
        answer = await self._calls.run(shard, scripts.CLAIM, [place], stream, seconds)
        name: bytes = answer[1]
        return name.decode()

    async def unclaim(self, owner: str, key: str, stream: str) -> None:
        """The key does not stand for this stream any more."""
        shard, place = self._claim(owner, key)
        await self._calls.run(shard, scripts.UNCLAIM, [place], stream)

    def claim_in(self, shard: Shard, owner: str, key: str) -> list[str]:
        """Where the claim is, if it is in this shard."""
        there, place = self._claim(owner, key)
        return [place] if key and there == shard else []

    def _claim(self, owner: str, key: str) -> tuple[Shard, str]:
        name = f"{len(owner)}:{owner}:{key}"
        shard = self._calls.nodes.shard(name)
        return shard, shard.key("k", name)


def _pairs(flat: list[bytes]) -> list[tuple[float, str]]:
    """Members with their scores."""
    return [
        (float(score), name.decode()) for name, score in zip(flat[::2], flat[1::2], strict=True)
    ]
