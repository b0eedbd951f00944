"""What a store is: streams of opaque records that survive their producer.

A stream is a log. One producer at a time appends, any number of followers read, and neither
waits for the other. The words are those of the Durable Streams protocol
(github.com/durable-streams/durable-streams, PROTOCOL.md, sections 2, 4.1 and 8): an offset is a
position that rises strictly and never changes its meaning, the tail is the position behind the
last record, closed is durable and final.

Offsets here are whole numbers: how many records stand before the position. So the beginning is
0, a record carries the offset right behind it (what a reader who has it hands in to go on), and
a producer knows its next `at` without asking. Whoever shows them outside should still call them
opaque.

Two things keep a second producer out. `at` must be the tail, and `fence` must be the number of
the lease that was given out last. A lease runs out by the clock, and anybody may then take the
stream over; but it is the fence that makes this safe, not the clock: a producer that was only
slow, or whose machine's time jumped, holds an old number and can't write any more.

What may be raised: StoreError and its kinds (`unbroken.errors`). Nothing foreign.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, Self, TypeAlias

from msgspec import Struct

from unbroken.errors import OffsetConflict, StoreError, StreamClosed

Offset: TypeAlias = int
BEGINNING: Offset = 0
PAGE_BYTES = 1 << 18  # a page holds no more, so that one slow reader can't hold a whole stream


class Record(Struct, frozen=True, gc=False):
    """Opaque bytes, and the offset right behind them."""

    offset: Offset
    data: bytes


class End(Struct, frozen=True, gc=False):
    """How a stream was closed: one word, such as complete, cancelled, failed, and a few bytes."""

    state: str
    final: bytes = b""


class Page(Struct, frozen=True):
    """Some records, where to read on, and the end if these records reach it."""

    records: list[Record]
    next: Offset
    end: End | None = None

    @property
    def closed(self) -> bool:
        """Nothing more will come."""
        return self.end is not None


class Ack(Struct, frozen=True, gc=False):
    """What was appended is stored. `cancelled`: somebody asks the producer to stop."""

    tail: Offset
    cancelled: bool = False


class Lease(Struct, frozen=True):
    """The right to append until `expires` (the store's clock), or longer if nobody minds."""

    stream: str
    producer: str
    fence: int
    expires: float
    tail: Offset
    cancelled: bool = False


class NewStream(Struct, frozen=True):
    """A stream to be. `labels` are small and searched; `key` makes creating it idempotent."""

    id: str
    owner: str = ""
    labels: dict[str, str] = {}
    key: str = ""


class StreamInfo(Struct, frozen=True):
    """What is known of a stream without reading it. Times are the store's clock."""

    id: str
    owner: str
    labels: Mapping[str, str]
    created: float
    changed: float  # its creation, then its close
    tail: Offset
    size: int  # bytes of all its records
    end: End | None
    cancelled: bool
    producer: str
    fence: int
    expires: float

    @property
    def closed(self) -> bool:
        """Nothing more will come."""
        return self.end is not None

    def orphaned(self, now: float) -> bool:
        """Somebody should be producing and nobody is."""
        return self.end is None and self.expires <= now


class Created(Struct, frozen=True):
    """The stream, whether this call made it, and the lease if one was asked for and made."""

    stream: StreamInfo
    fresh: bool
    lease: Lease | None = None


class Search(Struct, frozen=True):
    """Which streams to find: all labels equal, `text` within some label, open or closed only."""

    labels: dict[str, str] = {}
    text: str = ""
    closed: bool | None = None
    before: int | None = None  # `Found.next` of the page before
    limit: int = 50


EVERYTHING = Search()


class Found(Struct, frozen=True):
    """Streams, the youngest first; `next` for `Search.before` if there may be more."""

    streams: list[StreamInfo]
    next: int | None = None


class Clock(Protocol):
    """Seconds since the epoch: the same for every process that shares a store."""

    def __call__(self) -> float: ...


class Store(Protocol):
    """Where streams are kept. To be used within `async with`, in one event loop."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    async def create(
        self,
        new: NewStream,
        records: Sequence[bytes] = (),
        producer: str = "",
        seconds: float = 0.0,
    ) -> Created:
        """Make a stream, its first records and its producer's lease in one step.

        The same owner and key, or the same owner and id, give the stream that is there, as it is.
        StoreError if the id belongs to another owner.
        """

    async def append(
        self,
        stream: str,
        records: Sequence[bytes],
        at: Offset,
        fence: int = 0,
        end: End | None = None,
    ) -> Ack:
        """Add records at the tail, all or none, and close behind them if `end` is given.

        Returns when they are as durable as the store makes anything. No records are fine: they
        ask whether one is still the producer. OffsetConflict, StreamClosed, StreamMissing. If the
        caller is cancelled while it waits, the append may have happened.
        """

    async def close(self, stream: str, end: End, at: Offset, fence: int = 0) -> Ack:
        """Close the stream for good. Closing it again with the same end changes nothing."""

    async def read(self, stream: str, after: Offset = BEGINNING, limit: int = 1000) -> Page:
        """Records behind `after`: at least one if there is one, at most `limit` or a page's bytes.

        Followers see what is committed and nothing else. OffsetUnknown beyond the tail.
        """

    async def wait(self, stream: str, after: Offset, seconds: float) -> bool:
        """Wait until there is a record behind `after` or the stream is closed; False if not.

        A follower reads, and until a page is closed it waits behind that page and reads on. Who
        waits before each read is served from memory by every store that can.
        """

    async def info(self, stream: str) -> StreamInfo:
        """What is known of a stream."""

    async def find(self, owner: str | None, search: Search = EVERYTHING, /) -> Found:
        """Streams of one owner, or of all (None), the youngest first."""

    async def delete(self, stream: str) -> None:
        """Forget a stream at once, whoever produces or reads it."""

    async def cancel(self, stream: str) -> bool:
        """Ask the producer, wherever it runs, to stop. False if the stream is closed already."""

    async def cancelled(self, stream: str, seconds: float) -> bool:
        """Wait until somebody asks to stop; False if nobody does within the time, or it closes."""

    async def attend(self, stream: str, seconds: float) -> None:
        """Say that somebody will read it for so many seconds: for a producer elsewhere."""

    async def attended(self, stream: str) -> float:
        """For how many seconds somebody will read it: the longest of what was said, or 0."""

    async def acquire(self, stream: str, producer: str, seconds: float) -> Lease | None:
        """Become the producer, with a new fence; None while another one's lease runs.

        A producer that asks again gets a new fence at once: it has been started anew.
        """

    async def renew(self, lease: Lease, seconds: float) -> Lease:
        """Stay the producer. OffsetConflict if somebody else is by now."""

    async def release(self, lease: Lease) -> None:
        """Stop being the producer, so that another can go on at once. Never raises a conflict."""

    async def orphans(self, limit: int = 100) -> list[StreamInfo]:
        """Open streams without a live producer, those waiting longest first."""

    async def prune(self, age: float | None = None, size: int | None = None) -> int:
        """Delete streams closed or orphaned for `age` seconds; then closed ones, oldest first,
        until all records together fit into `size` bytes. Returns how many went.

        A stream with a live producer is never pruned.
        """


class Factory(Protocol):
    """Makes a store on empty ground, with that clock."""

    def __call__(self, clock: Clock, /) -> Store: ...


class Head(Protocol):
    """What decides whether somebody may append."""

    @property
    def tail(self) -> Offset: ...

    @property
    def fence(self) -> int: ...

    @property
    def end(self) -> End | None: ...


def admit(stream: str, head: Head, at: Offset, fence: int) -> None:
    """Raise unless a producer with this fence may append at this offset."""
    if head.end is not None:
        raise StreamClosed(f"stream {stream!r} is closed ({head.end.state})")
    if fence != head.fence:
        raise OffsetConflict(f"fence {fence} of stream {stream!r} is not the current {head.fence}")
    if at != head.tail:
        raise OffsetConflict(f"offset {at} is not the tail {head.tail} of stream {stream!r}")


def encoded(text: str) -> bytes:
    """Text as it is stored. StoreError for half a surrogate pair, which JSON may say."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise StoreError(f"half a character can't be stored: {error}") from error


def refuse_halves(new: NewStream) -> None:
    """StoreError if a text of it can't be stored."""
    encoded("\0".join((new.id, new.owner, new.key, *new.labels, *new.labels.values())))


def matches(info: StreamInfo, search: Search) -> bool:
    """Whether a search means this stream."""
    if search.closed is not None and search.closed != info.closed:
        return False
    if any(info.labels.get(name) != value for name, value in search.labels.items()):
        return False
    wanted = search.text.casefold()
    return not wanted or any(wanted in value.casefold() for value in info.labels.values())
