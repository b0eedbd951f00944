"""Real HTTP for callers that block, on urllib3. Why urllib3: docs/adr/0001-http-libraries.md.

urllib3 keeps the connections; responses are read by `http1`, as in the asynchronous transport.
"""

import contextlib
import io
import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPMessage, HTTPResponse
from typing import Any, TypeVar

import urllib3
from urllib3 import exceptions as theirs

from unbroken.errors import ConnectFailed, ConnectionLost, TimedOut, TransportError
from unbroken.transport.base import Deadlines, HttpRequest, Lane
from unbroken.transport.connecting import connect, tls_context
from unbroken.transport.http1 import ResponseReader, decompression
from unbroken.transport.proxies import Proxies, Proxy
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
def _translated(pending: "_PendingRequest | None" = None) -> Iterator[None]:
    """Raise exceptions of ours for those of urllib3."""
    try:
        yield
    except _CONNECT as error:  # before timeouts: urllib3 derives one from the other
        raise ConnectFailed(_reason(error)) from error
    except theirs.ConnectTimeoutError as error:
        raise TimedOut(phase="connect") from error
    except (theirs.ReadTimeoutError, TimeoutError) as error:
        connecting = pending is not None and pending.sock is None  # TLS has no error of its own
        raise TimedOut(phase="connect" if connecting else "") from error
    except (theirs.HTTPError, OSError) as error:
        raise ConnectionLost(_reason(error)) from error


def _reason(error: Exception) -> str:
    return str(error.__cause__ or error.__context__ or error)


class _DeadlineReader(io.RawIOBase):
    """Reads a socket by a deadline that bounds every read: a socket's own timeout begins anew with
    each byte.
    """

    def __init__(self, sock: socket.socket, made: io.RawIOBase, deadline: float | None) -> None:
        self.deadline, self.sock, self._made = deadline, sock, made
        self._timeout: float | None = -1.0  # as yet unknown

    def readable(self) -> bool:
        """For the buffer above."""
        return True

    def readinto(self, buffer: "memoryview | bytearray", /) -> int:  # type: ignore[override]
        """Read what is here now, or comes by the deadline."""
        self._arm()
        return self.sock.recv_into(buffer)

    def close(self) -> None:
        """The socket counts its readers."""
        self._made.close()
        super().close()

    def _arm(self) -> None:
        """Bound the next read. While content flows the bound hardly moves: a system call saved."""
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


class _Response(HTTPResponse):
    """http.client's response, read by `http1`: the head in `begin`, the body by `SyncBody`."""

    def __init__(self, sock: socket.socket, *args: Any, **named: Any) -> None:
        super().__init__(sock, *args, **named)
        pending: _PendingRequest = _opening.pending
        self.socket = _DeadlineReader(sock, self.fp.detach(), pending.deadline)
        self.fp = io.BufferedReader(self.socket)  # http.client reads a tunnel's head from it
        self.reader = ResponseReader(self._method)  # type: ignore[attr-defined]
        self.first = b""  # of the body, if it came with the head
        pending.response = self

    def begin(self) -> None:
        """Read the head."""
        reader = self.reader
        while reader.head is None:
            self.first = self.receive()
        head = reader.head
        self.code = self.status = head.status
        self.reason, self.version = head.reason, 10 + bool(head.minor)
        self.headers = self.msg = HTTPMessage()
        for name, value in head.headers.items():
            self.msg[name] = value
        self.chunked = self.will_close = False  # what remains is not http.client's business
        self.length = None

    def receive(self) -> bytes:
        """Return body bytes of one read from the socket; b"" also while only others came."""
        data = self.fp.read1(_READ)
        if not data:
            self.reader.eof()
        return self.reader.feed(data)


class _PendingRequest:
    """A request that is being opened. A thread that gives it up sets `given_up` before it looks for
    the socket; the one that waits shows the socket before it looks at `given_up`.
    """

    def __init__(self, request: HttpRequest, deadlines: Deadlines) -> None:
        self.request = request
        self.sock: socket.socket | None = None
        self.deadlines = deadlines
        self.deadline = deadlines.connect  # of a tunnel, if one is needed
        self.response: _Response | None = None


_PENDING: dict[int, _PendingRequest] = {}
"""By the identity of a request."""

if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_PENDING.clear)  # they belong to the parent

_opening = threading.local()


@contextmanager
def _pending_request(request: HttpRequest, deadlines: Deadlines) -> Iterator[_PendingRequest]:
    pending = _opening.pending = _PENDING[id(request)] = _PendingRequest(request, deadlines)
    try:
        yield pending
    finally:
        del _PENDING[id(request)], _opening.pending


class _CancellableConnection:
    """Mixed into urllib3's connections: one deadline bounds all of connecting, and another thread
    can end the wait for headers.
    """

    sock: socket.socket | None
    response_class = _Response

    def _new_conn(self) -> socket.socket:
        sock = connect(
            (self._dns_host, self.port),  # type: ignore[attr-defined]
            _opening.pending.deadlines.connect,
            self.socket_options or (),  # type: ignore[attr-defined]
        )
        sys.audit("http.client.connect", self, self.host, self.port)  # type: ignore[attr-defined]
        return sock

    def getresponse(self) -> object:
        pending: _PendingRequest = _opening.pending
        pending.sock, pending.deadline = self.sock, pending.deadlines.headers
        if pending.request.given_up:
            _shut_down(self.sock)
        return super().getresponse()  # type: ignore[misc]  # of the connection it is mixed into


