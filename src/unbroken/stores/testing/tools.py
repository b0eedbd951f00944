"""Parts that the checks share."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence

from unbroken import errors
from unbroken.stores.base import (
    BEGINNING,
    End,
    Lease,
    NewStream,
    Offset,
    Page,
    Record,
    Search,
    Store,
)

SOON = 10.0  # seconds after which a wake-up is taken for lost
DONE = End("complete", b"stop")


class Broken(AssertionError):
    """The store does not keep the contract."""


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def equal(found: object, expected: object) -> None:
    """Raise Broken unless they are equal."""
    if found != expected:
        raise Broken(f"found {found!r}, expected {expected!r}")


async def refused(error: type[errors.StoreError], call: Awaitable[object]) -> None:
    """Raise Broken unless the call raises the error."""
    try:
        result = await call
    except error:
        return
    raise Broken(f"{error.__name__} was not raised, there came {result!r}")


async def rest(store: Store, stream: str, after: Offset = BEGINNING, limit: int = 1000) -> Page:
    """All records behind an offset, page by page."""
    records: list[Record] = []
    page = await store.read(stream, after, limit)
    while page.records:
        records += page.records
        page = await store.read(stream, page.next, limit)
    return Page(records, page.next, page.end)


async def data_of(store: Store, stream: str) -> list[bytes]:
    return [record.data for record in (await rest(store, stream)).records]


async def follow(store: Store, stream: str, after: Offset = BEGINNING) -> AsyncIterator[Record]:
    """As a follower reads: what is there, then what comes, to the end."""
    page = await store.read(stream, after, 7)
    while not page.closed:
        for record in page.records:
            yield record
        if not await store.wait(stream, page.next, SOON):
            raise Broken(f"the follower at {page.next} was not woken")
        page = await store.read(stream, page.next, 7)
    for record in page.records:
        yield record


async def produce(store: Store, stream: str, process: str, records: Sequence[bytes] = ()) -> Lease:
    """Create a stream with a producer that lives for 10 seconds, and return its lease."""
    await store.heartbeat(process, 10)
    created = await store.create(NewStream(stream), records, process)
    if created.lease is None:
        raise Broken(f"{process} was given no lease of the new stream {stream!r}")
    return created.lease


async def closed(store: Store, count: int) -> None:
    """Create some streams of one record, and close them."""
    streams = [f"closed{number}" for number in range(count)]
    await asyncio.gather(*(store.create(NewStream(stream), [b"x"]) for stream in streams))
    await asyncio.gather(*(store.close(stream, DONE, 1) for stream in streams))


async def adopt(store: Store, process: str, limit: int = 20) -> list[Lease]:
    """Adopt as a process that lives for 10 seconds."""
    await store.heartbeat(process, 10)
    return await store.adopt(process, limit)


async def prune(store: Store, age: float | None = None, size: int | None = None) -> int:
    """Prune until there is nothing more to do; how many streams were deleted."""
    deleted, more = 0, True
    while more:
        step = await store.prune(age, size)
        deleted, more = deleted + step.deleted, step.more
    return deleted


async def names(store: Store, owner: str | None, search: Search) -> list[str]:
    """The ids of the streams that a search finds."""
    return [info.id for info in (await store.find(owner, search)).streams]
