"""The newest part of an answer that this process produces: what its followers wait for.

Only what the store has acknowledged gets here, so no reader sees what a crash could take back.
The window is bounded; readers that are further behind read the store.
"""

from collections import deque
from itertools import islice

from unbroken.events import Event
from unbroken.server.notify import Notifier
from unbroken.server.records import decode_events
from unbroken.stores.base import End

MAX_RECORDS, MAX_BYTES = 32, 256 * 1024
"""Bounds of the window: more than a reader at the model's speed ever lacks. What is older is in
the store, and would be in memory once for each open answer.
"""


class RecordBatch:
    """Events that were stored together, the record that holds them, the offset behind it."""

    __slots__ = ("_events", "data", "offset")

    def __init__(self, offset: int, data: bytes, events: list[Event] | None = None) -> None:
        self.offset, self.data, self._events = offset, data, events

    @property
    def events(self) -> list[Event]:
        """The events, decoded once, for readers that need more than the bytes."""
        if self._events is None:
            self._events = decode_events(self.data)
        return self._events


class LiveTail:
    """An answer in progress; `tail` is the offset behind its last stored record."""

    def __init__(self, tail: int) -> None:
        self.tail = tail
        self.end: End | None = None
        self._batches: deque[RecordBatch] = deque()
        self._size = 0
        self._notifier = Notifier()
        self.wait, self.wake = self._notifier.wait, self._notifier.notify_all

    def push(self, events: list[Event], record: bytes) -> None:
        """Add a record that has been stored."""
        self.tail += 1
        self._batches.append(RecordBatch(self.tail, record, events))
        self._size += len(record)
        if len(self._batches) > 2 * MAX_RECORDS or self._size > MAX_BYTES:
            self._shrink()

    def _shrink(self) -> None:
        while len(self._batches) > MAX_RECORDS or self._size > MAX_BYTES:
            self._size -= len(self._batches.popleft().data)

    def since(self, offset: int) -> list[RecordBatch] | None:
        """Return what came after `offset`; None if the window does not reach there."""
        missing = self.tail - offset
        if not 0 <= missing <= len(self._batches):
            return None
        if missing == 1:  # the usual case
            return [self._batches[-1]]
        return [*islice(reversed(self._batches), missing)][::-1]
