"""Streams in Redis or Valkey, for processes on any number of machines.

Every step is a script (`scripts`), so Redis itself keeps producers apart: an append is admitted
only at the tail and with the fence of the last producer. Heartbeats and ages go by the clock of
the server, not of the processes. How durable an append is decides Redis's own configuration:
`appendfsync always` makes it as durable as a file, `everysec` (the default with `appendonly yes`)
may lose the last second in a crash of Redis, and a fail-over may lose what the replica had not
got, unless `?replicas=N` waits for N of them.

While Redis is away, calls wait for it, up to `patience` seconds. What it has lost when it is back
is written again by the producers that still have it; the rest is an error: StreamMissing,
OffsetUnknown, OffsetConflict.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Self

from unbroken.errors import ConfigurationError, StoreError, StreamMissing
from unbroken.stores.base import (
    BEGINNING,
    EVERYTHING,
    PAGE_BYTES,
    PRUNE_BATCH,
    Ack,
    Clock,
    Created,
    End,
    Found,
    Heartbeat,
    Lease,
    NewStream,
    Offset,
    Page,
    Pruned,
    Search,
    StreamInfo,
    check_unicode,
)
from unbroken.stores.counters import Charge, QuotaReached, Window
from unbroken.stores.redis import counters as rules
from unbroken.stores.redis import scripts
from unbroken.stores.redis.counters import Counters
from unbroken.stores.redis.follow import FollowerCache
from unbroken.stores.redis.index import Index
from unbroken.stores.redis.migration import migrate
from unbroken.stores.redis.nodes import Settings, Shard, settings_of
from unbroken.stores.redis.processes import Processes, number
from unbroken.stores.redis.replay_buffer import ReplayBuffer
from unbroken.stores.redis.rows import Row, check, meta_to, page_of, row_of
from unbroken.stores.redis.watch import Message

_LARGEST = 1 << 53
"""Beyond this, Lua's numbers are not whole any more. No stream gets there."""


