"""The writer: one thread, one connection, one transaction for all that came together.

A commit costs the same for one append as for a hundred, so appends wait for each other: the
first after a pause is committed at once, and the next commit begins no sooner than `window`
seconds after the last. The callers are told when the commit stands.

Between commits, as long as somebody waits for a stream, it looks every few milliseconds whether
another process has written: SQLite keeps a counter for that in shared memory, and asking costs
3 microseconds (docs/adr/0007-sqlite.md compares it with other ways to be woken).
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Generic, TypeVar

from unbroken.errors import StoreError
from unbroken.stores.sqlite.file import Settings, told
from unbroken.stores.sqlite.log import Log, News

LOOK = 0.005  # seconds between two looks at what others wrote, if they did lately
SELDOM = 0.02  # if they did not: most files have one process
LATELY = 30.0
RECENTLY = 0.1  # seconds for which a look counts: longer, and the thread is held up
T = TypeVar("T")


class Op(Generic[T]):
    """Something to do within a transaction, and the future of whoever wants it done."""

    __slots__ = ("error", "future", "result", "work")

    def __init__(self, work: Callable[[Log], T], future: asyncio.Future[T]) -> None:
        self.work = work
        self.future = future
        self.result: T | None = None
        self.error: StoreError | None = None

    def run(self, log: Log) -> None:
        """Do it. What is refused is no fault of the transaction: it has changed nothing."""
        self.error = None
        try:
            self.result = self.work(log)
        except StoreError as error:
            self.error = error

    def settle(self) -> None:
        """In the event loop: tell the caller, unless it has left."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)  # type: ignore[arg-type]


Settled = Callable[[Sequence[Op[Any]], dict[str, News], bool], None]


class Writer:
    """The thread. `settled` is called in the event loop: what was done, and whether others wrote.

    Its queue is bounded by its callers: each waits for its own append.
    """

    def __init__(self, log: Log, settings: Settings, window: float, settled: Settled) -> None:
        self._log = log
        self._settings = settings
        self._window = window
        self._settled = settled
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Op[Any] | None] = queue.SimpleQueue()
        self._under_way: list[Op[Any]] = []
        self._next = 0.0
        self._watched = self._looked = 0.0
        self._foreign = time.monotonic()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="unbroken-store", daemon=True)
        self._thread.start()

    async def do(self, work: Callable[[Log], T]) -> T:
        """The result of `work`, once it is committed."""
        if self._stopping:
            raise StoreError("the store is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(Op(work, future))
        return await future

    def watch(self, seconds: float) -> None:
        """Look for what others write, for so long."""
        now = time.monotonic()
        asleep = now > self._watched
        self._watched = max(self._watched, now + seconds)
        if asleep:
            self._queue.put(None)

    @property
    def looked(self) -> bool:
        """Whether what others had written a moment ago is known."""
        return time.monotonic() < self._looked + RECENTLY

    async def stop(self) -> None:
        """Finish what is asked for, then end."""
        self._stopping = True
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        try:
            while not (self._stopping and self._queue.empty()):
                self._step()
        finally:  # nobody must wait for a thread that is gone
            self._stopping = True
            rest = self._under_way + self._drain()
            for op in rest:
                op.error = StoreError("the store's writer has ended")
            self._report(rest, {}, foreign=False)

    def _step(self) -> None:
        ops = self._under_way = self._gather()
        if ops:
            self._write(ops)
        elif self._changed():
            self._report([], {}, foreign=True)
        self._under_way = []

    def _gather(self) -> list[Op[Any]]:
        """What is to be done next; nothing, if it is time to look around."""
        try:
            first = self._queue.get(timeout=self._patience())
        except queue.Empty:
            return []
        if first is None:
            return []
        time.sleep(max(0.0, self._next - time.monotonic()))
        return [first, *self._drain()]

    def _patience(self) -> float | None:
        """How long to wait for work before looking around; None if nobody wants to know."""
        now = time.monotonic()
        if now > self._watched:
            return None
        return LOOK if now < self._foreign + LATELY else SELDOM

    def _drain(self) -> list[Op[Any]]:
        ops = []
        while not self._queue.empty():  # no other thread takes from it
            ops.append(self._queue.get())
        return [op for op in ops if op is not None]

    def _changed(self) -> bool:
        try:
            with told(self._settings):
                changed = self._log.foreign()
        except StoreError:
            changed = True  # whoever reads next hears what it is
        self._note(foreign=changed)
        if changed:
            self._log.forget()
        return changed

    def _note(self, *, foreign: bool) -> None:
        self._looked = time.monotonic()
        if foreign:
            self._foreign = self._looked

    def _write(self, ops: list[Op[Any]]) -> None:
        try:
            with told(self._settings):
                foreign = self._log.begin()
                self._note(foreign=foreign)
        except StoreError as error:
            self._fail(ops, error)
            return
        try:
            with told(self._settings):
                for op in ops:
                    op.run(self._log)
                self._log.commit()
        except StoreError as error:
            self._apart(ops, error)
            return
        self._next = time.monotonic() + self._window
        self._report(ops, self._log.news, foreign=foreign)

    def _apart(self, ops: list[Op[Any]], error: StoreError) -> None:
        """One of them made the transaction fail: each gets its own, so that only that one does."""
        with told(self._settings):
            self._log.rollback()
        if len(ops) == 1:
            self._fail(ops, error)
        else:
            for op in ops:
                self._write([op])

    def _fail(self, ops: list[Op[Any]], error: StoreError) -> None:
        for op in ops:
            op.error = error
        self._report(ops, {}, foreign=True)

    def _report(self, ops: Sequence[Op[Any]], news: dict[str, News], *, foreign: bool) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._settled, ops, news, foreign)
