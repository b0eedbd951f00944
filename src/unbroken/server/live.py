"""The newest part of an answer that this process produces: what its followers wait for.

Only what the store has acknowledged gets here, so nobody is shown what a crash could take back.
The window is bounded; whoever is further behind reads the store.
"""

import asyncio
from collections import deque
from typing import NamedTuple

from unbroken.events import Event
from unbroken.stores.base import End

WINDOW = 64 * 1024
"""Bytes of records that are kept: more than a reader at the speed of the model ever lacks."""


class Batch(NamedTuple):
    """Events that were stored together, and the offset behind them."""

    offset: int
    events: list[Event]


class Live:
    """An answer under way; `tail` is the offset behind its last stored record."""

    def __init__(self, tail: int) -> None:
        self.tail = tail
        self.end: End | None = None
        self.followers = 0
        self._begin = tail
        self._batches: deque[tuple[Batch, int]] = deque()
        self._size = 0
        self._changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def push(self, events: list[Event], size: int) -> None:
        """One more record of so many bytes is stored."""
        self.tail += 1
        self._batches.append((Batch(self.tail, events), size))
        self._size += size
        while self._size > WINDOW:
            gone, bytes_ = self._batches.popleft()
            self._begin, self._size = gone.offset, self._size - bytes_

    def wake(self) -> None:
        """Tell the followers that there is more, or the end."""
        changed, self._changed = self._changed, asyncio.get_running_loop().create_future()
        changed.set_result(None)

    def after(self, offset: int) -> list[Batch] | None:
        """What came behind `offset`; None if that is not in the window any more."""
        if offset < self._begin:
            return None
        return [batch for batch, _ in self._batches if batch.offset > offset]

    async def wait(self) -> None:
        """Until there is more."""
        await asyncio.shield(self._changed)