class RedisStore:
    """`clock` is the server's own unless one is given, for tests."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self._followers = FollowerCache(settings, clock)
        self._client = self._followers.client
        self._index = Index(self._client)
        self._processes = Processes(self._client)
        self._counters = Counters(self._client)
        self._sent = ReplayBuffer()

    async def __aenter__(self) -> Self:
        await self._client.open()
        try:
            await self._check_eviction()
            await migrate(self._client, self._counters, self)
        except BaseException:
            await self._client.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Wake all waiters, and disconnect."""
        await self._followers.close()

    async def _check_eviction(self) -> None:
        """Refuse a Redis that drops keys when its memory is full: it is a cache, not a store."""
        for memory in await self._client.each("INFO", "memory"):
            if b"maxmemory_policy:allkeys" in memory:
                raise ConfigurationError(
                    "this Redis drops any key when its memory is full",
                    hint="Set maxmemory-policy to noeviction.",
                )

    def _place(self, stream: str, *kinds: str) -> tuple[Shard, list[str]]:
        """Return the shard of a stream, its keys of some kinds, and those of the shard."""
        shard = self._client.nodes.shard(stream)
        keys = [shard.key(kind, stream if kind in {"h", "m", "s"} else "") for kind in kinds]
        return shard, keys

    # Writing

    async def create(
        self,
        new: NewStream,
        records: Sequence[bytes] = (),
        producer: str = "",
        charges: Sequence[Charge] = (),
    ) -> Created:
        check_unicode(new)
        self._sent.drop(new.id)
        while True:
            stream = await self._index.claim(new.owner, new.key, new.id) if new.key else new.id
            answer = await self._admitted(new, stream, records, producer, charges)
            if answer[0] != b"gone":
                break
            await self._index.unclaim(new.owner, new.key, stream)
        row, fresh = row_of(stream, answer[1]), answer[0] == b"ok"
        if not fresh:
            await self._check_owner(new, row)
            return Created(row.info, fresh=False)
        info = row.info
        self._sent.record(stream, info.fence, 0, records)
        lease = Lease(stream, producer, info.fence, info.tail) if producer else None
        return Created(info, fresh=True, lease=lease)

    async def _admitted(
        self,
        new: NewStream,
        stream: str,
        records: Sequence[bytes],
        producer: str,
        charges: Sequence[Charge],
    ) -> Any:
        """Create a stream within its quotas, or give up its key."""
        shard = self._client.nodes.shard(stream)
        here, elsewhere = self._counters.split(shard, charges)
        try:
            # A process that is killed between these two steps has counted a request that is none.
            if elsewhere and not await self._index.rows([stream]):
                await self._counters.charge(elsewhere, f"new:{stream}")
            answer = await self._create(new, stream, records, producer, here)
            rules.check_quota(here, answer)
        except QuotaReached:
            if new.key:
                await self._index.unclaim(new.owner, new.key, stream)
            raise
        return answer

    async def _create(
        self,
        new: NewStream,
        stream: str,
        records: Sequence[bytes],
        producer: str,
        charges: Sequence[Charge],
    ) -> Any:
        shard, keys = self._place(stream, "h", "m", "s", "open", "all")
        keys += [shard.key("o", new.owner), shard.key("sum"), shard.key("gone", stream)]
        claim = self._index.claim_in(shard, new.owner, new.key)
        keys += claim + [rules.key(shard, charge) for charge in charges]
        process = number(producer) if producer else 0
        given = (stream, meta_to(new), producer, process, self._client.now(), self._client.token())
        counts = (int(stream != new.id), shard.number, len(self._client.nodes.shards), len(claim))
        charged = rules.encode(charges)
        return await self._client.run(
            shard, scripts.CREATE, keys, *given, *counts, charged, *records
        )

    async def _check_owner(self, new: NewStream, row: Row) -> None:
        """Check that the stream is the one that is meant, and that its key stands for it."""
        if new.key and (row.info.owner, row.key) != (new.owner, new.key):
            await self._index.unclaim(new.owner, new.key, row.info.id)
        if row.info.owner != new.owner:
            raise StoreError(f"the id {row.info.id!r} is taken")

    async def append(
        self, stream: str, records: Sequence[bytes], at: Offset, fence: int = 0
    ) -> Ack:
        answer = await self._append(stream, records, at, fence)
        if lost := self._lost(stream, answer, at, fence):
            at, records = at - len(lost), [*lost, *records]
            answer = await self._append(stream, records, at, fence)
        return self._stored(stream, answer, Message(b"a", at, 0, fence, None, tuple(records)))

    async def close(
        self,
        stream: str,
        end: End,
        at: Offset,
        fence: int = 0,
        records: Sequence[bytes] = (),
        charges: Sequence[Charge] = (),
    ) -> Ack:
        shard = self._client.nodes.shard(stream)
        here, elsewhere = self._counters.split(shard, charges)
        wrote = Message(b"a", at, 0, fence, end, tuple(records))
        answer = await self._close(stream, wrote, here, elsewhere)
        if lost := self._lost(stream, answer, at, fence):
            wrote = wrote._replace(first=at - len(lost), records=(*lost, *records))
            answer = await self._close(stream, wrote, here, elsewhere)
        ack = self._stored(stream, answer, wrote)
        if elsewhere:
            with contextlib.suppress(StoreError):  # then a look for orphans settles it
                await self._counters.settle_all([shard])
        return ack

    def _lost(self, stream: str, answer: Any, at: Offset, fence: int) -> list[bytes]:
        """Return the records that Redis has lost and this process still has."""
        if not isinstance(answer, list) or answer[0] != b"offset" or int(answer[1]) >= at:
            return []
        return self._sent.slice(stream, fence, int(answer[1]), at) or []

    def _stored(self, stream: str, answer: Any, wrote: Message) -> Ack:
        """Take in what is stored: for writing it again, and for followers here."""
        if isinstance(answer, list):
            self._sent.drop(stream)
            check(stream, answer, wrote.fence if answer[0] == b"fence" else wrote.first)
        tail, cancelled = divmod(answer, 2)
        if wrote.end is not None:
            self._sent.drop(stream)
        elif wrote.records:
            self._sent.record(stream, wrote.fence, wrote.first, wrote.records)
        if wrote.records or wrote.end is not None:
            self._followers.wrote(stream, wrote._replace(tail=tail))
        return Ack(tail, cancelled=bool(cancelled))

    async def _append(self, stream: str, records: Sequence[bytes], at: Offset, fence: int) -> Any:
        shard, keys = self._place(stream, "h", "s", "sum")
        given = (at, fence, self._client.token())
        return await self._client.run(shard, scripts.APPEND, keys, *given, *records)

    async def _close(
        self, stream: str, wrote: Message, here: Sequence[Charge], elsewhere: Sequence[Charge]
    ) -> Any:
        shard, keys = self._place(stream, "h", "m", "s", "open", "closed", "sum", "stops", "due")
        keys += [rules.key(shard, charge) for charge in here]
        end = wrote.end or End("")
        given = (stream, wrote.first, wrote.fence, self._client.token(), self._client.now())
        charged = (rules.encode(here), rules.encode_due(elsewhere))
        return await self._client.run(
            shard, scripts.CLOSE, keys, *given, end.state, end.final, *charged, *wrote.records
        )

    async def delete(self, stream: str) -> None:
        if not await self._remove(stream):
            raise StreamMissing(f"there is no stream {stream!r}")

    async def _remove(self, stream: str, score: str = "") -> bool:
        removed = await self._index.remove(stream, score)
        if removed:
            self._sent.drop(stream)
            self._followers.removed(stream)
        return removed

    async def cancel(self, stream: str) -> bool:
        shard, keys = self._place(stream, "h", "stops")
        answer = check(stream, await self._client.run(shard, scripts.CANCEL, keys, stream))
        return bool(answer[1])

    # Processes, readers, counters

    async def heartbeat(self, process: str, seconds: float) -> Heartbeat:
        return await self._processes.heartbeat(process, seconds)

    async def adopt(self, process: str, limit: int = 20) -> list[Lease]:
        if len(self._client.nodes.shards) > 1:
            await self._counters.settle_all(self._client.nodes.shards)
        return await self._processes.adopt(process, limit)

    async def release_all(self, process: str) -> int:
        streams = await self._processes.release_all(process)
        for stream in streams:
            self._sent.drop(stream)
        return len(streams)

    async def claim(self, name: str, process: str, seconds: float) -> bool:
        return await self._processes.claim(name, process, seconds)

    async def announce_readers(self, streams: Sequence[str], seconds: float) -> None:
        await self._processes.attend(streams, seconds)

    async def reader_leases(self, streams: Sequence[str]) -> dict[str, float]:
        return await self._processes.attend(streams, None)

    async def charge(self, charges: Sequence[Charge]) -> None:
        await self._counters.charge(charges, f"call:{self._client.token()}")

    async def usage(self, counters: Sequence[str], window: Window = "day") -> list[dict[str, int]]:
        return await self._counters.usage(counters, window)

    # Reading

    async def read(self, stream: str, after: Offset = BEGINNING, limit: int = 1000) -> Page:
        page = self._followers.page(stream, after, limit)
        if page is not None:
            return page
        shard, keys = self._place(stream, "h", "m", "s")
        given = (min(after, _LARGEST), limit, PAGE_BYTES)
        answer = check(stream, await self._client.read(shard, scripts.READ, keys, *given), after)
        return page_of(stream, after, answer)

    async def wait(self, stream: str, after: Offset, seconds: float) -> bool:
        return await self._followers.wait(stream, after, seconds)

    async def info(self, stream: str) -> StreamInfo:
        return (await self._index.row(stream)).info

    async def find(self, owner: str | None, search: Search = EVERYTHING, /) -> Found:
        return await self._index.find(owner, search)

    # Maintenance

    async def prune(self, age: float | None = None, size: int | None = None) -> Pruned:
        old = await self._too_old(age) if age is not None else {}
        if not old and size is not None:
            old = dict.fromkeys(await self._index.excess(size, PRUNE_BATCH), "")
        removed = await asyncio.gather(*(self._remove(*one) for one in old.items()))
        return Pruned(sum(removed), more=any(removed))

    async def _too_old(self, age: float) -> dict[str, str]:
        """Return streams, and their score in `open` if they are open."""
        closed = await self._index.closed_before(age, PRUNE_BATCH)
        if closed:
            return dict.fromkeys(closed, "")
        return await self._processes.orphaned_before(age, PRUNE_BATCH, self._index)

    async def ping(self) -> None:
        shard = self._client.nodes.shards[0]
        await self._client.run(shard, scripts.PUT, [shard.key("ping")], self._client.token())


def from_url(url: str) -> RedisStore:
    """Open `redis://[[user]:password@]host[:port][/0]`, `rediss://` with TLS, `redis+cluster://`.

    The same with `valkey`. Options: `prefix`, `shards`, `replicas`, `patience`, `batch_window`.
    """
    return RedisStore(settings_of(url))
