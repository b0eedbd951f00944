"""Real HTTP for callers that await, on aiohttp. Why aiohttp: docs/adr/0001-http-libraries.md.

aiohttp keeps the connections; responses are read by `http1`, as in the synchronous transport.
"""

import asyncio
import io
import time
from collections.abc import Mapping
from typing import Any

import aiohttp
from yarl import URL

from unbroken.errors import (
    ConnectFailed,
    ConnectionLost,
    LocalProtocolError,
    TimedOut,
    TransportError,
)
from unbroken.transport.aiohttp_reader import connector_of
from unbroken.transport.base import AsyncLane, Deadlines, HttpRequest
from unbroken.transport.http1 import decompression
from unbroken.transport.proxies import Proxies
from unbroken.transport.race import T, race_tasks
from unbroken.transport.waits import AsyncWaits

_LINGER = 0.05
"""Seconds to wait for the last chunk of a whole answer, so that its connection can serve again."""

_GLANCE = 0.001
"""Seconds to look for what has come already, when the time to wait for it is over."""

_FAILURES = (aiohttp.ClientError, OSError, UnicodeError, TransportError)
"""TimeoutError is an OSError, InvalidURL a ClientError; a UnicodeError: no host has such a name.
TransportError is what `http1` raises.
"""

_CONNECT = (
    aiohttp.ClientConnectorError,
    aiohttp.ClientHttpProxyError,
    aiohttp.InvalidURL,
    UnicodeError,
)


def _translate(error: Exception) -> TransportError:
    """Return the exception of ours for one of aiohttp's."""
    if isinstance(error, TransportError):
        return error
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return TimedOut(phase="connect")
    if isinstance(error, TimeoutError):
        return TimedOut()
    if isinstance(error, _CONNECT):
        return ConnectFailed(str(error))
    return ConnectionLost(str(error))


def _payload(body: bytes) -> bytes | io.BytesIO:
    """The body as aiohttp writes it in steps: megabytes at once would hold up the event loop."""
    return io.BytesIO(body) if len(body) > _LARGE else body


_LARGE = 256 * 1024


