"""The watches that a process keeps: all that somebody waits on, and some that were left lately."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

IDLE = 1024  # watches kept that nobody waits on at the moment


class Pinned(Protocol):
    """What is known of a stream; `pins` counts who waits on it."""

    pins: int


W = TypeVar("W", bound=Pinned)


class Kept(Generic[W]):
    """Watches by stream. `dropped` hears which stream is watched no more."""

    def __init__(self, make: Callable[[], W], dropped: Callable[[str], object] = str) -> None:
        self._make, self._dropped = make, dropped
        self._watches: dict[str, W] = {}
        self._idle: OrderedDict[str, float] = OrderedDict()  # since when, the last left at the end

    def __len__(self) -> int:
        return len(self._watches)

    def get(self, stream: str) -> W | None:
        """The watch of a stream, if there is one."""
        return self._watches.get(stream)

    @contextmanager
    def pinned(self, stream: str) -> Iterator[W]:
        """The watch of a stream, made if there is none, and not dropped while somebody waits."""
        watch = self._watches.get(stream)
        if watch is None:
            watch = self._watches[stream] = self._make()
        self._idle.pop(stream, None)
        watch.pins += 1
        try:
            yield watch
        finally:
            watch.pins -= 1
            if not watch.pins and self._watches.get(stream) is watch:
                self._rest(stream)

    def _rest(self, stream: str) -> None:
        self._idle[stream] = time.monotonic()
        if len(self._idle) > IDLE:
            self.drop(next(iter(self._idle)))

    def idle(self, stream: str) -> float:
        """Seconds for which nobody has waited on it."""
        now = time.monotonic()
        return now - self._idle.get(stream, now)

    def drop(self, stream: str) -> None:
        """Forget what is known."""
        self._watches.pop(stream, None)
        self._idle.pop(stream, None)
        self._dropped(stream)
