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
from unbroken.stores.sqlite import rows
from unbroken.stores.sqlite.file import Settings, connect, prepare, told
from unbroken.stores.sqlite.log import Log, News
from unbroken.stores.sqlite.watch import Watch, Watches
from unbroken.stores.sqlite.writer import LOOK, Op, Writer
from unbroken.stores.notify import Notifier
from unbroken.stores.base import (
    BEGINNING,
    EVERYTHING,
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
)
from unbroken.stores.registry import shown

_READERS = 2  # threads that read; a reader never waits for the writer
_LINGER = 1.0  # seconds that others' writes are looked for after the last wait
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
        database = self._database = await asyncio.to_thread(prepare, self._settings)
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._readers = ThreadPoolExecutor(_READERS, "unbroken-reader")
        log = Log(database, self._clock)
        self._writer = Writer(log, self._settings, self._window, self._settled)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Commit what was asked for, wake who waits, and leave the file in good order."""
        writer, database = self._open, self._database
        await writer.stop()
        self._writer = None
        self._watches.fail()
        if self._refreshing is not None:
            await self._refreshing
        await asyncio.to_thread(self._readers.shutdown)
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
        seconds: float = 0.0,
    ) -> Created:
        return await self._open.do(lambda log: log.create(new, records, producer, seconds))

    async def append(
        self,
        stream: str,
        records: Sequence[bytes],
        at: Offset,
        fence: int = 0,
        end: End | None = None,
    ) -> Ack:
        return await self._open.do(lambda log: log.append(stream, records, at, fence, end))

    async def close(self, stream: str, end: End, at: Offset, fence: int = 0) -> Ack:
        return await self._open.do(lambda log: log.append(stream, (), at, fence, end))

    async def delete(self, stream: str) -> None:
        await self._open.do(lambda log: log.delete(stream))

    async def cancel(self, stream: str) -> bool:
        return await self._open.do(lambda log: log.cancel(stream))

    async def attend(self, stream: str, seconds: float) -> None:
        await self._open.do(lambda log: log.attend(stream, seconds))

    async def acquire(self, stream: str, producer: str, seconds: float) -> Lease | None:
        return await self._open.do(lambda log: log.acquire(stream, producer, seconds))

    async def renew(self, lease: Lease, seconds: float) -> Lease:
        return await self._open.do(lambda log: log.renew(lease, seconds))

    async def release(self, lease: Lease) -> None:
        await self._open.do(lambda log: log.release(lease))

    async def prune(self, age: float | None = None, size: int | None = None) -> int:
        count = 0
        if age is not None:
            count += await self._in_pieces(lambda log: log.prune_age(age))
        if size is not None:
            count += await self._in_pieces(lambda log: log.prune_size(size))
        return count

    async def _in_pieces(self, work: Callable[[Log], int]) -> int:
        """Until nothing is left to do; the producers' appends go in between."""
        total = 0
        while count := await self._open.do(work):
            total += count
        return total

    # Reading: recent records from memory, everything else by a thread of its own.

    async def _ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        self._open  # noqa: B018 (raises if it is closed)
        return await asyncio.get_running_loop().run_in_executor(
            self._readers, self._answer, question
        )

    def _answer(self, question: Callable[[sqlite3.Connection], T]) -> T:
        with told(self._settings):
            if not hasattr(self._local, "database"):
                self._local.database = connect(self._settings, reader=True)
                self._connections.append(self._local.database)
            return question(self._local.database)

    async def info(self, stream: str) -> StreamInfo:
        return await self._ask(lambda database: rows.info(database, stream))

    async def find(self, owner: str | None, search: Search = EVERYTHING, /) -> Found:
        return await self._ask(lambda database: rows.find(database, owner, search))

    async def attended(self, stream: str) -> float:
        now = self._clock()
        return await self._ask(lambda database: rows.attended(database, stream, now))

    async def orphans(self, limit: int = 100) -> list[StreamInfo]:
        now = self._clock()
        return await self._ask(lambda database: rows.orphans(database, now, limit))

    async def read(self, stream: str, after: Offset = BEGINNING, limit: int = 1000) -> Page:
        watch = self._watches.get(stream)
        if watch is not None and self._open.looked:
            page = watch.page(after, limit, current=watch.generation == self._watches.generation)
            if page is not None:
                return page
        return await self._ask(lambda database: rows.page(database, stream, after, limit))

    # Waiting.

    async def wait(self, stream: str, after: Offset, seconds: float) -> bool:
        with self._watches.pinned(stream) as watch:

            def reached() -> bool:
                return watch.tail > after or watch.end is not None

            return await self._until(stream, watch, watch.followers, reached, seconds)

    async def cancelled(self, stream: str, seconds: float) -> bool:
        with self._watches.pinned(stream) as watch:

            def reached() -> bool:
                return watch.cancelled or watch.end is not None

            await self._until(stream, watch, watch.stoppers, reached, seconds)
            return watch.cancelled

    async def _until(
        self,
        stream: str,
        watch: Watch,
        waiters: Notifier,
        reached: Callable[[], bool],
        seconds: float,
    ) -> bool:
        """Wait until the watch knows it. Being woken does not say so: news may be old news."""
        deadline = time.monotonic() + seconds
        await self._know(stream, watch, seconds)
        while not reached() and (left := deadline - time.monotonic()) > 0:
            await waiters.wait(left)
            await self._know(stream, watch, left)
        return reached()

    async def _know(self, stream: str, watch: Watch, seconds: float) -> None:
        """Bring a pinned watch up to date: at once if nothing is known, else with all others."""
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

    def _settled(self, ops: Sequence[Op[Any]], news: dict[str, News], foreign: bool) -> None:  # noqa: FBT001
        """In the event loop, after a commit or a look around."""
        for op in ops:
            op.settle()
        self._watches.hear(news)
        if foreign:
            self._watches.generation += 1
            self._refresh_soon()

    def _refresh_soon(self) -> None:
        self._stale = True
        if self._refreshing is None:
            self._refreshing = asyncio.ensure_future(self._refresh())

    async def _refresh(self) -> None:
        """Tell those who wait what others wrote; again, but not at once, if they go on writing."""
        try:
            while self._stale and self._writer is not None:
                self._stale = False
                if streams := self._watches.stale():
                    await self._catch_up(streams)
                await asyncio.sleep(LOOK)
        except StoreError:
            self._watches.fail()  # each asks for itself and hears what it is
        finally:
            self._refreshing = None


def from_url(url: str) -> SqliteStore:
    """`sqlite:///relative.db`, `sqlite:////absolute.db`; `?synchronous=normal`."""
    parts = urlsplit(url)
    settings = dict(parse_qsl(parts.query, keep_blank_values=True))
    synchronous = settings.pop("synchronous", "full")
    path = unquote(parts.path.removeprefix("/"))
    if settings or parts.netloc or not path:
        raise ConfigurationError(
            f"{shown(url)!r} can't be read",
            hint="Write sqlite:///relative.db or sqlite:////absolute.db.",
        )
    return SqliteStore(path, synchronous)
