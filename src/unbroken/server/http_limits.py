"""HTTP connections with limits: the size of a head, the time for each phase, and their number.

    connection, or a response has ended   ── timeout_head ──►   the head is complete
    the head is complete                  ── timeout_body ──►   the body is complete
    the client reads nothing              ── timeout_write ──►  it reads on
    nothing at all is under way           ── timeout_keep_alive ──► closed, by uvicorn

Without them a client that sends half a request, or reads nothing, holds memory and a connection
for ever. uvicorn bounds only the idle time between two requests.
"""

import asyncio
from collections.abc import Container
from typing import Any

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.flow_control import service_unavailable
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from unbroken.server.settings import Settings

MAX_HEAD = 64 * 1024
"""Bytes of a request's line and headers: nginx takes 32 KB, Node 16 KB; uvicorn any number."""

_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\r\n"
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n\r\n"
_TOO_MANY = (
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\n"
    b"content-length: 0\r\n\r\n"
)


class _HeadTooLarge(Exception):
    """Raised within the parser, which then reads no further."""


class _UntilClose(int):
    """A length that no body exceeds or falls short of: it is not known before the end."""

    def __lt__(self, _: int) -> bool:
        return False

    def __sub__(self, _: int) -> "_UntilClose":
        return self

    def __ne__(self, _: object) -> bool:
        return False

    __hash__ = int.__hash__


class LimitedHttpProtocol(HttpToolsProtocol):
    """One connection. `limits` and `trusted` (peers without a limit of their own) are set by
    `limited`.

    The size of a head has two counts, neither of them ever more than the head: what the parser has
    reported of it, and the packets that lie wholly in it, since the parser reports a header only
    when it has all of it.
    """

    limits: Settings
    trusted: Container[str]

    _parsed = _received = 0
    _in_head = _message_started = False
    _timer: asyncio.TimerHandle | None = None  # of the head or the body
    _write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, or refuse it with 503 over a limit."""
        super().connection_made(transport)
        if self._is_over_limit():
            transport.write(_TOO_MANY)
            transport.close()
            return
        self._start_timer(self.limits.timeout_head)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        self._stop_timer()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse; refuse a head that is too large."""
        self._message_started = False
        if self._timer is None and self._awaits_head():
            self._start_timer(self.limits.timeout_head)
        super().data_received(data)
        if self._in_head and not self._message_started:
            self._received += len(data)
        if self._in_head and self._received > MAX_HEAD and not self.transport.is_closing():
            self._close_with(_TOO_LARGE)

    def on_message_begin(self) -> None:
        """A request starts."""
        self._parsed = self._received = 0
        self._in_head = self._message_started = True
        if self._timer is None:
            self._start_timer(self.limits.timeout_head)
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Part of the request's target."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer behind the body."""
        self._count(len(name) + len(value) + len(": \r\n"))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The body follows. HTTP/1.0 knows no chunks (RFC 9112, 6.1): a response of unknown length
        ends with its connection.
        """
        self._in_head = False
        self._stop_timer()
        self._start_timer(self.limits.timeout_body)
        super().on_headers_complete()
        if self.scope["http_version"] == "1.0":
            self.cycle.chunked_encoding = False
            self.cycle.expected_content_length = _UntilClose()

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._stop_timer()
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """The WebSocket protocol has timeouts of its own."""
        self._stop_timer()
        super().handle_websocket_upgrade()

    def pause_writing(self) -> None:
        """The client reads more slowly than the response is written."""
        super().pause_writing()
        if self._write_timer is None:
            wait = self.limits.timeout_write
            self._write_timer = self.loop.call_later(wait, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read."""
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        if self.flow is not None:
            super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """The parser has stopped: at invalid HTTP, or because the head is too large."""
        if self._parsed > MAX_HEAD:
            self._close_with(_TOO_LARGE)
        else:
            super().send_400_response(msg)

    def _awaits_head(self) -> bool:
        return self.cycle is None or bool(self.cycle.response_complete and not self.pipeline)

    def _is_over_limit(self) -> bool:
        """Whether there are too many connections, in all or from this address."""
        if len(self.connections) > self.limits.max_connections:
            return True
        most, host = self.limits.max_connections_per_client, self.client and self.client[0]
        if not host or host in self.trusted or len(self.connections) <= most:
            return False
        peers = (getattr(one, "client", None) for one in self.connections)
        same = [peer for peer in peers if peer and peer[0] == host]
        return len(same) > most

    def _start_timer(self, seconds: float) -> None:
        self._timer = self.loop.call_later(seconds, self._expire)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        """The request took too long to arrive."""
        self._timer = None
        started = self.cycle is not None and self.cycle.response_started
        if started and not self.cycle.response_complete:
            self.transport.close()
        else:
            self._close_with(_TOO_SLOW)

    def _count(self, size: int) -> None:
        self._parsed += size
        if self._parsed > MAX_HEAD:
            raise _HeadTooLarge

    def _close_with(self, response: bytes) -> None:
        self.transport.write(response)
        self.transport.close()


def limited(settings: Settings) -> type[LimitedHttpProtocol]:
    """Return the protocol with the limits of `settings`."""
    hosts = settings.forwarded_allow_ips if settings.proxy_headers else ""
    proxies = ProxyHeadersMiddleware(service_unavailable, hosts).trusted_hosts
    fields: dict[str, Any] = {"limits": settings, "trusted": proxies}
    return type("LimitedHttpProtocol", (LimitedHttpProtocol,), fields)
