"""The newest part of an answer that this process produces: what its followers wait for.

Only what the store has acknowledged gets here, so nobody is shown what a crash could take back.
The window is bounded; whoever is further behind reads the store.
"""

import asyncio
from collections import deque

from unbroken.events import Event
from unbroken.server.records import events_from
from unbroken.stores.base import End

WINDOW = 64 * 1024
"""Bytes of records that are kept: more than a reader at the speed of the model ever lacks."""


class Batch:
    """Events that were stored together, the record that holds them, the offset behind it."""

    __slots__ = ("_events", "data", "offset")

    def __init__(self, offset: int, data: bytes, events: list[Event] | None = None) -> None:
        self.offset, self.data, self._events = offset, data, events

    @property
    def events(self) -> list[Event]:
        """Decoded once, for those who need more than the bytes."""
        if self._events is None:
            self._events = events_from(self.data)
        return self._events


class Live:
    """An answer under way; `tail` is the offset behind its last stored record."""

    def __init__(self, tail: int) -> None:
        self.tail = tail
        self.end: End | None = None
        self.followers = 0
        self._begin = tail
        self._batches: deque[Batch] = deque()
        self._size = 0
        self._changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def push(self, events: list[Event], record: bytes) -> None:
        """One more record is stored."""
        self.tail += 1
        self._batches.append(Batch(self.tail, record, events))
        self._size += len(record)
        while self._size > WINDOW:
            gone = self._batches.popleft()
            self._begin, self._size = gone.offset, self._size - len(gone.data)

    def wake(self) -> None:
        """Tell the followers that there is more, or the end."""
        changed, self._changed = self._changed, asyncio.get_running_loop().create_future()
        changed.set_result(None)

    def after(self, offset: int) -> list[Batch] | None:
        """What came behind `offset`; None if that is not in the window any more."""
        if offset < self._begin:
            return None
        return [batch for batch in self._batches if batch.offset > offset]

    async def wait(self) -> None:
        """Until there is more."""
        await asyncio.shield(self._changed)
