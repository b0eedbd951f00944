"""Streams as sets: finding and deleting them, and the keys that stand for them."""

import asyncio
from typing import Any

from unbroken.errors import StreamMissing
from unbroken.stores.base import FIND_SCAN, Found, Search, StreamInfo, matches
from unbroken.stores.redis import scripts
from unbroken.stores.redis.client import RetryingClient
from unbroken.stores.redis.nodes import Shard
from unbroken.stores.redis.rows import Row, check, pairs_of, row_of

CLAIM = 600
"""Seconds that a key is claimed for a stream that is not made yet."""

_PAGE = 200


class Index:
    """All streams of a store."""

    def __init__(self, client: RetryingClient) -> None:
        self._client = client

    async def row(self, stream: str) -> Row:
        """Return what is known of a stream. StreamMissing."""
        shard = self._client.nodes.shard(stream)
        keys = [shard.key("h", stream), shard.key("m", stream)]
        answer = check(stream, await self._client.read(shard, scripts.INFO, keys))
        return row_of(stream, answer[1])

    async def rows(self, names: list[str]) -> list[Row]:
        """Return the rows of streams, without those that are gone."""
        found = await asyncio.gather(*map(self._row, names))
        return [row for row in found if row is not None]

    async def _row(self, stream: str) -> Row | None:
        try:
            return await self.row(stream)
        except StreamMissing:
            return None

    async def find(self, owner: str | None, search: Search) -> Found:
        """Return the youngest first, after looking at FIND_SCAN streams at most."""
        found: list[StreamInfo] = []
        before, scanned, more = search.before, 0, True
        while more and scanned < FIND_SCAN:
            page, more = await self._page(owner, before)
            some, more = page[: FIND_SCAN - scanned], more or len(page) > FIND_SCAN - scanned
            scanned, before = scanned + len(some), some[-1][0] if some else before
            for row in await self.rows([name for _, name in some]):
                if matches(search, row.info.labels, closed=row.info.closed):
                    found.append(row.info)
                if len(found) == search.limit:
                    return Found(found, row.number)
        return Found(found, before if more else None)

    async def _page(
        self, owner: str | None, before: int | None
    ) -> tuple[list[tuple[int, str]], bool]:
        """Return the next numbers and names of all shards, and whether there may be more."""
        below = "+inf" if before is None else f"({before}"
        shards = self._client.nodes.shards
        keys = [s.key("all") if owner is None else s.key("o", owner) for s in shards]
        count = -(-_PAGE // len(shards))
        pages = await asyncio.gather(
            *(
                self._client.read(shard, scripts.LIST, [key], below, count)
                for shard, key in zip(shards, keys, strict=True)
            )
        )
        lists = [[(int(number), s) for number, s in pairs_of(answer[1])] for answer in pages]
        # Below the last number of a full page its shard may have more.
        floor = max([page[-1][0] for page in lists if len(page) == count], default=None)
        pairs = sorted((pair for page in lists for pair in page), reverse=True)
        whole = [pair for pair in pairs if floor is None or pair[0] >= floor]
        return whole, floor is not None

    async def closed_before(self, age: float, limit: int) -> list[str]:
        """Return some streams that were closed so many seconds ago."""
        _, oldest = await self._oldest(repr(age), limit)
        return [name for _, name in oldest]

    async def excess(self, size: int, limit: int) -> list[str]:
        """Return the oldest closed streams, while all streams together are too large."""
        total, oldest = await self._oldest("", limit)
        if total <= size:
            return []
        old = []
        for row in await self.rows([name for _, name in oldest]):
            if total > size:
                total -= row.info.size
                old.append(row.info.id)
        return old

    async def _oldest(self, age: str, limit: int) -> tuple[int, list[tuple[float, str]]]:
        """Return the bytes of all records, and some streams that were closed longest ago."""
        answers = await asyncio.gather(
            *(self._old(shard, age, limit) for shard in self._client.nodes.shards)
        )
        pairs = [(float(score), s) for answer in answers for score, s in pairs_of(answer[2])]
        return sum(int(answer[1]) for answer in answers), sorted(pairs)[:limit]

    async def _old(self, shard: Shard, age: str, limit: int) -> Any:
        keys = [shard.key("closed"), shard.key("sum")]
        return await self._client.read(shard, scripts.OLD, keys, self._client.now(), age, limit)

    async def remove(self, stream: str, score: str = "") -> bool:
        """Delete a stream; with `score`, only if it still has that in `open`. Whether it did."""
        row = await self._row(stream)
        if row is None:
            return False
        owner, shard = row.info.owner, self._client.nodes.shard(stream)
        keys = [shard.key(kind, stream) for kind in ("h", "m", "s")]
        keys += [shard.key("open"), shard.key("closed"), shard.key("all"), shard.key("o", owner)]
        keys += [shard.key("sum"), shard.key("stops"), shard.key("gone", stream)]
        answer = await self._client.run(shard, scripts.REMOVE, keys, stream, score)
        if answer[0] == b"busy":
            return False
        if row.key:
            await self.unclaim(owner, row.key, stream)
        return True

    async def claim(self, owner: str, key: str, stream: str) -> str:
        """Return the stream that a key stands for: this one, if it stands for none.

        Another shard can't say that the stream is made in the step that makes it, so there the
        claim is for ever at once: one that stands for nothing is better than a stream made twice.
        """
        shard, place = self._claim(owner, key)
        seconds = CLAIM if shard == self._client.nodes.shard(stream) else 0
        answer = await self._client.run(shard, scripts.CLAIM, [place], stream, seconds)
        name: bytes = answer[1]
        return name.decode()

    async def unclaim(self, owner: str, key: str, stream: str) -> None:
        """Forget that a key stands for this stream."""
        shard, place = self._claim(owner, key)
        await self._client.run(shard, scripts.UNCLAIM, [place], stream)

    def claim_in(self, shard: Shard, owner: str, key: str) -> list[str]:
        """Return where the claim is, if it is in this shard."""
        there, place = self._claim(owner, key)
        return [place] if key and there == shard else []

    def _claim(self, owner: str, key: str) -> tuple[Shard, str]:
        name = f"{len(owner)}:{owner}:{key}"
        shard = self._client.nodes.shard(name)
        return shard, shard.key("k", name)
