"""What a process knows of the streams that are followed in it, and hears about them.

Redis publishes every append on the stream's channel, records included, and each process listens
to the channels of the streams that somebody follows in it: one connection per server, however
many followers. They are served from the newest records; who is further behind reads Redis.

A message may be missed only when a connection breaks, so after that every watch asks for its
head. What is known of a stream can only grow. If Redis knows less, or knows another producer's
records at the same offsets, it has lost something (a fail-over to a replica that lagged behind,
a restart without its last writes), and those who had read it are told.
"""

from collections.abc import Callable
from typing import NamedTuple

from unbroken.errors import OffsetUnknown
from unbroken.stores.notify import Notifier
from unbroken.stores.tail import Kept
from unbroken.stores.base import BEGINNING, End, Offset, Page, Record

RECENT = 32 << 10  # bytes of newest records a stream: seconds of an answer, or one burst
LINGER = 5.0  # seconds that a stream is listened to after its last follower has left


class Head(NamedTuple):
    """What Redis says of a stream: `seen` is the fence of the record that the asker knew last,
    `last` of the last one; None if it is not there.
    """

    tail: Offset
    end: End | None
    cancelled: bool
    seen: int | None
    last: int | None


class Message(NamedTuple):
    """What was published of a stream. `records` is empty if they are too long to be sent along."""

    kind: bytes
    first: Offset = 0
    tail: Offset = 0
    fence: int = 0
    end: End | None = None
    records: tuple[bytes, ...] = ()


def message(data: bytes) -> Message:
    """Read a message; the words stand in `_redis_scripts`."""
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
    """One followed stream. `live`: it is listened to, and its head was asked for since."""

    def __init__(self) -> None:
        self.live = False
        self.fails = 0  # how often it was not live any more
        self.tail: Offset = BEGINNING
        self.end: End | None = None
        self.cancelled = self.gone = False
        self.lost = ""
        self.pins = 0
        self.followers = Notifier()
        self.stoppers = Notifier()
        self._fence = 0  # of the last record, as far as it is known
        self._recent: list[Record] = []
        self._start: Offset = BEGINNING  # of the recent ones
        self._size = 0

    def notify_all(self) -> None:
        """Wake all, so that each finds out what it is."""
        self.followers.notify_all()
        self.stoppers.notify_all()

    @property
    def place(self) -> tuple[Offset, int]:
        """Where its last known record ends, and the fence of that record."""
        return self.tail, self._fence

    def catch_up(self, head: Head | None, asked: tuple[Offset, int]) -> None:
        """What Redis says, after there was no connection for a while or for the first time;
        `asked` was the place when it was asked for.
        """
        if head is None:
            self.gone = True
            return self.notify_all()
        at, fence = asked
        if 0 < at <= head.tail and (head.seen or 0) != fence:
            self._rewritten(at)
        if head.tail < at == self.tail:
            self._shrink(head)
        self._learn(head.tail, head.last or 0, head.end)
        if head.cancelled and not self.cancelled:
            self.cancelled = True
            self.stoppers.notify_all()
        return None

    def _shrink(self, head: Head) -> None:
        """There is less than there was: nothing is told from memory. Its producer may still have
        it and bring it back; until then whoever has read it waits.
        """
        self.tail, self._fence = head.tail, head.last or 0
        self._recent, self._size, self._start = [], 0, head.tail

    def hear(self, heard: Message) -> None:
        """What was published."""
        if heard.kind == b"a":
            self._hear_append(heard)
        elif heard.kind == b"c":
            self.cancelled = True
            self.stoppers.notify_all()
        else:
            self.gone = True
            self.notify_all()

    def _hear_append(self, heard: Message) -> None:
        if heard.first < self.tail and heard.fence > self._fence:  # a lower one is old news
            self._rewritten(heard.first)
        if heard.records and heard.tail > self._start + len(self._recent):
            self._keep(heard.first, heard.records)
        self._learn(heard.tail, heard.fence, heard.end)

    def _rewritten(self, offset: Offset) -> None:
        self.lost = f"Redis has lost the records behind {offset} at the latest, and has others now"
        self.notify_all()

    def _learn(self, tail: Offset, fence: int, end: End | None) -> None:
        if tail > self.tail:
            self._fence = fence
        grown = tail > self.tail or (end is not None and self.end is None)
        self.tail, self.end = max(self.tail, tail), self.end or end
        if grown:
            self.followers.notify_all()
        if self.end is not None:
            self.stoppers.notify_all()

    def _keep(self, first: Offset, records: tuple[bytes, ...]) -> None:
        if first != self._start + len(self._recent):
            self._start, self._recent, self._size = first, [], 0
        self._recent += [Record(at, data) for at, data in enumerate(records, first + 1)]
        self._size += sum(map(len, records))
        while self._size > RECENT:
            self._trim()

    def _trim(self) -> None:
        """Half of them go at once: dropping one by one would move all of them each time."""
        half = max(len(self._recent) // 2, 1)
        self._size -= sum(len(record.data) for record in self._recent[:half])
        self._start, self._recent = self._start + half, self._recent[half:]

    def page(self, after: Offset, limit: int) -> Page | None:
        """A page of recent records; None if Redis has to be asked.

        That there is nothing behind the tail is not told from memory: whoever takes a stream over
        reads it to its very end.
        """
        skip = after - self._start
        if not self.live or self.lost or not 0 <= skip < len(self._recent):
            return self._the_end(after)
        records = self._recent[skip : skip + limit]
        following = after + len(records)
        return Page(records, following, self.end if following == self.tail else None)

    def _the_end(self, after: Offset) -> Page | None:
        closed = self.live and not self.lost and self.end is not None and after == self.tail
        return Page([], after, self.end) if closed else None

    def refuse(self, stream: str, after: Offset) -> None:
        """OffsetUnknown, if Redis has lost what had been read."""
        if self.lost and after > BEGINNING:
            raise OffsetUnknown(f"{self.lost} (stream {stream!r}, read to {after})")


class Watches(Kept[Watch]):
    """The watches of a process. `dropped` stops listening to a stream."""

    def __init__(self, dropped: Callable[[str], None]) -> None:
        super().__init__(Watch, dropped)

    def hear(self, stream: str, heard: Message) -> bool:
        """What was published of a stream; False if nobody wants to know any more."""
        watch = self._watches.get(stream)
        if watch is None:
            return False
        watch.hear(heard)
        if watch.gone or watch.lost or self.idle(stream) > LINGER:
            self.drop(stream)
        return stream in self._watches

    def fail(self, streams: list[str]) -> None:
        """Nothing is sure any more about these."""
        for stream in streams:
            watch = self._watches.get(stream)
            if watch is not None:
                watch.live = False
                watch.fails += 1
                watch.notify_all()
