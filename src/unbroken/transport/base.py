"""The port to the world: open a request, read its body, sleep, tell the time.

Everything that waits is behind these methods; everything above them is a pure function of what
they return. Real HTTP (`http_sync`, `http_async`) and the simulator are its kinds. Times are
seconds on the transport's own monotonic clock; a deadline of None means no bound.

What may be raised, by any of them: ConnectFailed, ConnectionLost, TimedOut. Nothing foreign.
"""

from collections.abc import Coroutine, Mapping
from typing import Any, Protocol, TypeVar

from msgspec import Struct


class HttpRequest(Struct, frozen=True):
    """One HTTP request. Header names are in lower case; their values show keys, `repr` does not.

    `given_up` is said before anybody looks for the wait to be ended, and looked at after a wait can
    be found: so that of two threads neither misses the other. `omitted` are the JSON paths of the
    question that this provider's dialect could not express.
    """

    method: str
    url: str
    headers: dict[str, str]
    body: bytes = b""
    given_up: bool = False
    omitted: tuple[str, ...] = ()

    def __repr__(self) -> str:
        named = ", ".join(self.headers)
        return f"HttpRequest({self.method} {self.url}, {named}, {len(self.body)} bytes)"


class Deadlines(Struct, frozen=True):
    """By when the connection must stand, and by when the headers of the answer must be there."""

    connect: float | None = None
    headers: float | None = None


class Body(Protocol):
    """An answer whose headers have come. Header names are in lower case."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    def read(self, deadline: float | None, /) -> bytes:
        """Whatever has arrived, at least one byte; b"" at the end of the body."""

    def close(self, *, reusable: bool = False) -> None:
        """Let go at once. `reusable`: the answer is whole, the connection may serve again."""


class AsyncBody(Protocol):
    """`Body`, awaited."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    async def read(self, deadline: float | None, /) -> bytes:
        """Whatever has arrived, at least one byte; b"" at the end of the body."""

    async def close(self, *, reusable: bool = False) -> None:
        """Let go at once. `reusable`: the answer is whole, the connection may serve again."""


T = TypeVar("T")


class Lane(Protocol[T]):
    """One of two that race for the first content."""

    def first(self) -> list[T]:
        """What came first; empty when nothing will."""

    def abandon(self) -> None:
        """The other was faster: close what is open, at once. `first` may be under way."""


class AsyncLane(Protocol[T]):
    """`Lane`, awaited; `abandon` follows the cancellation of `first`."""

    def first(self) -> Coroutine[Any, Any, list[T]]:
        """What came first; empty when nothing will."""

    async def abandon(self) -> None:
        """The other was faster: close what is open, at once."""


class Transport(Protocol):
    """The world, for callers that block."""

    def open(self, request: HttpRequest, deadlines: Deadlines, /) -> Body: ...

    def sleep(self, seconds: float, request: HttpRequest, /) -> None:
        """Wait, before that request is sent."""

    def now(self) -> float: ...

    def give_up(self, request: HttpRequest, /) -> None:
        """End `sleep` or `open` for that request, if another thread waits in it."""

    def race(self, one: Lane[T], other: Lane[T], after: float, /) -> tuple[int, list[T]]:
        """Start `one`, and `other` once `after` seconds are over or `one` came to nothing.

        Which of them had something first (0 or 1), and what; the slower one is abandoned.
        """

    def close(self) -> None: ...


class AsyncTransport(Protocol):
    """The world, for callers that await."""

    async def open(self, request: HttpRequest, deadlines: Deadlines, /) -> AsyncBody: ...

    async def sleep(self, seconds: float, request: HttpRequest, /) -> None:
        """Wait, before that request is sent."""

    def now(self) -> float: ...

    def give_up(self, request: HttpRequest, /) -> None:
        """End `sleep` or `open` for that request, if another task waits in it."""

    async def race(
        self, one: AsyncLane[T], other: AsyncLane[T], after: float, /
    ) -> tuple[int, list[T]]:
        """`Transport.race`, awaited."""

    async def close(self) -> None: ...
