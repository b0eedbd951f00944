"""The records that this process has appended lately, so that it can write them again.

A Redis that fails over to a replica, or comes back from a disk that was a second behind, has lost
the last records of a stream whose producer lives. The fence proves that no other has written
since, so the producer writes them again, at the same offsets.
"""

from collections import OrderedDict
from collections.abc import Sequence

from unbroken.stores.base import Offset

KEPT_BYTES = 16 << 10
"""Of a stream: two seconds of a fast answer. Its followers' window holds the same objects."""

MAX_STREAMS = 100_000


class _Tail:
    """The end of one stream."""

    def __init__(self, fence: int, at: Offset) -> None:
        self.fence, self.start, self.size = fence, at, 0
        self.records: list[bytes] = []

    @property
    def end(self) -> Offset:
        return self.start + len(self.records)

    def add(self, records: Sequence[bytes]) -> None:
        self.records += records
        self.size += sum(map(len, records))
        if self.size > KEPT_BYTES:
            half = len(self.records) // 2 + 1
            self.size -= sum(map(len, self.records[:half]))
            self.start, self.records = self.start + half, self.records[half:]


class ReplayBuffer:
    """The ends of all streams that this process writes."""

    def __init__(self) -> None:
        self._tails: OrderedDict[str, _Tail] = OrderedDict()

    def record(self, stream: str, fence: int, at: Offset, records: Sequence[bytes]) -> None:
        """Keep records that are stored behind `at`."""
        tail = self._tails.get(stream)
        if tail is None or (tail.fence, tail.end) != (fence, at):
            tail = self._tails[stream] = _Tail(fence, at)
            if len(self._tails) > MAX_STREAMS:
                self._tails.popitem(last=False)
        tail.add(records)

    def slice(self, stream: str, fence: int, first: Offset, last: Offset) -> list[bytes] | None:
        """Return the records behind `first` up to `last`; None if they are not all known."""
        tail = self._tails.get(stream)
        if tail is None or (tail.fence, tail.end) != (fence, last) or first < tail.start:
            return None
        return tail.records[first - tail.start :]

    def drop(self, stream: str) -> None:
        """Forget a stream: its producer is not here any more."""
        self._tails.pop(stream, None)
