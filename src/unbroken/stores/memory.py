"""Streams in this process's memory: for tests, for a first try, for answers nobody must keep.

The same contract as every store, but a restart forgets everything and no other process sees it.
Memory is bounded: when all records together pass the limit, the closed streams that ended
longest ago go; when only open ones are left, appending raises StoreError.
"""

import itertools
import time
from collections.abc import Sequence
from typing import Self
from urllib.parse import parse_qsl, urlsplit

from unbroken.errors import (
    ConfigurationError,
    OffsetUnknown,
    StoreError,
    StreamClosed,
    StreamMissing,
)
from unbroken.stores._waiters import Waiters
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
    Record,
    Search,
    StreamInfo,
    admit,
    matches,
    refuse_halves,
)

LIMIT = 256 << 20  # some ten thousand answers
# What Python needs besides the bytes themselves, so that many tiny things are bounded as well.
STREAM_COST, RECORD_COST = 2048, 128


class _Log:
    """One stream."""

    def __init__(self, new: NewStream, number: int, now: float) -> None:
        self.new = new
        self.number = number
        self.created = self.changed = now
        self.records: list[Record] = []
        self.size = 0
        self.end: End | None = None
        self.cancelled = False
        self.producer = ""
        self.fence = 0
        self.expires = self.attended = 0.0
        self.followers = Waiters()
        self.stoppers = Waiters()

    @property
    def tail(self) -> Offset:
        return len(self.records)

    @property
    def cost(self) -> int:
        return STREAM_COST + RECORD_COST * len(self.records) + self.size

    def add(self, records: Sequence[bytes]) -> int:
        size = sum(map(len, records))
        self.records += map(Record, itertools.count(self.tail + 1), records)
        self.size += size
        return size

    def lease(self, producer: str, expires: float) -> Lease:
        self.producer, self.expires = producer, expires
        return Lease(self.new.id, producer, self.fence, expires, self.tail, self.cancelled)

    def info(self) -> StreamInfo:
        return StreamInfo(
            id=self.new.id,
            owner=self.new.owner,
            labels=self.new.labels,
            created=self.created,
            changed=self.changed,
            tail=self.tail,
            size=self.size,
            end=self.end,
            cancelled=self.cancelled,
            producer=self.producer,
            fence=self.fence,
            expires=self.expires,
        )

    def ring(self) -> None:
        self.followers.ring()
        self.stoppers.ring()


