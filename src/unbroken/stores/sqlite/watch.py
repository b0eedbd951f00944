"""The followed streams of a process, as far as it knows them."""

import time
from collections.abc import Iterable

from unbroken.stores.base import BEGINNING, End, Offset, Page
from unbroken.stores.notify import Notifier
from unbroken.stores.sqlite.log import Change
from unbroken.stores.sqlite.rows import Head
from unbroken.stores.tail import RecentRecords, RefCountedCache

LENIENT = 0.25  # seconds for which a stream may be served from memory after others deleted it


class Watch:
    """One followed stream. `generation` says how much of what others wrote it has seen."""

    def __init__(self) -> None:
        self.generation = -1
        self.asked = 0.0  # when the file was last queried about it
        self.tail: Offset = BEGINNING
        self.end: End | None = None
        self.gone = False
        self.refcount = 0
        self.followers = Notifier()
        self.recent = RecentRecords()

    def learn(self, head: Head | None) -> None:
        """Take in the head after a commit or from the file; None: the stream was deleted."""
        if head is None:
            self.gone = True
            self.followers.notify_all()
        elif head.tail > self.tail or head.end != self.end:
            self.tail, self.end = max(self.tail, head.tail), self.end or head.end
            self.followers.notify_all()

    def page(self, after: Offset, limit: int, *, current: bool) -> Page | None:
        """Return a page of recent records; None if the file has to be asked.

        Records are facts and may be served if nothing was heard from others for a moment. That
        there are none behind the tail is served only by a watch that is `current`: a process that
        takes a stream over reads it to its very end.
        """
        if current and after == self.tail:
            return Page([], after, self.end)
        if not current and time.monotonic() > self.asked + LENIENT:
            return None
        records = self.recent.after(after, limit)
        if not records:
            return None
        following = records[-1].offset
        return Page(records, following, self.end if following == self.tail else None)


class Watches(RefCountedCache[Watch]):
    """The watches of a process. Those with waiters have to learn what others write."""

    def __init__(self) -> None:
        super().__init__(Watch)
        self.generation = 0

    def hear(self, changes: dict[str, Change]) -> None:
        """Take in this process's own commit."""
        for stream, item in changes.items():
            watch = self._entries.get(stream)
            if watch is not None:
                watch.recent.add(item.first, item.records)
                self._learn(stream, watch, item.head)

    def catch_up(self, generation: int, heads: dict[str, Head], asked: Iterable[str]) -> None:
        """Take in the heads in the file, after so many writes of others."""
        for stream in asked:
            watch = self._entries.get(stream)
            if watch is not None:
                watch.generation = max(watch.generation, generation)
                watch.asked = time.monotonic()
                self._learn(stream, watch, heads.get(stream))

    def _learn(self, stream: str, watch: Watch, head: Head | None) -> None:
        watch.learn(head)
        if watch.gone:
            self.drop(stream)

    def stale(self) -> list[str]:
        """Return the streams with waiters whose heads have to be read again."""
        watches = self._entries.items()
        return [name for name, w in watches if w.refcount and w.generation != self.generation]

    def fail(self) -> None:
        """Trust nothing any more, and wake all waiters, so that each asks the file."""
        for watch in self._entries.values():
            watch.generation = -1
            watch.followers.notify_all()