class HttpBody:
    """A response whose headers have come."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = {k.lower(): v for k, v in response.headers.items()}
        self._response = response
        self._content = response.content
        self._timer = _ReadTimer(response.content)
        self._decompression = decompression(self.headers)

    async def read(self, deadline: float | None) -> bytes:
        """Return whatever has arrived, at least one byte; b"" at the end of the body."""
        if not self._decompression:
            return await self._read(deadline)
        data = b""
        while not data:
            raw = b"" if self._decompression.pending else await self._read(deadline)
            if not raw and not self._decompression.pending:
                self._decompression.eof()
                break
            data = self._decompression.feed(raw)
        return data

    async def _read(self, deadline: float | None) -> bytes:
        try:
            data = self._content.read_nowait(-1)  # what is here needs no timer
            if data:
                return data
            self._timer.start(deadline)
            return await self._content.readany()
        except _FAILURES as error:
            if data := self._unread():
                return data
            raise _translate(error) from error
        finally:
            self._timer.deadline = None

    def _unread(self) -> bytes:
        """What had come before the connection broke: aiohttp raises rather than give it out."""
        return self._content._read_nowait(-1)

    async def close(self, *, reusable: bool = False) -> None:
        """Close at once. `reusable`: the answer is whole, the connection may serve again."""
        self._timer.close()
        whole = False
        try:
            whole = reusable and await self._at_end()
        finally:  # a task that is cancelled while lingering closes the connection too
            if whole:
                self._response.release()
            else:
                self._response.close()

    async def _at_end(self) -> bool:
        """Whether the body ends here. It follows the answer's end; without it the connection is
        spent.
        """
        try:
            async with asyncio.timeout(_LINGER):
                return not await self._content.readany()
        except _FAILURES:
            return False


class _ReadTimer:
    """Wakes a read at its deadline. One timer serves many reads and is set anew only when it fires
    too early, since a timer for each costs more than the read itself.
    """

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self.deadline: float | None = None
        self._content = content
        self._timer: asyncio.TimerHandle | None = None
        self._fires_at = 0.0
        self._looked = False

    def start(self, deadline: float | None) -> None:
        """A read begins to wait; it fails with TimeoutError at the deadline."""
        self.deadline, self._looked = deadline, False
        if deadline is not None and (self._timer is None or deadline < self._fires_at):
            self._set(deadline)

    def close(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, deadline: float) -> None:
        self.close()
        self._fires_at = deadline
        left = max(deadline - time.monotonic(), 0.0)
        self._timer = asyncio.get_running_loop().call_later(left, self._fire)

    def _fire(self) -> None:
        self._timer = None
        if self.deadline is None:
            return
        if self.deadline > time.monotonic():
            self._set(self.deadline)
        elif self._content._size:
            self._timer = None  # the read has its data, and has not been resumed yet
        elif not self._looked:
            # A loop that was blocked may hold bytes that it has not read from the socket yet.
            self._looked = True
            self._timer = asyncio.get_running_loop().call_later(_GLANCE, self._fire)
        else:
            self._content.set_exception(TimeoutError())


class AsyncHttpTransport:
    """The world over aiohttp. Proxies are taken from the environment."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop
        self._proxies = Proxies()
        self._waits = AsyncWaits()

    async def open(self, request: HttpRequest, deadlines: Deadlines) -> HttpBody:
        """Send the request; the body's headers have come when this returns."""
        # `connect` bounds the name, all addresses and TLS together; `sock_connect` each address
        timeout = aiohttp.ClientTimeout(total=None, connect=_left(deadlines.connect))
        proxy, headers = self._way(request)
        try:
            async with self._waits.within(_left(deadlines.headers), request):
                response = await self._connected().request(
                    request.method,
                    _as_written(request.url),
                    data=_payload(request.body),
                    headers=headers,
                    timeout=timeout,
                    allow_redirects=False,
                    **proxy,
                )
        except _FAILURES as error:
            raise _translate(error) from error
        return HttpBody(response)

    def _way(self, request: HttpRequest) -> tuple[dict[str, Any], dict[str, str]]:
        """Through which proxy, and the headers. It is shown its own with the request, or, for TLS,
        when the tunnel is dug, and nobody else is.
        """
        proxy = self._proxies.of(request.url)
        if proxy is None:
            return {}, request.headers
        if request.url.startswith("https:"):
            return {"proxy": proxy.url, "proxy_headers": proxy.headers}, request.headers
        return {"proxy": proxy.url}, {**request.headers, **proxy.headers}

    async def sleep(self, seconds: float, request: HttpRequest) -> None:
        """Wait, before that request is sent."""
        await self._waits.sleep(seconds, request)

    def now(self) -> float:
        """Seconds on the monotonic clock."""
        return time.monotonic()

    def give_up(self, request: HttpRequest) -> None:
        """End `sleep` or `open` for that request, if another task waits in it."""
        self._waits.end(request)

    async def race(
        self, one: AsyncLane[T], other: AsyncLane[T], after: float
    ) -> tuple[int, list[T]]:
        """Start `one`, and `other` if it is needed; see the port."""
        return await race_tasks(one, other, after)

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    def _connected(self) -> aiohttp.ClientSession:
        """The session belongs to the running loop, so it is made at the first request."""
        loop = asyncio.get_running_loop()
        if self._session is None:
            self._loop = loop
            connector = connector_of(loop)
            jar = aiohttp.DummyCookieJar()  # keys share the session: no cookie goes from one to all
            self._session = aiohttp.ClientSession(
                connector=connector, cookie_jar=jar, auto_decompress=False
            )
        if loop is not self._loop:
            raise LocalProtocolError(
                "this client has connections of another event loop; make one AsyncClient in each"
            )
        return self._session


def _as_written(url: str) -> URL | str:
    """What is escaped stays so: yarl writes a colon for %3A, and no signature fits any more
    (aio-libs/aiohttp#4307).
    """
    try:
        return URL(url, encoded=True) if "%" in url else url
    except ValueError as error:
        raise ConnectFailed(f"{url!r} is no address: {error}") from error


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else deadline - time.monotonic()
