"""Streams in this process's memory: for tests, for a first try, for answers that need not be kept.

The same contract as every store, but a restart forgets everything and no other process sees it.
Memory is bounded: when all records together pass the limit, the closed streams that ended
longest ago go; when only open ones are left, appending raises StoreError.
"""

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Self
from urllib.parse import parse_qsl, urlsplit

from unbroken.errors import ConfigurationError, OffsetUnknown, StoreError, StreamMissing
from unbroken.stores.base import (
    BEGINNING,
    EVERYTHING,
    FIND_SCAN,
    PAGE_BYTES,
    PROCESS_MEMORY,
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
    Record,
    Search,
    StreamInfo,
    check_append,
    check_unicode,
    matches,
)
from unbroken.stores.counters import Charge, Window, check_charges, check_limits, window_end
from unbroken.stores.notify import Notifier

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
        self.fence = self.takeovers = 0
        self.released = self.attended = 0.0
        self.followers = Notifier()

    @property
    def tail(self) -> Offset:
        return len(self.records)

    @property
    def cost(self) -> int:
        return STREAM_COST + RECORD_COST * len(self.records) + self.size

    def add(self, records: Sequence[bytes]) -> None:
        self.records += map(Record, itertools.count(self.tail + 1), records)
        self.size += sum(map(len, records))
        if records:
            self.takeovers = 0

    def lease(self, producer: str) -> Lease:
        self.fence += 1
        self.producer = producer
        return Lease(self.new.id, producer, self.fence, self.tail, self.cancelled, self.takeovers)

    def release(self, now: float) -> None:
        self.fence += 1
        self.producer, self.released = "", now

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
        )


