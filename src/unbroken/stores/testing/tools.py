"""What the checks of the contract share."""

from collections.abc import AsyncIterator, Awaitable

from unbroken import errors
from unbroken.stores.base import BEGINNING, End, Lease, Offset, Page, Record, Store

SOON = 10.0  # seconds after which a wake-up is taken for lost
DONE = End("complete", b"stop")


class Broken(AssertionError):
    """The store does not keep the contract."""


class Hands:
    """A clock that is turned by hand."""

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
            raise Broken(f"nobody woke the follower at {page.next}")
        page = await store.read(stream, page.next, 7)
    for record in page.records:
        yield record


async def lease_of(store: Store, stream: str, producer: str, seconds: float = 10.0) -> Lease:
    lease = await store.acquire(stream, producer, seconds)
    if lease is None:
        raise Broken(f"{producer} was not given the free stream {stream!r}")
    return lease
