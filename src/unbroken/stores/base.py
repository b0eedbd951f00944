"""The contract of a store: streams of opaque records that outlive their producer, and counters.

A stream is a log. One producer at a time appends, any number of followers read, and neither
waits for the other. The terms are those of the Durable Streams protocol
(github.com/durable-streams/durable-streams, PROTOCOL.md, sections 2, 4.1 and 8): an offset is a
position that rises strictly and never changes its meaning, the tail is the position behind the
last record, closed is durable and final.

Offsets here are whole numbers: how many records stand before the position. So the beginning is
0, a record carries the offset right behind it (where its reader goes on), and a producer knows
its next `at` without asking. Callers that show offsets outside should call them opaque.

Two things keep a second producer out. `at` must be the tail, and `fence` must be the number that
the stream's last producer was given. A process proves with its heartbeat that it lives; when the
heartbeat is old, other processes may adopt its open streams. The fence makes this safe, not the
clock: a process that was only slow, or whose machine's time jumped, holds an old number and can't
write any more.

Counters are sums in fixed windows of time (UTC), such as the requests of a key today. Creating a
stream checks and raises them in the same step; closing one charges them in the same step.

All methods raise StoreError and its kinds (`unbroken.errors`), and nothing else.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, Self, TypeAlias

from msgspec import Struct

from unbroken.errors import OffsetConflict, StreamClosed
from unbroken.stores.counters import Charge, Window, encode_utf8

Offset: TypeAlias = int
BEGINNING: Offset = 0
PAGE_BYTES = 1 << 18  # a page holds no more, so that one slow reader can't hold a whole stream
FIND_SCAN = 1000  # streams that one search looks at, so that no search delays other reads
PRUNE_BATCH = 50  # streams that one step of `prune` deletes
PROCESS_MEMORY = 3600.0  # seconds for which a dead process is remembered: it may come back


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
        """Whether no record will follow."""
        return self.end is not None


class Ack(Struct, frozen=True, gc=False):
    """The append is stored. `cancelled`: the producer is asked to stop."""

    tail: Offset
    cancelled: bool = False


class Lease(Struct, frozen=True):
    """The right to append to a stream, for as long as the process's heartbeat is fresh.

    `takeovers` counts the adoptions from dead processes since the last append with records.
    """

    stream: str
    producer: str
    fence: int
    tail: Offset
    cancelled: bool = False
    takeovers: int = 0


class Heartbeat(Struct, frozen=True):
    """What a process learns from its heartbeat.

    `cancelled`: its own open streams that are asked to stop. `lapsed`: the heartbeat before had
    run out, so others may have adopted its streams; then `held` has the fences of those that are
    still its own.
    """

    lapsed: bool = False
    cancelled: list[str] = []
    held: dict[str, int] = {}


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
    producer: str  # empty: none was ever needed, or it was released
    fence: int

    @property
    def closed(self) -> bool:
        """Whether no record will follow."""
        return self.end is not None


class Created(Struct, frozen=True):
    """The stream, whether this call made it, and the lease if it was made with a producer."""

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
    """Streams, the youngest first; `next` for `Search.before` if there may be more.

    A search stops after FIND_SCAN streams, so a page with few or no streams may have a `next`.
    """

    streams: list[StreamInfo]
    next: int | None = None


class Pruned(Struct, frozen=True):
    """How many streams one step deleted, and whether there is more to do."""

    deleted: int
    more: bool


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
        charges: Sequence[Charge] = (),
    ) -> Created:
        """Make a stream, its first records and its producer's lease, and charge, in one step.

        The same owner and key, or the same owner and id, give the stream that is there, as it is,
        and charge nothing. StoreError if the id belongs to another owner. QuotaReached if a limit
        of `charges` is reached. `producer` is a process with a heartbeat; a stream without one is
        never adopted, and is kept until it is closed or deleted.
        """

    async def append(
        self, stream: str, records: Sequence[bytes], at: Offset, fence: int = 0
    ) -> Ack:
        """Add records at the tail, all or none.

        Returns when they are as durable as the store makes anything. Without records it asks
        whether the caller is still the producer. OffsetConflict, StreamClosed, StreamMissing. If
        the caller is cancelled while it waits, the append may have happened.
        """

    async def close(
        self,
        stream: str,
        end: End,
        at: Offset,
        fence: int = 0,
        records: Sequence[bytes] = (),
        charges: Sequence[Charge] = (),
    ) -> Ack:
        """Add the last records, close the stream for good and charge, in one step.

        Closing it again with the same end and without records changes and charges nothing.
        `charges` have no limits: what was used is counted.
        """

    async def read(self, stream: str, after: Offset = BEGINNING, limit: int = 1000) -> Page:
        """Return records behind `after`: at least one if there is one, at most `limit` or a page.

        Followers see what is committed and nothing else. OffsetUnknown beyond the tail.
        """

    async def wait(self, stream: str, after: Offset, seconds: float) -> bool:
        """Wait until there is a record behind `after` or the stream is closed; False if not.

        A follower reads, and until a page is closed it waits behind that page and reads on.
        Readers that wait before each read are served from memory by every store that can.
        """

    async def info(self, stream: str) -> StreamInfo:
        """Return what is known of a stream."""

    async def find(self, owner: str | None, search: Search = EVERYTHING, /) -> Found:
        """Find streams of one owner, or of all (None), the youngest first."""

    async def delete(self, stream: str) -> None:
        """Delete a stream and all its data at once, even if it is produced or read."""

    async def cancel(self, stream: str) -> bool:
        """Ask the producer, wherever it runs, to stop. False if the stream is closed already.

        The producer learns it from its next append or heartbeat.
        """

    # Processes

    async def heartbeat(self, process: str, seconds: float) -> Heartbeat:
        """Prove that a process lives, and will for so many seconds: one write for all its streams.

        The heartbeat comes before the first stream that the process produces.
        """

    async def adopt(self, process: str, limit: int = 20) -> list[Lease]:
        """Become the producer of open streams whose process is dead or has released them.

        Up to `limit` in one step, longest waiting first, each with a new fence. None of them are
        the process's own. Without a fresh heartbeat of its own it gets none.
        """

    async def release_all(self, process: str) -> int:
        """Give up all streams of a process in one step, so that others can adopt them at once.

        The process can't append any more. Returns how many streams there were.
        """

    async def claim(self, name: str, process: str, seconds: float) -> bool:
        """Take or keep a named lock for so many seconds; 0 returns it. False if another has it."""

    # Readers at other processes

    async def announce_readers(self, streams: Sequence[str], seconds: float) -> None:
        """Announce to the producers that these streams are read here, for so many seconds.

        Streams that do not exist are ignored.
        """

    async def reader_leases(self, streams: Sequence[str]) -> dict[str, float]:
        """Return the seconds for which a reader is announced, for streams that have one."""

    # Counters

    async def charge(self, charges: Sequence[Charge]) -> None:
        """Check all limits and add all amounts in one step, or raise QuotaReached."""

    async def usage(self, counters: Sequence[str], window: Window = "day") -> list[dict[str, int]]:
        """Return the amounts of each counter in its current window, in constant time each."""

    # Maintenance

    async def prune(self, age: float | None = None, size: int | None = None) -> Pruned:
        """Do one small step of retention.

        It deletes streams closed or without a live producer for `age` seconds, then closed ones,
        oldest first, until all records together fit into `size` bytes, and counters of old
        windows. A stream with a live producer is never pruned, nor an open one without a producer.
        """

    async def ping(self) -> None:
        """Prove that the store can be written. StoreError if not."""


class Factory(Protocol):
    """Makes an empty store with that clock."""

    def __call__(self, clock: Clock, /) -> Store: ...


class Head(Protocol):
    """What decides whether an append is admitted."""

    @property
    def tail(self) -> Offset: ...

    @property
    def fence(self) -> int: ...

    @property
    def end(self) -> End | None: ...


def check_append(stream: str, head: Head, at: Offset, fence: int) -> None:
    """Raise unless a producer with this fence may append at this offset."""
    if head.end is not None:
        raise StreamClosed(f"stream {stream!r} is closed ({head.end.state})")
    if fence != head.fence:
        raise OffsetConflict(f"fence {fence} of stream {stream!r} is not the current {head.fence}")
    if at != head.tail:
        raise OffsetConflict(f"offset {at} is not the tail {head.tail} of stream {stream!r}")


def check_unicode(new: NewStream) -> None:
    """StoreError if a text of it can't be stored."""
    encode_utf8("\0".join((new.id, new.owner, new.key, *new.labels, *new.labels.values())))


def matches(search: Search, labels: Mapping[str, str], *, closed: bool) -> bool:
    """Whether a search means a stream with these labels."""
    if search.closed not in {None, closed}:
        return False
    if any(labels.get(name) != value for name, value in search.labels.items()):
        return False
    wanted = search.text.casefold()
    return not wanted or any(wanted in value.casefold() for value in labels.values())
