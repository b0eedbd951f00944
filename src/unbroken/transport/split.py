"""Two worlds as one: some hosts are in this process, all others on the network."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from unbroken.transport.base import (
    AsyncBody,
    AsyncLane,
    AsyncTransport,
    Body,
    Deadlines,
    HttpRequest,
    Lane,
    T,
    Transport,
)


class SplitTransport:
    """For callers that block. The parts belong to whoever made them, who closes them."""

    def __init__(self, inside: Mapping[str, Transport], outside: Transport) -> None:
        self._inside, self._outside = inside, outside

    def now(self) -> float:
        """Seconds on the clock that all of them share."""
        return self._outside.now()

    def open(self, request: HttpRequest, deadlines: Deadlines) -> Body:
        """Ask whoever has the host."""
        return self._part(request).open(request, deadlines)

    def sleep(self, seconds: float, request: HttpRequest) -> None:
        """Wait, before that request is sent."""
        self._part(request).sleep(seconds, request)

    def give_up(self, request: HttpRequest) -> None:
        """End `sleep` or `open` for that request, if another thread waits in it."""
        self._part(request).give_up(request)

    def race(self, one: Lane[T], other: Lane[T], after: float) -> tuple[int, list[T]]:
        """Start `one`, and `other` if it is needed; see the port."""
        return self._outside.race(one, other, after)

    def close(self) -> None:
        """Nothing is held."""

    def _part(self, request: HttpRequest) -> Transport:
        return self._inside.get(urlsplit(request.url).hostname or "", self._outside)


class AsyncSplitTransport:
    """For callers that await. The parts belong to whoever made them, who closes them."""

    def __init__(self, inside: Mapping[str, AsyncTransport], outside: AsyncTransport) -> None:
        self._inside, self._outside = inside, outside

    def now(self) -> float:
        """Seconds on the clock that all of them share."""
        return self._outside.now()

    async def open(self, request: HttpRequest, deadlines: Deadlines) -> AsyncBody:
        """Ask whoever has the host."""
        return await self._part(request).open(request, deadlines)

    async def sleep(self, seconds: float, request: HttpRequest) -> None:
        """Wait, before that request is sent."""
        await self._part(request).sleep(seconds, request)

    def give_up(self, request: HttpRequest) -> None:
        """End `sleep` or `open` for that request, if another task waits in it."""
        self._part(request).give_up(request)

    async def race(
        self, one: AsyncLane[T], other: AsyncLane[T], after: float
    ) -> tuple[int, list[T]]:
        """Start `one`, and `other` if it is needed; see the port."""
        return await self._outside.race(one, other, after)

    async def close(self) -> None:
        """Nothing is held."""

    def _part(self, request: HttpRequest) -> AsyncTransport:
        return self._inside.get(urlsplit(request.url).hostname or "", self._outside)
