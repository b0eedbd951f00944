"""Streams in one SQLite file, shared by the processes of one machine.

What is acknowledged is committed, and followers see nothing else. So:

- a process killed at any moment (`kill -9`) loses nothing that was acknowledged or read, and
  leaves nothing half written;
- a power failure or a crash of the machine loses nothing either with `synchronous=full`, which
  is the default, on a disk that honours fsync. With `synchronous=normal` commits are handed to
  the operating system only: what it had not written back is lost (on Linux up to some 30
  seconds), from the end and whole commits at a time. A reader may then hold more than the file:
  its offset is unknown (OffsetUnknown).

An append is durable some 10 ms after the call, because the appends of that time share a commit.
The file must lie on a local disk: its write-ahead log needs memory shared by all processes.
"""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from unbroken.errors import ConfigurationError, StoreError
from unbroken.stores.base import (
    BEGINNING,
    EVERYTHING,
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
)
from unbroken.stores.counters import Charge, Window
from unbroken.stores.registry import redacted
from unbroken.stores.sqlite import processes, rows
from unbroken.stores.sqlite.file import Settings, connect, open_database, translate_errors
from unbroken.stores.sqlite.log import Change, Log
from unbroken.stores.sqlite.watch import Watch, Watches
from unbroken.stores.sqlite.writer import POLL_ACTIVE, Operation, Writer

_READERS = 2  # threads that read; a reader never waits for the writer
_LINGER = 1.0  # seconds for which others' writes are polled after the last wait
T = TypeVar("T")


