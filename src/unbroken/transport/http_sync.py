"""Real HTTP for callers that block, on urllib3. Why urllib3: docs/adr/0001-http-libraries.md."""

import contextlib
import io
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPResponse
from typing import Any, TypeVar

import urllib3
from urllib3 import exceptions as theirs

from unbroken.errors import ConnectFailed, ConnectionLost, TimedOut, TransportError
from unbroken.transport.base import Deadlines, HttpRequest, Lane
from unbroken.transport.chunked import ChunkedDecoder
from unbroken.transport.proxies import Proxies
from unbroken.transport.race import T, race
from unbroken.transport.waits import Waits

_READ = 64 * 1024
_LINGER = 0.05
"""Seconds to wait for the last chunk of a whole answer, so that its connection can serve again."""

_GLANCE = 0.001
"""Seconds to look for what has come already, when the time to wait for it is over."""

_CONNECT = (
    theirs.NewConnectionError,
    theirs.SSLError,
    theirs.ProxyError,
    theirs.LocationValueError,
)


@contextmanager
def _mapped() -> Iterator[None]:
    """The one place where foreign exceptions become ours."""
    try:
        yield
    except _CONNECT as error:  # before timeouts: urllib3 derives one from the other
        raise ConnectFailed(_reason(error)) from error
    except theirs.ConnectTimeoutError as error:
        raise TimedOut(phase="connect") from error
    except (theirs.ReadTimeoutError, TimeoutError) as error:
        raise TimedOut from error
    except (theirs.HTTPError, OSError) as error:
        raise ConnectionLost(_reason(error)) from error


def _reason(error: Exception) -> str:
    return str(error.__cause__ or error.__context__ or error)


class _Clocked(io.RawIOBase):
    """What a socket gives, by a deadline that every look at it is bound by: a socket's own timeout
    begins anew with each byte, and http.client looks until a line is whole.
    """

    def __init__(self, sock: socket.socket, made: io.RawIOBase, deadline: float | None) -> None:
        self.deadline, self.sock, self._made = deadline, sock, made
        self._timeout: float | None = -1.0  # as yet unknown

    def readable(self) -> bool:
        """For the buffer above."""
        return True

    def readinto(self, buffer: "memoryview | bytearray", /) -> int:  # type: ignore[override]
        """What is here now, or comes by the deadline."""
        self._arm()
        return self.sock.recv_into(buffer)

    def close(self) -> None:
        """The socket counts its readers."""
        self._made.close()
        super().close()

    def _arm(self) -> None:
        """Bound the next look. While content flows the bound hardly moves: a system call saved."""
        left, was = None, self._timeout
        if self.deadline is not None:
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            if was is not None and abs(left - was) < 0.01 * left:
                return
        if left != was:
            self.sock.settimeout(left)
            self._timeout = left


class _Answer(HTTPResponse):
    """Read by the deadline that its request waits for."""

    def __init__(self, sock: socket.socket, *args: Any, **named: Any) -> None:
        super().__init__(sock, *args, **named)
        wait: _Wait = _asking.wait
        wait.clocked = _Clocked(sock, self.fp.detach(), wait.deadline)
        self.fp = io.BufferedReader(wait.clocked)


class _Wait:
    """Somebody opens a request, and waits for its headers once there is a socket. Who gives it up
    says so before looking for the socket; who waits shows the socket before looking whether it was
    said.
    """

    def __init__(self, request: HttpRequest, deadlines: Deadlines) -> None:
        self.request = request
        self.sock: socket.socket | None = None
        self.deadlines = deadlines
        self.deadline = deadlines.connect  # of a tunnel, if one has to be dug
        self.clocked: _Clocked | None = None


_WAITING: dict[int, _Wait] = {}
"""By the identity of a request."""

if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_WAITING.clear)  # it is the parent that waits

_asking = threading.local()


@contextmanager
def _waiting(request: HttpRequest, deadlines: Deadlines) -> Iterator[_Wait]:
    wait = _asking.wait = _WAITING[id(request)] = _Wait(request, deadlines)
    try:
        yield wait
    finally:
        del _WAITING[id(request)], _asking.wait


class _Watched:
    """Mixed into urllib3's connections, so that another thread can end the wait for headers."""

    sock: socket.socket | None
    response_class = _Answer

    def getresponse(self) -> object:
        wait: _Wait = _asking.wait
        wait.sock, wait.deadline = self.sock, wait.deadlines.headers
        if wait.request.given_up:
            _hang_up(self.sock)
        return super().getresponse()  # type: ignore[misc]  # of the connection it is mixed into


class _Plain(_Watched, urllib3.connection.HTTPConnection):  # type: ignore[misc]  # getresponse
    """http://"""


class _Secure(_Watched, urllib3.connection.HTTPSConnection):  # type: ignore[misc]  # getresponse
    """https://"""


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Plain  # type: ignore[assignment]  # the protocol is wider than any class


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Secure  # type: ignore[assignment]


_POOLS = {"http": _PlainPool, "https": _SecurePool}


def _hang_up(sock: socket.socket | None) -> None:
    """End the connection, also under a thread that reads from it."""
    if sock is not None:
        with contextlib.suppress(OSError):  # it is closed already
            sock.shutdown(socket.SHUT_RDWR)


