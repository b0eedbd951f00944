"""The writer: one thread, one connection, one transaction for all that came together.

A commit costs the same for one append as for a hundred, so appends wait for each other: the
first after a pause is committed at once, and the next commit begins no sooner than `window`
seconds after the last. Callers get their result when the commit stands.

Between commits, as long as a stream has followers, the writer polls every few milliseconds whether
another process has written: SQLite keeps a counter for that in shared memory, and reading it costs
3 microseconds (docs/adr/0007-sqlite.md compares it with other ways).
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Generic, TypeVar

from unbroken.errors import StoreError
from unbroken.stores.sqlite.file import Settings, translate_errors
from unbroken.stores.sqlite.log import Change, Log

POLL_ACTIVE = 0.005  # seconds between two polls, if others wrote within ACTIVE_WINDOW
POLL_IDLE = 0.02  # if they did not: most files have one process
ACTIVE_WINDOW = 30.0
FRESH = 0.1  # seconds for which a poll counts: longer, and the thread is held up
T = TypeVar("T")


class Operation(Generic[T]):
    """A piece of work within a transaction, and the future of its caller."""

    __slots__ = ("error", "future", "result", "work")

    def __init__(self, work: Callable[[Log], T], future: asyncio.Future[T]) -> None:
        self.work = work
        self.future = future
        self.result: T | None = None
        self.error: StoreError | None = None

    def run(self, log: Log) -> None:
        """Do the work. A refusal is no fault of the transaction: it has changed nothing."""
        self.error = None
        try:
            self.result = self.work(log)
        except StoreError as error:
            self.error = error

    def resolve(self) -> None:
        """Give the caller its result, in the event loop."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)  # type: ignore[arg-type]


Settled = Callable[[Sequence[Operation[Any]], dict[str, Change], bool], None]


class Writer:
    """The thread. `settled` is called in the event loop with what was done, and if others wrote.

    Its queue is bounded by its callers: each waits for its own append.
    """

    def __init__(self, log: Log, settings: Settings, window: float, settled: Settled) -> None:
        self._log = log
        self._settings = settings
        self._window = window
        self._settled = settled
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Operation[Any] | None] = queue.SimpleQueue()
        self._under_way: list[Operation[Any]] = []
        self._next = 0.0
        self._watched = self._looked = 0.0
        self._foreign = time.monotonic()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="unbroken-store", daemon=True)
        self._thread.start()

    async def do(self, work: Callable[[Log], T]) -> T:
        """Return the result of `work`, once it is committed."""
        if self._stopping:
            raise StoreError("the store is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(Operation(work, future))
        return await future

    def watch(self, seconds: float) -> None:
        """Poll for what others write, for so long."""
        now = time.monotonic()
        asleep = now > self._watched
        self._watched = max(self._watched, now + seconds)
        if asleep:
            self._queue.put(None)

    @property
    def looked(self) -> bool:
        """Whether the last poll is fresh."""
        return time.monotonic() < self._looked + FRESH

    async def stop(self) -> None:
        """Do what was asked for, then end."""
        self._stopping = True
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        try:
            while not (self._stopping and self._queue.empty()):
                self._step()
        finally:  # no caller must wait for a thread that is gone
            self._stopping = True
            rest = self._under_way + self._drain()
            for op in rest:
                op.error = StoreError("the store's writer has ended")
            self._report(rest, {}, foreign=False)

    def _step(self) -> None:
        ops = self._under_way = self._next_batch()
        if ops:
            self._write(ops)
        elif self._changed():
            self._report([], {}, foreign=True)
        self._under_way = []

    def _next_batch(self) -> list[Operation[Any]]:
        """Return what is to be done next; nothing if it is time to poll."""
        try:
            first = self._queue.get(timeout=self._poll_timeout())
        except queue.Empty:
            return []
        if first is None:
            return []
        time.sleep(max(0.0, self._next - time.monotonic()))
        return [first, *self._drain()]

    def _poll_timeout(self) -> float | None:
        """Return the seconds to wait for work before polling; None without followers."""
        now = time.monotonic()
        if now > self._watched:
            return None
        return POLL_ACTIVE if now < self._foreign + ACTIVE_WINDOW else POLL_IDLE

    def _drain(self) -> list[Operation[Any]]:
        ops = []
        while not self._queue.empty():  # no other thread takes from it
            ops.append(self._queue.get())
        return [op for op in ops if op is not None]

    def _changed(self) -> bool:
        try:
            with translate_errors(self._settings):
                changed = self._log.changed_externally()
        except StoreError:
            changed = True  # the next read raises it
        self._note(foreign=changed)
        if changed:
            self._log.forget()
        return changed

    def _note(self, *, foreign: bool) -> None:
        self._looked = time.monotonic()
        if foreign:
            self._foreign = self._looked

    def _write(self, ops: list[Operation[Any]]) -> None:
        try:
            with translate_errors(self._settings):
                foreign = self._log.begin()
                self._note(foreign=foreign)
        except StoreError as error:
            self._fail(ops, error)
            return
        try:
            with translate_errors(self._settings):
                for op in ops:
                    op.run(self._log)
                self._log.commit()
        except StoreError as error:
            self._retry_individually(ops, error)
            return
        self._next = time.monotonic() + self._window
        self._report(ops, self._log.changes, foreign=foreign)

    def _retry_individually(self, ops: list[Operation[Any]], error: StoreError) -> None:
        """Give each a transaction of its own after a failure, so that only the faulty one fails."""
        with translate_errors(self._settings):
            self._log.rollback()
        if len(ops) == 1:
            self._fail(ops, error)
        else:
            for op in ops:
                self._write([op])

    def _fail(self, ops: list[Operation[Any]], error: StoreError) -> None:
        for op in ops:
            op.error = error
        self._report(ops, {}, foreign=True)

    def _report(
        self, ops: Sequence[Operation[Any]], news: dict[str, Change], *, foreign: bool
    ) -> None:
        with suppress(RuntimeError):  # the loop is closed, and so are its callers
            self._loop.call_soon_threadsafe(self._settled, ops, news, foreign)