class SqliteStore:
    """`window` seconds of appends share a commit; `busy` seconds a commit waits for others'."""

    def __init__(
        self,
        path: str,
        synchronous: str = "full",
        window: float = 0.01,
        busy: float = 10.0,
        clock: Clock = time.time,
    ) -> None:
        if synchronous not in {"full", "normal"}:
            raise ConfigurationError(f"synchronous is full or normal, not {synchronous!r}")
        self._settings = Settings(path, synchronous, busy)
        self._window = window
        self._clock = clock
        self._writer: Writer | None = None
        self._database: sqlite3.Connection | None = None
        self._watches = Watches()
        self._stale = False
        self._refreshing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        database = self._database = await asyncio.to_thread(open_database, self._settings)
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._readers = ThreadPoolExecutor(_READERS, "unbroken-reader")
        # Searches have a thread of their own: other reads never wait for them.
        self._searcher = ThreadPoolExecutor(1, "unbroken-searcher")
        log = Log(database, self._clock)
        self._writer = Writer(log, self._settings, self._window, self._settled)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Commit what was asked for, wake all waiters, and close the file."""
        writer, database = self._open, self._database
        await writer.stop()
        self._writer = None
        self._watches.fail()
        if self._refreshing is not None:
            await self._refreshing
        for executor in (self._readers, self._searcher):
            await asyncio.to_thread(executor.shutdown)
        for connection in [*self._connections, database]:
            assert connection is not None
            await asyncio.to_thread(connection.close)

    @property
    def _open(self) -> Writer:
        if self._writer is None:
            raise StoreError("the store is closed", hint="Use it within `async with`.")
        return self._writer

    # Writing: everything is done by the writer.

    async def create(
        self,
        new: NewStream,
        records: Sequence[bytes] = (),
        producer: str = "",
        charges: Sequence[Charge] = (),
    ) -> Created:
        return await self._open.do(lambda log: log.create(new, records, producer, charges))

    async def append(
        self, stream: str, records: Sequence[bytes], at: Offset, fence: int = 0
    ) -> Ack:
        return await self._open.do(lambda log: log.append(stream, records, at, fence))

    async def close(
        self,
        stream: str,
        end: End,
        at: Offset,
        fence: int = 0,
        records: Sequence[bytes] = (),
        charges: Sequence[Charge] = (),
    ) -> Ack:
        return await self._open.do(lambda log: log.close(stream, end, at, fence, records, charges))

    async def delete(self, stream: str) -> None:
        num = await self._open.do(lambda log: log.delete(stream))
        left = 0 if num is None else 1
        while left:  # other writes go in between
            left = await self._open.do(lambda log: log.delete_records(num or 0))

    async def cancel(self, stream: str) -> bool:
        return await self._open.do(lambda log: log.cancel(stream))

    async def heartbeat(self, process: str, seconds: float) -> Heartbeat:
        return await self._open.do(lambda log: processes.heartbeat(log, process, seconds))

    async def adopt(self, process: str, limit: int = 20) -> list[Lease]:
        now = self._clock()
        if not await self._ask(lambda database: rows.any_orphan(database, now)):
            return []
        return await self._open.do(lambda log: processes.adopt(log, process, limit))

    async def release_all(self, process: str) -> int:
        return await self._open.do(lambda log: processes.release_all(log, process))

    async def claim(self, name: str, process: str, seconds: float) -> bool:
        return await self._open.do(lambda log: processes.claim(log, name, process, seconds))

    async def announce_readers(self, streams: Sequence[str], seconds: float) -> None:
        some = [*streams]
        await self._open.do(lambda log: processes.announce_readers(log, some, seconds))

    async def charge(self, charges: Sequence[Charge]) -> None:
        await self._open.do(lambda log: log.charge(charges))

    async def prune(self, age: float | None = None, size: int | None = None) -> Pruned:
        return await self._open.do(lambda log: processes.prune(log, age, size))

    async def ping(self) -> None:
        await self._open.do(processes.ping)

    # Reading: recent records from memory, everything else by a thread of its own.

    async def _ask(
        self,
        query: Callable[[sqlite3.Connection], T],
        executor: ThreadPoolExecutor | None = None,
    ) -> T:
        self._open  # noqa: B018 (raises if it is closed)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(executor or self._readers, self._answer, query)

    def _answer(self, query: Callable[[sqlite3.Connection], T]) -> T:
        with translate_errors(self._settings):
            if not hasattr(self._local, "database"):
                self._local.database = connect(self._settings, reader=True)
                self._connections.append(self._local.database)
            return query(self._local.database)

    async def info(self, stream: str) -> StreamInfo:
        return await self._ask(lambda database: rows.info(database, stream))

    async def find(self, owner: str | None, search: Search = EVERYTHING, /) -> Found:
        return await self._ask(lambda database: rows.find(database, owner, search), self._searcher)

    async def reader_leases(self, streams: Sequence[str]) -> dict[str, float]:
        now = self._clock()
        return await self._ask(lambda database: rows.reader_leases(database, streams, now))

    async def usage(self, counters: Sequence[str], window: Window = "day") -> list[dict[str, int]]:
        now = self._clock()
        return await self._ask(
            lambda database: [rows.usage(database, name, window, now) for name in counters]
        )

    async def read(self, stream: str, after: Offset = BEGINNING, limit: int = 1000) -> Page:
        watch = self._watches.get(stream)
        if watch is not None and self._open.looked:
            page = watch.page(after, limit, current=watch.generation == self._watches.generation)
            if page is not None:
                return page
        return await self._ask(lambda database: rows.page(database, stream, after, limit))

    # Waiting.

    async def wait(self, stream: str, after: Offset, seconds: float) -> bool:
        """Wait until the watch knows of more. A wake-up alone does not mean that it does."""
        with self._watches.acquire(stream) as watch:
            deadline = time.monotonic() + seconds
            await self._know(stream, watch, seconds)
            while not _has_more(watch, after) and (left := deadline - time.monotonic()) > 0:
                await watch.followers.wait(left)
                await self._know(stream, watch, left)
            return _has_more(watch, after)

    async def _know(self, stream: str, watch: Watch, seconds: float) -> None:
        """Bring a watch up to date: at once if nothing is known, else together with all others."""
        self._open.watch(seconds + _LINGER)
        if watch.generation < 0 and not watch.gone:
            await self._catch_up([stream])
        elif watch.generation != self._watches.generation:
            self._refresh_soon()
        if watch.gone:
            raise rows.missing(stream)

    async def _catch_up(self, streams: list[str]) -> None:
        generation = self._watches.generation
        heads = await self._ask(lambda database: rows.heads(database, streams))
        self._watches.catch_up(generation, heads, streams)

    def _settled(
        self,
        operations: Sequence[Operation[Any]],
        changes: dict[str, Change],
        foreign: bool,  # noqa: FBT001
    ) -> None:
        """In the event loop, after a commit or a poll."""
        for op in operations:
            op.resolve()
        self._watches.hear(changes)
        if foreign:
            self._watches.generation += 1
            self._refresh_soon()

    def _refresh_soon(self) -> None:
        self._stale = True
        if self._refreshing is None:
            self._refreshing = asyncio.ensure_future(self._refresh())

    async def _refresh(self) -> None:
        """Read what others wrote for all waiters; again, with pauses, while others write."""
        try:
            while self._stale and self._writer is not None:
                self._stale = False
                if streams := self._watches.stale():
                    await self._catch_up(streams)
                await asyncio.sleep(POLL_ACTIVE)
        except StoreError:
            self._watches.fail()  # each waiter asks for itself, and gets the error
        finally:
            self._refreshing = None


def _has_more(watch: Watch, after: Offset) -> bool:
    return watch.tail > after or watch.end is not None


def from_url(url: str) -> SqliteStore:
    """Open `sqlite:///relative.db`, `sqlite:////absolute.db`; `?synchronous=normal`."""
    parts = urlsplit(url)
    settings = dict(parse_qsl(parts.query, keep_blank_values=True))
    synchronous = settings.pop("synchronous", "full")
    path = unquote(parts.path.removeprefix("/"))
    if settings or parts.netloc or not path:
        raise ConfigurationError(
            f"{redacted(url)!r} can't be read",
            hint="Write sqlite:///relative.db or sqlite:////absolute.db.",
        )
    return SqliteStore(path, synchronous)