class _Counters:
    """The sums of the current windows."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sums: dict[tuple[str, Window], tuple[int, dict[str, int]]] = {}

    def get(self, counter: str, window: Window) -> dict[str, int]:
        end, sums = self._sums.get((counter, window), (0, {}))
        return sums if end == window_end(window, self._clock()) else {}

    def charge(self, charges: Sequence[Charge]) -> None:
        check_charges(charges)
        now = self._clock()
        for charge in charges:
            check_limits(charge, self.get(charge.counter, charge.window), now)
        for charge in charges:
            sums = dict(self.get(charge.counter, charge.window))
            for field, amount in charge.amounts.items():
                sums[field] = sums.get(field, 0) + amount
            self._sums[charge.counter, charge.window] = window_end(charge.window, now), sums

    def forget_old(self) -> None:
        now = self._clock()
        self._sums = {key: kept for key, kept in self._sums.items() if kept[0] > now}


class MemoryStore:
    """Every method is one step of the event loop; only `wait` waits."""

    def __init__(self, limit: int = LIMIT, clock: Clock = time.time) -> None:
        self.limit = limit
        self._clock = clock
        self._logs: dict[str, _Log] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._produced: dict[str, _Log] = {}  # open streams that have or need a producer
        self._closed: dict[str, _Log] = {}  # in the order of their end
        self._processes: dict[str, float] = {}  # until when their heartbeat is fresh
        self._claims: dict[str, tuple[str, float]] = {}
        self._counters = _Counters(clock)
        self._numbers = itertools.count(1)
        self._cost = self._size = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for log in list(self._logs.values()):
            self._forget(log)

    def _log(self, stream: str) -> _Log:
        if stream not in self._logs:
            raise StreamMissing(f"there is no stream {stream!r}")
        return self._logs[stream]

    def _make_room(self, records: Sequence[bytes]) -> None:
        """Make room for them and a stream, or raise."""
        cost = STREAM_COST + RECORD_COST * len(records) + sum(map(len, records))
        while self._cost + cost > self.limit:
            oldest = next(iter(self._closed.values()), None)
            if oldest is None:
                raise StoreError(f"{self.limit} bytes of memory are full of open streams")
            self._forget(oldest)

    def _forget(self, log: _Log) -> None:
        del self._logs[log.new.id]
        self._keys.pop((log.new.owner, log.new.key), None)
        self._produced.pop(log.new.id, None)
        self._closed.pop(log.new.id, None)
        self._cost -= log.cost
        self._size -= log.size
        log.followers.notify_all()

    async def create(
        self,
        new: NewStream,
        records: Sequence[bytes] = (),
        producer: str = "",
        charges: Sequence[Charge] = (),
    ) -> Created:
        check_unicode(new)
        known = self._keys.get((new.owner, new.key)) if new.key else None
        if log := self._logs.get(known or new.id):
            if log.new.owner != new.owner:
                raise StoreError(f"the id {new.id!r} is taken")
            return Created(log.info(), fresh=False)
        self._make_room(records)
        self._counters.charge(charges)
        log = self._logs[new.id] = _Log(new, next(self._numbers), self._clock())
        self._cost += log.cost
        if new.key:
            self._keys[new.owner, new.key] = new.id
        self._extend(log, records)
        if producer:
            self._produced[new.id] = log
        lease = log.lease(producer) if producer else None
        return Created(log.info(), fresh=True, lease=lease)

    def _extend(self, log: _Log, records: Sequence[bytes]) -> None:
        cost, size = log.cost, log.size
        log.add(records)
        self._cost += log.cost - cost
        self._size += log.size - size

    async def append(
        self, stream: str, records: Sequence[bytes], at: Offset, fence: int = 0
    ) -> Ack:
        log = self._log(stream)
        check_append(stream, log, at, fence)
        self._make_room(records)
        self._extend(log, records)
        log.followers.notify_all()
        return Ack(log.tail, log.cancelled)

    async def close(
        self,
        stream: str,
        end: End,
        at: Offset,
        fence: int = 0,
        records: Sequence[bytes] = (),
        charges: Sequence[Charge] = (),
    ) -> Ack:
        log = self._log(stream)
        if log.end == end and not records:
            return Ack(log.tail, log.cancelled)  # it is closed once more
        check_append(stream, log, at, fence)
        if records:  # an end alone has room in any case: what can't be stored has to end
            self._make_room(records)
        self._counters.charge(charges)
        self._extend(log, records)
        log.end, log.changed = end, self._clock()
        self._produced.pop(stream, None)
        self._closed[stream] = log
        log.followers.notify_all()
        return Ack(log.tail, log.cancelled)

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
        older = (log for log in reversed(self._logs.values()) if log.number < before)
        owned = (log for log in older if owner in {None, log.new.owner})
        found: list[StreamInfo] = []
        for scanned, log in enumerate(owned, 1):
            if matches(search, log.new.labels, closed=log.end is not None):
                found.append(log.info())
            if len(found) == search.limit or scanned == FIND_SCAN:
                return Found(found, log.number)
        return Found(found)

    async def delete(self, stream: str) -> None:
        self._forget(self._log(stream))

    async def cancel(self, stream: str) -> bool:
        log = self._log(stream)
        log.cancelled = log.cancelled or log.end is None
        return log.end is None

    # Processes

    def _alive(self, process: str) -> bool:
        return self._processes.get(process, 0.0) > self._clock()

    def _of(self, process: str) -> Iterator[_Log]:
        return (log for log in self._produced.values() if log.producer == process)

    async def heartbeat(self, process: str, seconds: float) -> Heartbeat:
        mine = [*self._of(process)]
        lapsed = not self._alive(process) and (process in self._processes or bool(mine))
        self._processes[process] = self._clock() + seconds
        return Heartbeat(
            lapsed,
            [log.new.id for log in mine if log.cancelled],
            {log.new.id: log.fence for log in mine if lapsed},
        )

    async def adopt(self, process: str, limit: int = 20) -> list[Lease]:
        if not self._alive(process):
            return []
        orphans = sorted(self._orphans(), key=self._since)
        return [self._take_over(log, process) for log in orphans[:limit]]

    def _orphans(self) -> Iterator[_Log]:
        """Return open streams whose process is dead, or has released them (it is empty then)."""
        return (log for log in self._produced.values() if not self._alive(log.producer))

    def _since(self, log: _Log) -> float:
        """Return when the stream lost its producer."""
        return self._processes.get(log.producer, log.created) if log.producer else log.released

    def _take_over(self, log: _Log, process: str) -> Lease:
        log.takeovers += bool(log.producer)
        return log.lease(process)

    async def release_all(self, process: str) -> int:
        mine = [*self._of(process)]
        for log in mine:
            log.release(self._clock())
        self._processes.pop(process, None)
        return len(mine)

    async def claim(self, name: str, process: str, seconds: float) -> bool:
        holder, until = self._claims.get(name, ("", 0.0))
        if holder != process and until > self._clock():
            return False
        self._claims[name] = process, self._clock() + seconds
        return True

    # Readers at other processes

    async def announce_readers(self, streams: Sequence[str], seconds: float) -> None:
        until = self._clock() + seconds
        for log in self._known(streams):
            log.attended = max(log.attended, until)

    async def reader_leases(self, streams: Sequence[str]) -> dict[str, float]:
        now = self._clock()
        logs = self._known(streams)
        return {log.new.id: log.attended - now for log in logs if log.attended > now}

    def _known(self, streams: Iterable[str]) -> Iterator[_Log]:
        return (self._logs[stream] for stream in streams if stream in self._logs)

    # Counters

    async def charge(self, charges: Sequence[Charge]) -> None:
        self._counters.charge(charges)

    async def usage(self, counters: Sequence[str], window: Window = "day") -> list[dict[str, int]]:
        return [dict(self._counters.get(counter, window)) for counter in counters]

    # Maintenance

    async def prune(self, age: float | None = None, size: int | None = None) -> Pruned:
        self._counters.forget_old()
        old = [*itertools.islice(self._prunable(age, size), PRUNE_BATCH)]
        for log in old:
            self._forget(log)
        if not old:
            self._forget_processes()
        return Pruned(len(old), len(old) == PRUNE_BATCH)

    def _prunable(self, age: float | None, size: int | None) -> Iterator[_Log]:
        before = float("-inf") if age is None else self._clock() - age
        excess = 0 if size is None else self._size - size
        for log in self._orphans():
            if max(self._since(log), log.created) <= before:
                excess -= log.size
                yield log
        for log in self._closed.values():
            if log.changed > before and excess <= 0:
                return
            excess -= log.size
            yield log

    def _forget_processes(self) -> None:
        """Forget dead processes of which no stream is left."""
        kept = {log.producer for log in self._produced.values()}
        before = self._clock() - PROCESS_MEMORY
        self._processes = {p: t for p, t in self._processes.items() if t > before or p in kept}

    async def ping(self) -> None:
        """Memory can always be written."""


def from_url(url: str) -> MemoryStore:
    """Open `memory:` or `memory:?limit=BYTES`."""
    settings = dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))
    limit = settings.pop("limit", str(LIMIT))
    if settings or not limit.isdecimal():
        raise ConfigurationError(
            f"{url!r} can't be read", hint="Write memory: or memory:?limit=BYTES."
        )
    return MemoryStore(int(limit))
