"""Streams in Redis or Valkey, for processes on any number of machines.

Every step is a script (`_redis_scripts`), so Redis itself keeps producers apart: an append is
admitted only at the tail and with the fence of the last lease. Leases and ages go by the clock of
the server, not of the processes. How durable an append is decides Redis's own configuration:
`appendfsync always` makes it as durable as a file, `everysec` (the default with `appendonly yes`)
may lose the last second in a crash of Redis, and a fail-over may lose what the replica had not
got, unless `?replicas=N` waits for N of them.

While Redis is away, calls wait for it, up to `patience` seconds. What it has lost when it is back
is brought back by the producers that still have it; the rest is told: StreamMissing, OffsetUnknown,
OffsetConflict.
"""

import itertools
import secrets
from collections.abc import Sequence
from typing import Any, Self

from unbroken.errors import ConfigurationError, StoreError, StreamMissing
from unbroken.stores.redis import scripts
from unbroken.stores.redis.follow import Followed
from unbroken.stores.redis.index import Lists
from unbroken.stores.redis.nodes import Settings, Shard, settings_of
from unbroken.stores.redis.rows import Row, check, lease_of, meta_to, page_of, row_of
from unbroken.stores.redis.replay_buffer import Sent
from unbroken.stores.redis.watch import Message
from unbroken.stores.base import (
    BEGINNING,
    EVERYTHING,
    PAGE_BYTES,
    Ack,
    Clock,
    Created,
    End,
    Found,
    Lease,
    NewStream,
    Offset,
    Page,
    Search,
    StreamInfo,
    check_unicode,
)

_LARGEST = 1 << 53
"""Beyond this, Lua's numbers are not whole any more. No stream gets there."""


