"""What a process knows of the streams that are followed in it.

Facts about a stream only grow: its tail rises, its end stays. So they may be learnt twice, late
or out of order from this process's own commits and from a look into the file, and the larger
wins. The newest records are kept too: followers that keep up never ask SQLite.
"""

import time
from collections.abc import Iterable

from unbroken.stores.sqlite.log import News
from unbroken.stores.sqlite.rows import Head
from unbroken.stores.notify import Notifier
from unbroken.stores.tail import Kept
from unbroken.stores.base import BEGINNING, End, Offset, Page, Record

RECENT = 32 << 10  # bytes of newest records a stream: seconds of an answer, or one burst
LENIENT = 0.25  # seconds for which a stream may be told from memory after others deleted it


class Watch:
    """One followed stream. `generation` says how much of what others wrote it has seen."""

    def __init__(self) -> None:
        self.generation = -1
        self.asked = 0.0  # when the file was asked about it
        self.tail: Offset = BEGINNING
        self.end: End | None = None
        self.cancelled = False
        self.gone = False
        self.pins = 0
        self.followers = Notifier()
        self.stoppers = Notifier()
        self._recent: list[Record] = []
        self._start: Offset = BEGINNING  # of the recent ones
        self._size = 0

    def learn(self, head: Head | None) -> None:
        """What a commit did or the file says; None: the stream is not there any more."""
        if head is None:
            self.gone = True
        elif head.tail > self.tail or head.end != self.end:
            self.tail, self.end = max(self.tail, head.tail), self.end or head.end
            self.followers.notify_all()
        if head is None or head.cancelled != self.cancelled or self.end is not None:
            self.cancelled = self.cancelled or (head is not None and head.cancelled)
            self.stoppers.notify_all()
        if head is None:
            self.followers.notify_all()

    def keep(self, first: Offset, records: Iterable[bytes]) -> None:
        """Records of this process's own commit, which begin behind `first`."""
        if first != self._start + len(self._recent):
            self._start, self._recent, self._size = first, [], 0
        new = [Record(at, data) for at, data in enumerate(records, first + 1)]
        self._recent += new
        self._size += sum(len(record.data) for record in new)
        if self._size > RECENT:
            self._trim()

    def _trim(self) -> None:
        """Keep the newest half at most: dropping one by one would move all of them each time."""
        kept, size = len(self._recent), 0
        while kept and size + len(self._recent[kept - 1].data) <= RECENT // 2:
            kept -= 1
            size += len(self._recent[kept].data)
        self._start += kept
        self._recent, self._size = self._recent[kept:], size

    def page(self, after: Offset, limit: int, *, current: bool) -> Page | None:
        """A page of recent records; None if the file has to be asked.

        Records are facts and may be told if nothing was heard from others for a moment. That
        there are none behind the tail may only be told by a watch that is `current`: whoever
        takes a stream over reads it to its very end.
        """
        if current and after == self.tail:
            return Page([], after, self.end)
        skip = after - self._start
        if not 0 <= skip < len(self._recent):
            return None
        if not current and time.monotonic() > self.asked + LENIENT:
            return None
        records = self._recent[skip : skip + limit]
        following = after + len(records)
        return Page(records, following, self.end if following == self.tail else None)


class Watches(Kept[Watch]):
    """The watches of a process. The pinned ones have to hear of what others write."""

    def __init__(self) -> None:
        super().__init__(Watch)
        self.generation = 0

    def hear(self, news: dict[str, News]) -> None:
        """Of this process's own commit."""
        for stream, item in news.items():
            watch = self._watches.get(stream)
            if watch is not None:
                watch.keep(item.first, item.records)
                self._learn(stream, watch, item.head)

    def catch_up(self, generation: int, heads: dict[str, Head], asked: Iterable[str]) -> None:
        """What the file said of some streams, when that many foreign writes had been seen."""
        for stream in asked:
            watch = self._watches.get(stream)
            if watch is not None:
                watch.generation = max(watch.generation, generation)
                watch.asked = time.monotonic()
                self._learn(stream, watch, heads.get(stream))

    def _learn(self, stream: str, watch: Watch, head: Head | None) -> None:
        watch.learn(head)
        if watch.gone:
            self.drop(stream)

    def stale(self) -> list[str]:
        """The streams somebody waits for, about which others' writes have to be asked."""
        watches = self._watches.items()
        return [name for name, w in watches if w.pins and w.generation != self.generation]

    def fail(self) -> None:
        """Nothing is sure any more: wake all, so that each finds out for itself."""
        for watch in self._watches.values():
            watch.generation = -1
            watch.followers.notify_all()
            watch.stoppers.notify_all()