class _Plain(_CancellableConnection, urllib3.connection.HTTPConnection):  # type: ignore[misc]
    """http://"""


class _Secure(_CancellableConnection, urllib3.connection.HTTPSConnection):  # type: ignore[misc]
    """https://"""


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Plain  # type: ignore[assignment]  # the protocol is wider than any class


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Secure  # type: ignore[assignment]


_POOLS = {"http": _PlainPool, "https": _SecurePool}


def _shut_down(sock: socket.socket | None) -> None:
    """End the connection, also under a thread that reads from it."""
    if sock is not None:
        with contextlib.suppress(OSError):  # it is closed already
            sock.shutdown(socket.SHUT_RDWR)


class SyncBody:
    """A response whose headers have come. `pooled` is urllib3's hold on the connection."""

    def __init__(self, pooled: urllib3.BaseHTTPResponse, response: _Response) -> None:
        assert response.reader.head is not None
        self.status = response.status
        self.headers: Mapping[str, str] = response.reader.head.headers
        self._pooled, self._response = pooled, response
        self._pid = os.getpid()
        self._first = response.first
        self._decompression = decompression(self.headers)

    def read(self, deadline: float | None) -> bytes:
        """Return whatever has arrived, at least one byte; b"" at the end of the body."""
        if deadline is not None:  # what came while the caller was busy is here, however late it is
            deadline = max(deadline, time.monotonic() + _GLANCE)
        self._response.socket.deadline = deadline
        with _translated():
            return self._decompressed() if self._decompression else self._read()

    def _decompressed(self) -> bytes:
        data = b""
        while not data:
            raw = b"" if self._decompression.pending else self._read()
            if not raw and not self._decompression.pending:
                self._decompression.eof()
                break
            data = self._decompression.feed(raw)
        return data

    def _read(self) -> bytes:
        data, self._first = self._first, b""
        reader = self._response.reader
        while not data and not reader.done:
            if reader.failure is not None:
                raise reader.failure
            data = self._response.receive()
        return data

    def close(self, *, reusable: bool = False) -> None:
        """Close at once. `reusable`: the answer is whole, the connection may serve again."""
        if reusable and self._at_end():
            self._response.close()
            self._pooled.release_conn()
            return
        # after a fork the socket is the parent's: to close it here changes nothing there
        if self._pid == os.getpid():
            _shut_down(self._response.socket.sock)
        self._response.close()
        self._pooled.close()

    def _at_end(self) -> bool:
        """Whether the body ends here, and its connection can serve again."""
        try:
            return not self.read(time.monotonic() + _LINGER) and self._response.reader.reusable
        except TransportError:
            return False


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
        self._direct = _with_our_connections(urllib3.PoolManager(maxsize=100))
        self._proxied: dict[str, urllib3.ProxyManager] = {}
        self._waits = Waits()
        self._tls_context: ssl.SSLContext | None = None

    def open(self, request: HttpRequest, deadlines: Deadlines) -> SyncBody:
        """Send the request; the body's headers have come when this returns."""
        if self._pid != os.getpid():
            self._begin()
        now = time.monotonic()
        timeout = urllib3.Timeout(
            connect=_left(deadlines.connect, now), read=_left(deadlines.headers, now)
        )
        with _pending_request(request, deadlines) as pending, _translated(pending):
            pooled = self._pool(request.url).urlopen(
                request.method,
                request.url,
                body=request.body,
                headers=request.headers,
                timeout=timeout,
                preload_content=False,
                decode_content=False,
                redirect=False,
                retries=False,
            )
        assert pending.response is not None
        return SyncBody(pooled, pending.response)

    def sleep(self, seconds: float, request: HttpRequest) -> None:
        """Wait, before that request is sent."""
        self._waits.sleep(seconds, request)

    def now(self) -> float:
        """Seconds on the monotonic clock."""
        return time.monotonic()

    def give_up(self, request: HttpRequest) -> None:
        """End `sleep` or `open` for that request, if another thread waits in it."""
        self._waits.end(request)
        if pending := _PENDING.get(id(request)):
            _shut_down(pending.sock)

    def race(self, one: Lane[T], other: Lane[T], after: float) -> tuple[int, list[T]]:
        """Start `one`, and `other` if it is needed; see the port."""
        return race(one, other, after)

    def close(self) -> None:
        """Close all idle connections."""
        for pool in (self._direct, *self._proxied.values()):
            pool.clear()

    def _pool(self, url: str) -> urllib3.PoolManager:
        proxy = self._proxies.of(url)
        manager = self._direct if proxy is None else self._through(proxy)
        if url.startswith("https:"):
            manager.connection_pool_kw.setdefault("ssl_context", self._tls())
        return manager

    def _through(self, proxy: Proxy) -> urllib3.ProxyManager:
        if proxy.url not in self._proxied:
            manager = urllib3.ProxyManager(proxy.url, proxy_headers=proxy.headers)
            self._proxied[proxy.url] = _with_our_connections(manager)
        return self._proxied[proxy.url]

    def _tls(self) -> ssl.SSLContext:
        """One for all connections: to load the certificates takes longer than many answers."""
        if self._tls_context is None:
            self._tls_context = tls_context()
        return self._tls_context


def _with_our_connections(manager: Manager) -> Manager:
    manager.pool_classes_by_scheme = _POOLS
    return manager


def _left(deadline: float | None, now: float) -> float | None:
    if deadline is None:
        return None
    if deadline <= now:
        raise TimedOut
    return deadline - now