class RedisStore:
    """`clock` is the server's own unless one is given, for tests."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self._followed = Followed(settings)
        self._calls = self._followed.calls
        self._lists = Lists(self._calls)
        self._sent = Sent()
        self._clock = clock
        self._name = secrets.token_hex(4)
        self._numbers = itertools.count()

    async def __aenter__(self) -> Self:
        await self._calls.open()
        try:
            await self._may_keep()
        except BaseException:
            await self._calls.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Wake who waits, and hang up."""
        await self._followed.close()

    async def _may_keep(self) -> None:
        """A Redis that drops keys when its memory is full is a cache, not a store."""
        for told in await self._calls.each("INFO", "memory"):
            if b"maxmemory_policy:allkeys" in told:
                raise ConfigurationError(
                    "this Redis drops what it likes when its memory is full",
                    hint="Set maxmemory-policy to noeviction.",
                )

    def _now(self) -> str:
        return "" if self._clock is None else repr(self._clock())

    def _token(self) -> str:
        """Says which call it is, if it comes twice."""
        return f"{self._name}{next(self._numbers)}"

    def _place(self, stream: str, *kinds: str) -> tuple[Shard, list[str]]:
        """The shard of a stream, its keys of some kinds, and the shard's lists."""
        shard = self._calls.nodes.shard(stream)
        keys = [shard.key(kind, stream if kind in {"h", "m", "s"} else "") for kind in kinds]
        return shard, keys

    # Writing

    async def create(
        self,
        new: NewStream,
        records: Sequence[bytes] = (),
        producer: str = "",
        seconds: float = 0.0,
    ) -> Created:
        check_unicode(new)
        self._sent.drop(new.id)
        while True:
            stream = await self._lists.claim(new.owner, new.key, new.id) if new.key else new.id
            answer = await self._create(stream, new, records, producer, seconds)
            if answer[0] != b"gone":
                break
            await self._lists.unclaim(new.owner, new.key, stream)
        row, fresh = row_of(stream, answer[1]), answer[0] == b"ok"
        if not fresh:
            await self._check_owner(new, row)
            return Created(row.info, fresh=False)
        info = row.info
        self._sent.note(stream, info.fence, 0, records)
        lease = Lease(stream, producer, info.fence, info.expires, info.tail) if producer else None
        return Created(info, fresh=True, lease=lease)

    async def _create(
        self,
        stream: str,
        new: NewStream,
        records: Sequence[bytes],
        producer: str,
        seconds: float,
    ) -> Any:
        shard, keys = self._place(stream, "h", "m", "s", "open", "all")
        keys += [shard.key("o", new.owner), shard.key("sum"), shard.key("gone", stream)]
        keys += self._lists.claim_in(shard, new.owner, new.key)
        given = (stream, meta_to(new), producer, repr(seconds), self._now(), self._token())
        claimed = int(stream != new.id)
        counts = (claimed, shard.number, len(self._calls.nodes.shards))
        return await self._calls.run(shard, scripts.CREATE, keys, *given, *counts, *records)

    async def _check_owner(self, new: NewStream, row: Row) -> None:
        """What is there is what was meant, or the id is taken; a key means what it was made for."""
        if new.key and (row.info.owner, row.key) != (new.owner, new.key):
            await self._lists.unclaim(new.owner, new.key, row.info.id)
        if row.info.owner != new.owner:
            raise StoreError(f"the id {row.info.id!r} is taken")

    async def append(
        self,
        stream: str,
        records: Sequence[bytes],
        at: Offset,
        fence: int = 0,
        end: End | None = None,
    ) -> Ack:
        answer = await self._append(stream, records, at, fence, end)
        if isinstance(answer, list) and answer[0] == b"offset" and int(answer[1]) < at:
            lost = self._sent.between(stream, fence, int(answer[1]), at)
            if lost is not None:
                at, records = int(answer[1]), [*lost, *records]
                answer = await self._append(stream, records, at, fence, end)
        if isinstance(answer, list):
            self._sent.drop(stream)
            check(stream, answer, fence if answer[0] == b"fence" else at)
        tail, cancelled = divmod(answer, 2)
        self._note(stream, Message(b"a", at, tail, fence, end, tuple(records)))
        return Ack(tail, cancelled=bool(cancelled))

    def _note(self, stream: str, wrote: Message) -> None:
        """What is stored: to be brought back if it must be, and to be told to followers here."""
        if wrote.end is not None:
            self._sent.drop(stream)
        elif wrote.records:
            self._sent.note(stream, wrote.fence, wrote.first, wrote.records)
        if wrote.records or wrote.end is not None:
            self._followed.wrote(stream, wrote)

    async def _append(
        self, stream: str, records: Sequence[bytes], at: Offset, fence: int, end: End | None
    ) -> Any:
        shard, keys = self._place(stream, "h", "m", "s", "open", "closed", "sum")
        closing = ("0", "", b"") if end is None else ("1", end.state, end.final)
        given = (stream, at, fence, self._token(), self._now(), *closing)
        return await self._calls.run(shard, scripts.APPEND, keys, *given, *records)

    async def close(self, stream: str, end: End, at: Offset, fence: int = 0) -> Ack:
        return await self.append(stream, (), at, fence, end)

    async def delete(self, stream: str) -> None:
        if await self._lists.remove(stream) is None:
            raise StreamMissing(f"there is no stream {stream!r}")
        self._removed(stream)

    def _removed(self, stream: str) -> None:
        self._sent.drop(stream)
        self._followed.removed(stream)

    async def cancel(self, stream: str) -> bool:
        shard, keys = self._place(stream, "h")
        answer = check(stream, await self._calls.run(shard, scripts.CANCEL, keys))
        return bool(answer[1])

    async def attend(self, stream: str, seconds: float) -> None:
        await self._attended(stream, repr(seconds))

    async def attended(self, stream: str) -> float:
        return await self._attended(stream, "")

    async def _attended(self, stream: str, seconds: str) -> float:
        shard, keys = self._place(stream, "h")
        answer = await self._calls.run(shard, scripts.ATTEND, keys, self._now(), seconds)
        return float(check(stream, answer)[1])

    # Leases

    async def acquire(self, stream: str, producer: str, seconds: float) -> Lease | None:
        shard, keys = self._place(stream, "h", "open")
        given = (stream, producer, repr(seconds), self._now())
        answer = check(stream, await self._calls.run(shard, scripts.ACQUIRE, keys, *given))
        return None if answer[0] == b"busy" else lease_of(stream, producer, answer)

    async def renew(self, lease: Lease, seconds: float) -> Lease:
        shard, keys = self._place(lease.stream, "h", "open")
        given = (lease.stream, lease.producer, repr(seconds), self._now(), lease.fence)
        answer = await self._calls.run(shard, scripts.RENEW, keys, *given)
        check(lease.stream, answer, lease.fence)
        return lease_of(lease.stream, lease.producer, answer)

    async def release(self, lease: Lease) -> None:
        self._sent.drop(lease.stream)
        shard, keys = self._place(lease.stream, "h", "open")
        await self._calls.run(shard, scripts.RELEASE, keys, lease.stream, lease.fence)

    async def orphans(self, limit: int = 100) -> list[StreamInfo]:
        return await self._lists.orphans(limit, self._now())

    # Reading

    async def read(self, stream: str, after: Offset = BEGINNING, limit: int = 1000) -> Page:
        page = self._followed.page(stream, after, limit)
        if page is not None:
            return page
        shard, keys = self._place(stream, "h", "m", "s")
        given = (min(after, _LARGEST), limit, PAGE_BYTES)
        answer = check(stream, await self._calls.read(shard, scripts.READ, keys, *given), after)
        return page_of(stream, after, answer)

    async def wait(self, stream: str, after: Offset, seconds: float) -> bool:
        return await self._followed.wait(stream, after, seconds)

    async def cancelled(self, stream: str, seconds: float) -> bool:
        return await self._followed.cancelled(stream, seconds)

    async def info(self, stream: str) -> StreamInfo:
        return (await self._lists.row(stream)).info

    async def find(self, owner: str | None, search: Search = EVERYTHING, /) -> Found:
        return await self._lists.find(owner, search)

    async def prune(self, age: float | None = None, size: int | None = None) -> int:
        gone: list[str] = []
        if age is not None:
            gone += await self._lists.prune_age(age, self._now())
        if size is not None:
            gone += await self._lists.prune_size(size)
        for stream in gone:
            self._removed(stream)
        return len(gone)


def from_url(url: str) -> RedisStore:
    """`redis://[[user]:password@]host[:port][/0]`, `rediss://` with TLS, `redis+cluster://`; the
    same with `valkey`. Options: `prefix`, `shards`, `replicas`, `patience`.
    """
    return RedisStore(settings_of(url))