class SyncBody:
    """An answer whose headers have come."""

    def __init__(self, response: urllib3.BaseHTTPResponse, clocked: _Clocked) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = {k.lower(): v for k, v in response.headers.items()}
        self._response = response
        self._pid = os.getpid()
        self._clocked = clocked
        self._chunks = ChunkedDecoder()
        self._raw = _raw_reader(response)

    def read(self, deadline: float | None) -> bytes:
        """Whatever has arrived, at least one byte; b"" at the end of the body."""
        if deadline is not None:  # what came while the caller was busy is here, however late it is
            deadline = max(deadline, time.monotonic() + _GLANCE)
        self._clocked.deadline = deadline
        with _mapped():
            return self._response.read1(_READ) if self._raw is None else self._dechunked(self._raw)

    def close(self, *, reusable: bool = False) -> None:
        """Let go at once. `reusable`: the answer is whole, the connection may serve again."""
        if reusable and self._at_end():
            self._response.release_conn()
        else:
            # without a connection the socket serves somebody else already; after a fork it is the
            # parent's, and to close it here changes nothing there
            if self._response.connection is not None and self._pid == os.getpid():
                _hang_up(self._clocked.sock)
            self._response.close()

    def _dechunked(self, raw: Callable[[int], bytes]) -> bytes:
        body = b""
        while not body and not self._chunks.done:
            data = raw(_READ)
            if not data:
                raise ConnectionLost("the connection was closed in the middle of the body")
            body = self._chunks.feed(data)
        return body

    def _at_end(self) -> bool:
        """The body's own end follows the answer's; without it the connection is spent."""
        try:
            if self.read(time.monotonic() + _LINGER):
                return False
        except TransportError:
            return False
        if self._raw is not None:
            self._response._fp.close()  # type: ignore[attr-defined]  # http.client: the body is read
            return self._chunks.clean
        return True


def _raw_reader(response: urllib3.BaseHTTPResponse) -> Callable[[int], bytes] | None:
    """What reads the socket below http.client's chunk reader; None where it is not that.

    urllib3 has no public way there, so everything is checked; without it `read1` does the same,
    a chunk at a time.
    """
    original = getattr(response, "_fp", None)
    plain = "content-encoding" not in response.headers
    if isinstance(original, HTTPResponse) and getattr(original, "chunked", False) and plain:
        return getattr(original.fp, "read1", None)
    return None


Manager = TypeVar("Manager", bound=urllib3.PoolManager)


class HttpTransport:
    """The world over urllib3. Proxies are taken from the environment."""

    def __init__(self) -> None:
        self._proxies = Proxies()
        self._begin()

    def _begin(self) -> None:
        """Without connections; also in a process that has been forked off, where they are the
        parent's: two that talk over one socket would read each other's answers.
        """
        self._pid = os.getpid()
        self._direct = _watched(urllib3.PoolManager(maxsize=100))
        self._proxied: dict[str, urllib3.ProxyManager] = {}
        self._waits = Waits()

    def open(self, request: HttpRequest, deadlines: Deadlines) -> SyncBody:
        """Send the request; the body's headers have come when this returns."""
        if self._pid != os.getpid():
            self._begin()
        now = time.monotonic()
        timeout = urllib3.Timeout(
            connect=_left(deadlines.connect, now), read=_left(deadlines.headers, now)
        )
        with _mapped(), _waiting(request, deadlines) as wait:
            response = self._pool(request.url).urlopen(
                request.method,
                request.url,
                body=request.body,
                headers=request.headers,
                timeout=timeout,
                preload_content=False,
                redirect=False,
                retries=False,
            )
        assert wait.clocked is not None  # who has a response made its clock
        return SyncBody(response, wait.clocked)

    def sleep(self, seconds: float, request: HttpRequest) -> None:
        """Wait, before that request is sent."""
        self._waits.sleep(seconds, request)

    def now(self) -> float:
        """Seconds on the monotonic clock."""
        return time.monotonic()

    def give_up(self, request: HttpRequest) -> None:
        """End `sleep` or `open` for that request, if another thread waits in it."""
        self._waits.end(request)
        if wait := _WAITING.get(id(request)):
            _hang_up(wait.sock)

    def race(self, one: Lane[T], other: Lane[T], after: float) -> tuple[int, list[T]]:
        """Start `one`, and `other` if it is needed; see the port."""
        return race(one, other, after)

    def close(self) -> None:
        """Close all idle connections."""
        for pool in (self._direct, *self._proxied.values()):
            pool.clear()

    def _pool(self, url: str) -> urllib3.PoolManager:
        proxy = self._proxies.of(url)
        if proxy is None:
            return self._direct
        if proxy.url not in self._proxied:
            manager = urllib3.ProxyManager(proxy.url, proxy_headers=proxy.headers)
            self._proxied[proxy.url] = _watched(manager)
        return self._proxied[proxy.url]


def _watched(manager: Manager) -> Manager:
    manager.pool_classes_by_scheme = _POOLS
    return manager


def _left(deadline: float | None, now: float) -> float | None:
    if deadline is None:
        return None
    if deadline <= now:
        raise TimedOut
    return deadline - now
