"""The followed streams of a process, as far as it knows them.

Redis publishes every append on the stream's channel, records included, and each process subscribes
to the channels of the streams that are followed in it: one connection per server, however many
followers. They are served from the newest records; a follower further behind reads Redis.

A message may be missed only when a connection breaks, so after that every watch asks for its
head. What is known of a stream can only grow. If Redis knows less, or knows another producer's
records at the same offsets, it has lost something (a fail-over to a replica that lagged behind,
a restart without its last writes), and followers that had read it get an error.
"""

from collections.abc import Callable
from typing import NamedTuple

from unbroken.errors import OffsetUnknown
from unbroken.stores.base import BEGINNING, End, Offset, Page
from unbroken.stores.notify import Notifier
from unbroken.stores.tail import RecentRecords, RefCountedCache

LINGER = 5.0  # seconds for which a channel stays subscribed after its last follower has left


class Head(NamedTuple):
    """The state of a stream in Redis.

    `seen` is the fence of the record that the caller knew last, `last` of the last one; None if
    there is no such record.
    """

    tail: Offset
    end: End | None
    seen: int | None
    last: int | None


class Message(NamedTuple):
    """A message about a stream. `records` is empty if they are too long to be published."""

    kind: bytes
    first: Offset = 0
    tail: Offset = 0
    fence: int = 0
    end: End | None = None
    records: tuple[bytes, ...] = ()


def message(data: bytes) -> Message:
    """Read a message; its words are described in `scripts.lua`."""
    line, _, body = data.partition(b"\n")
    kind, *words = line.split(b" ")
    if kind != b"a":
        return Message(kind)
    first, tail, fence, state, final, *lengths = map(int, words)
    at, pieces = 0, []
    for length in (max(state, 0), final, *lengths):
        pieces.append(body[at : at + length])
        at += length
    end = None if state < 0 else End(pieces[0].decode(), pieces[1])
    return Message(kind, first, tail, fence, end, tuple(pieces[2:]))


class Watch:
    """One followed stream. `live`: it is subscribed to, and its head was read since."""

    def __init__(self) -> None:
        self.live = False
        self.fails = 0  # how often it was not live any more
        self.tail: Offset = BEGINNING
        self.end: End | None = None
        self.gone = False
        self.lost = ""
        self.refcount = 0
        self.followers = Notifier()
        self.recent = RecentRecords()
        self._fence = 0  # of the last record, as far as it is known

    @property
    def position(self) -> tuple[Offset, int]:
        """The end of its last known record, and the fence of that record."""
        return self.tail, self._fence

    def has_more(self, after: Offset) -> bool:
        """Whether there is a record behind an offset, or the end."""
        return self.tail > after or self.end is not None

    def catch_up(self, head: Head | None, asked: tuple[Offset, int]) -> None:
        """Take in the head, after a pause without connection or for the first time.

        `asked` was the position when it was asked for.
        """
        if head is None:
            self.gone = True
            return self.followers.notify_all()
        at, fence = asked
        if 0 < at <= head.tail and (head.seen or 0) != fence:
            self._diverged(at)
        if head.tail < at == self.tail:
            self._truncated(head)
        return self._learn(head.tail, head.last or 0, head.end)

    def _truncated(self, head: Head) -> None:
        # Its producer may still have the rest and write it again; until then nothing is served
        # from memory, and its readers wait.
        self.tail, self._fence = head.tail, head.last or 0
        self.recent.clear(head.tail)

    def hear(self, heard: Message) -> None:
        """Take in a message."""
        if heard.kind == b"a":
            self._hear_append(heard)
        else:
            self.gone = True
            self.followers.notify_all()

    def _hear_append(self, heard: Message) -> None:
        if heard.first < self.tail and heard.fence > self._fence:  # a lower one is old news
            self._diverged(heard.first)
        if heard.records and heard.tail > self.recent.end:
            self.recent.add(heard.first, heard.records)
        self._learn(heard.tail, heard.fence, heard.end)

    def _diverged(self, offset: Offset) -> None:
        self.lost = f"Redis has lost the records behind {offset} at the latest, and has others now"
        self.followers.notify_all()

    def _learn(self, tail: Offset, fence: int, end: End | None) -> None:
        if tail > self.tail:
            self._fence = fence
        grown = tail > self.tail or (end is not None and self.end is None)
        self.tail, self.end = max(self.tail, tail), self.end or end
        if grown:
            self.followers.notify_all()

    def page(self, after: Offset, limit: int) -> Page | None:
        """Return a page of recent records; None if Redis has to be asked.

        That there is nothing behind an open tail is not served from memory: a process that takes a
        stream over reads it to its very end.
        """
        if not self.live or self.lost:
            return None
        if after == self.tail and self.end is not None:
            return Page([], after, self.end)
        records = self.recent.after(after, limit)
        if not records:
            return None
        following = records[-1].offset
        return Page(records, following, self.end if following == self.tail else None)

    def raise_if_lost(self, stream: str, after: Offset) -> None:
        """OffsetUnknown, if Redis has lost what had been read."""
        if self.lost and after > BEGINNING:
            raise OffsetUnknown(f"{self.lost} (stream {stream!r}, read to {after})")


class Watches(RefCountedCache[Watch]):
    """The watches of a process. `dropped` unsubscribes from a stream."""

    def __init__(self, dropped: Callable[[str], None]) -> None:
        super().__init__(Watch, dropped)

    def hear(self, stream: str, heard: Message) -> bool:
        """Take in a message; False if the stream is not followed any more."""
        watch = self._entries.get(stream)
        if watch is None:
            return False
        watch.hear(heard)
        if watch.gone or watch.lost or self.idle(stream) > LINGER:
            self.drop(stream)
        return stream in self._entries

    def fail(self, streams: list[str]) -> None:
        """Trust nothing about these streams any more, and wake their waiters."""
        for stream in streams:
            watch = self._entries.get(stream)
            if watch is not None:
                watch.live = False
                watch.fails += 1
                watch.followers.notify_all()
