"""The followed ends of streams that a process keeps in memory.

Facts about a stream only grow: its tail rises, its end stays. So they may be learned twice, late
or out of order, from this process's own writes and from the store, and the larger wins. The
newest records are kept as well, so that followers that keep up never ask the store.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from unbroken.stores.base import BEGINNING, Offset, Record

IDLE_ENTRIES = 1024  # entries kept that have no waiter at the moment
RECENT_BYTES = 32 << 10  # of newest records of a stream: seconds of an answer, or one burst


class RecentRecords:
    """The newest records of a stream, without gaps."""

    def __init__(self) -> None:
        self._records: list[Record] = []
        self._start: Offset = BEGINNING
        self._size = 0

    @property
    def end(self) -> Offset:
        """The offset behind the last record."""
        return self._start + len(self._records)

    def add(self, first: Offset, records: Iterable[bytes]) -> None:
        """Keep records that begin behind `first`; what is before a gap is forgotten."""
        if first != self.end:
            self.clear(first)
        new = [Record(at, data) for at, data in enumerate(records, first + 1)]
        self._records += new
        self._size += sum(len(record.data) for record in new)
        if self._size > RECENT_BYTES:
            self._trim()

    def clear(self, start: Offset) -> None:
        """Forget all; the next record is expected behind `start`."""
        self._records, self._start, self._size = [], start, 0

    def _trim(self) -> None:
        # Half of them go at once: dropping one by one would move all of them each time.
        kept, size = len(self._records), 0
        while kept and size + len(self._records[kept - 1].data) <= RECENT_BYTES // 2:
            kept -= 1
            size += len(self._records[kept].data)
        self._start += kept
        self._records, self._size = self._records[kept:], size

    def after(self, offset: Offset, limit: int) -> list[Record]:
        """Return up to `limit` records behind an offset; none if they are not all known."""
        skip = offset - self._start
        return self._records[skip : skip + limit] if skip >= 0 else []


class RefCounted(Protocol):
    """An entry that counts its waiters."""

    refcount: int


E = TypeVar("E", bound=RefCounted)


class RefCountedCache(Generic[E]):
    """Entries by stream. Those with waiters stay; of the others only the last used ones do.

    `dropped` is called with the stream of each entry that is removed.
    """

    def __init__(self, make: Callable[[], E], dropped: Callable[[str], object] = str) -> None:
        self._make, self._dropped = make, dropped
        self._entries: dict[str, E] = {}
        self._idle: OrderedDict[str, float] = OrderedDict()  # since when, the last used at the end

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, stream: str) -> E | None:
        """Return the entry of a stream, if there is one."""
        return self._entries.get(stream)

    @contextmanager
    def acquire(self, stream: str) -> Iterator[E]:
        """Hold the entry of a stream, made if there is none: it is not dropped meanwhile."""
        entry = self._entries.get(stream)
        if entry is None:
            entry = self._entries[stream] = self._make()
        self._idle.pop(stream, None)
        entry.refcount += 1
        try:
            yield entry
        finally:
            entry.refcount -= 1
            if not entry.refcount and self._entries.get(stream) is entry:
                self._mark_idle(stream)

    def _mark_idle(self, stream: str) -> None:
        self._idle[stream] = time.monotonic()
        if len(self._idle) > IDLE_ENTRIES:
            self.drop(next(iter(self._idle)))

    def idle(self, stream: str) -> float:
        """Return the seconds since the last waiter left."""
        now = time.monotonic()
        return now - self._idle.get(stream, now)

    def drop(self, stream: str) -> None:
        """Remove an entry."""
        self._entries.pop(stream, None)
        self._idle.pop(stream, None)
        self._dropped(stream)
