"""Streams as sets: finding and deleting them, and the keys that stand for them."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from unbroken.stores.base import FIND_SCAN, Found, Search, matches
from unbroken.stores.redis import scripts
from unbroken.stores.redis.client import RetryingClient
from unbroken.stores.redis.nodes import Shard
from unbroken.stores.redis.rows import Row, check, meta_from, pairs_of, row_of

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

    async def rows(self, names: Sequence[str]) -> list[Row]:
        """Return the rows of streams in their order, without those that are gone."""
        found = await self._each(scripts.ROWS, names)
        return [row_of(name, found[name]) for name in names if found[name]]

    async def _each(self, script: scripts.Script, names: Sequence[str]) -> dict[str, Any]:
        """Run a script once in each shard, for all streams there; its answer for each stream."""
        groups: dict[Shard, list[str]] = defaultdict(list)
        for name in names:
            groups[self._client.nodes.shard(name)].append(name)
        found = await asyncio.gather(*(self._some(script, *group) for group in groups.items()))
        return {name: answer for some in found for name, answer in some}

    async def _some(
        self, script: scripts.Script, shard: Shard, names: list[str]
    ) -> list[tuple[str, Any]]:
        keys = [shard.key(kind, name) for name in names for kind in ("h", "m")]
        return [*zip(names, (await self._client.read(shard, script, keys))[1], strict=True)]

    async def find(self, owner: str | None, search: Search) -> Found:
        """Return the youngest first, after looking at FIND_SCAN streams at most."""
        found: list[str] = []
        before, scanned, more = search.before, 0, True
        while more and scanned < FIND_SCAN:
            page, more = await self._page(owner, before)
            some, more = page[: FIND_SCAN - scanned], more or len(page) > FIND_SCAN - scanned
            scanned, before = scanned + len(some), some[-1][0] if some else before
            found += await self._matching([name for _, name in some], search)
            if len(found) >= search.limit:
                rows = await self.rows(found[: search.limit])
                return Found([row.info for row in rows], rows[-1].number if rows else before)
        return Found([row.info for row in await self.rows(found)], before if more else None)

    async def _matching(self, names: list[str], search: Search) -> list[str]:
        found = await self._each(scripts.LABELS, names)
        return [name for name in names if _matches(search, found[name])]

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
        rows = await self.rows([stream])
        if not rows:
            return False
        [row] = rows
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


def _matches(search: Search, row: bytes) -> bool:
    if len(row) == 1:  # it was deleted meanwhile
        return False
    return matches(search, meta_from(row[1:]).labels, closed=row[:1] == b"1")