class MemoryStore:
    """Every method is one step of the event loop; only `wait` and `cancelled` wait."""

    def __init__(self, limit: int = LIMIT, clock: Clock = time.time) -> None:
        self.limit = limit
        self._clock = clock
        self._logs: dict[str, _Log] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._numbers = itertools.count(1)
        self._cost = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for log in list(self._logs.values()):
            self._forget(log)

    def _log(self, stream: str) -> _Log:
        if stream not in self._logs:
            raise StreamMissing(f"there is no stream {stream!r}")
        return self._logs[stream]

    def _room(self, records: Sequence[bytes]) -> None:
        """Make room for them and a stream, or raise."""
        cost = STREAM_COST + RECORD_COST * len(records) + sum(map(len, records))
        while self._cost + cost > self.limit:
            closed = (log for log in self._logs.values() if log.end is not None)
            oldest = min(closed, key=lambda log: log.changed, default=None)
            if oldest is None:
                raise StoreError(f"{self.limit} bytes of memory are full of open streams")
            self._forget(oldest)

    def _forget(self, log: _Log) -> None:
        del self._logs[log.new.id]
        self._keys.pop((log.new.owner, log.new.key), None)
        self._cost -= log.cost
        log.ring()

    async def create(
        self,
        new: NewStream,
        records: Sequence[bytes] = (),
        producer: str = "",
        seconds: float = 0.0,
    ) -> Created:
        refuse_halves(new)
        known = self._keys.get((new.owner, new.key)) if new.key else None
        if log := self._logs.get(known or new.id):
            if log.new.owner != new.owner:
                raise StoreError(f"the id {new.id!r} is taken")
            return Created(log.info(), fresh=False)
        self._room(records)
        log = self._logs[new.id] = _Log(new, next(self._numbers), self._clock())
        self._cost += log.cost
        if new.key:
            self._keys[new.owner, new.key] = new.id
        self._extend(log, records)
        lease = self._grant(log, producer, seconds) if producer else None
        return Created(log.info(), fresh=True, lease=lease)

    def _extend(self, log: _Log, records: Sequence[bytes]) -> None:
        self._cost += RECORD_COST * len(records) + log.add(records)

    async def append(
        self,
        stream: str,
        records: Sequence[bytes],
        at: Offset,
        fence: int = 0,
        end: End | None = None,
    ) -> Ack:
        log = self._log(stream)
        if log.end is not None and log.end == end and not records:
            return Ack(log.tail, log.cancelled)  # it is closed once more
        admit(stream, log, at, fence)
        self._room(records)
        self._extend(log, records)
        if end is not None:
            log.end, log.changed = end, self._clock()
        log.followers.ring()
        if end is not None:
            log.stoppers.ring()
        return Ack(log.tail, log.cancelled)

    async def close(self, stream: str, end: End, at: Offset, fence: int = 0) -> Ack:
        return await self.append(stream, (), at, fence, end)

    async def read(self, stream: str, after: Offset = BEGINNING, limit: int = 1000) -> Page:
        log = self._log(stream)
        if not BEGINNING <= after <= log.tail:
            raise OffsetUnknown(f"stream {stream!r} has no offset {after}")
        records = log.records[after : after + limit]
        sizes = itertools.accumulate(len(record.data) for record in records)
        fitting = sum(1 for _ in itertools.takewhile(lambda size: size <= PAGE_BYTES, sizes))
        records = records[: max(fitting, 1)]
        following = after + len(records)
        return Page(records, following, log.end if following == log.tail else None)

    async def wait(self, stream: str, after: Offset, seconds: float) -> bool:
        log = self._log(stream)
        if log.tail <= after and log.end is None:
            await log.followers.wait(seconds)
            log = self._log(stream)
        return log.tail > after or log.end is not None

    async def info(self, stream: str) -> StreamInfo:
        return self._log(stream).info()

    async def find(self, owner: str | None, search: Search = EVERYTHING, /) -> Found:
        before = float("inf") if search.before is None else search.before
        found: list[_Log] = []
        for log in reversed(self._logs.values()):
            if log.number >= before or owner not in {None, log.new.owner}:
                continue
            if matches(log.info(), search):
                found.append(log)
            if len(found) == search.limit:
                return Found([log.info() for log in found], found[-1].number)
        return Found([log.info() for log in found])

    async def delete(self, stream: str) -> None:
        self._forget(self._log(stream))

    async def cancel(self, stream: str) -> bool:
        log = self._log(stream)
        if log.end is None:
            log.cancelled = True
            log.stoppers.ring()
        return log.end is None

    async def cancelled(self, stream: str, seconds: float) -> bool:
        log = self._log(stream)
        if not log.cancelled and log.end is None:
            await log.stoppers.wait(seconds)
            log = self._log(stream)
        return log.cancelled

    async def attend(self, stream: str, seconds: float) -> None:
        log = self._log(stream)
        log.attended = max(log.attended, self._clock() + seconds)

    async def attended(self, stream: str) -> float:
        return max(self._log(stream).attended - self._clock(), 0.0)

    async def acquire(self, stream: str, producer: str, seconds: float) -> Lease | None:
        log = self._log(stream)
        if log.end is not None:
            raise StreamClosed(f"stream {stream!r} is closed ({log.end.state})")
        if log.producer != producer and log.expires > self._clock():
            return None
        return self._grant(log, producer, seconds)

    def _grant(self, log: _Log, producer: str, seconds: float) -> Lease:
        log.fence += 1
        return log.lease(producer, self._clock() + seconds)

    async def renew(self, lease: Lease, seconds: float) -> Lease:
        log = self._log(lease.stream)
        admit(lease.stream, log, log.tail, lease.fence)
        return log.lease(lease.producer, self._clock() + seconds)

    async def release(self, lease: Lease) -> None:
        log = self._logs.get(lease.stream)
        if log is not None and log.end is None and log.fence == lease.fence:
            log.fence += 1
            log.lease("", 0.0)

    async def orphans(self, limit: int = 100) -> list[StreamInfo]:
        infos = (log.info() for log in self._logs.values())
        lost = [info for info in infos if info.orphaned(self._clock())]
        return sorted(lost, key=lambda info: info.expires)[:limit]

    async def prune(self, age: float | None = None, size: int | None = None) -> int:
        count = len(self._logs)
        for log in list(self._logs.values()):
            if age is not None and self._over(log) <= self._clock() - age:
                self._forget(log)
        total = sum(log.size for log in self._logs.values())
        for log in sorted(self._logs.values(), key=lambda log: log.changed):
            if size is not None and total > size and log.end is not None:
                total -= log.size
                self._forget(log)
        return count - len(self._logs)

    def _over(self, log: _Log) -> float:
        """Since when nobody works on it; never, for one with a live producer."""
        return log.changed if log.end is not None else max(log.expires, log.created)


def from_url(url: str) -> MemoryStore:
    """`memory:` or `memory:?limit=BYTES`."""
    settings = dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))
    limit = settings.pop("limit", str(LIMIT))
    if settings or not limit.isdecimal():
        raise ConfigurationError(
            f"{url!r} can't be read", hint="Write memory: or memory:?limit=BYTES."
        )
    return MemoryStore(int(limit))
