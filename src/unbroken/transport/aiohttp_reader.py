"""Our reader of responses below aiohttp's connections.

aiohttp's connector (names, addresses, TLS, proxies, the pool) makes a protocol for each
connection, and that protocol a parser for each response. Here `http1.ResponseReader` takes the
parser's place: both transports read the same bytes alike, and all chunks of one read are one piece.
"""

import asyncio
import contextlib
import socket
import threading
from functools import partial
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpVersion, RawResponseMessage
from aiohttp.streams import StreamReader
from multidict import CIMultiDict, CIMultiDictProxy

from unbroken.errors import ConnectionLost
from unbroken.transport.http1 import Head, ResponseReader

Messages = list[tuple[RawResponseMessage, StreamReader]]


class _Parser:
    """One response, with the methods that ResponseHandler calls on a parser."""

    def __init__(self, protocol: "_Protocol", method: str, limit: int, timer: Any) -> None:
        self.reader = ResponseReader(method)
        self.lost: BaseException | None = None  # why the connection was lost, if not closed
        self._protocol, self._limit, self._timer = protocol, limit, timer
        self._content: StreamReader | None = None

    def feed_data(self, data: bytes) -> tuple[Messages, bool, bytes]:
        """Return the response once its head is there; feed its body."""
        if not data:
            return [], False, b""
        if self.reader.done:
            self._protocol.force_close()  # what comes behind a response belongs to nothing
            return [], False, b""
        try:
            body = self.reader.feed(data)
        except ConnectionLost as error:
            (self._content or self._protocol).set_exception(error)
            return [], False, b""
        messages = self._begin()
        if self._content is not None:
            self._feed(self._content, body)
        return messages, False, b""

    def feed_eof(self) -> None:
        """The connection is gone."""
        content = self._content
        if content is not None and content.is_eof():
            return
        error = self._broken()
        if error is not None:
            (content or self._protocol).set_exception(error)
        elif content is not None:
            content.feed_eof()

    def _broken(self) -> ConnectionLost | None:
        """What is wrong with a response that ends now."""
        if self.lost is not None:
            return ConnectionLost(str(self.lost))
        try:
            self.reader.eof()
        except ConnectionLost as error:
            return self.reader.failure or error
        return None

    def pause_reading(self) -> None:
        """The socket is paused, which is enough."""

    def _begin(self) -> Messages:
        head = self.reader.head
        if head is None or self._content is not None:
            return []
        loop = self._protocol._loop
        self._content = StreamReader(self._protocol, self._limit, timer=self._timer, loop=loop)
        return [(_message(head), self._content)]

    def _feed(self, content: StreamReader, body: bytes) -> None:
        if body:
            content.feed_data(body, len(body))
        if self.reader.failure is not None:
            content.set_exception(self.reader.failure)
        elif self.reader.done:
            if not self.reader.reusable:
                self._protocol.force_close()
            content.feed_eof()


def _message(head: Head) -> RawResponseMessage:
    headers = CIMultiDictProxy(CIMultiDict(head.headers))
    version = HttpVersion(1, head.minor)
    closing = not head.keep_alive
    return RawResponseMessage(
        version, head.status, head.reason, headers, (), closing, None, upgrade=False, chunked=False
    )


class _Protocol(ResponseHandler):
    """aiohttp's connection."""

    _parser: Any

    def set_response_params(self, **params: Any) -> None:
        """A response is expected."""
        tail, self._tail = self._tail, b""  # for our parser, not for the one made here
        super().set_response_params(**params)
        method = "HEAD" if params.get("skip_payload") else "POST"
        self._parser = _Parser(self, method, self._read_bufsize, params.get("timer"))
        if tail:
            self.data_received(tail)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Tell the parser whether the connection was closed or broke."""
        if self._parser is not None:
            self._parser.lost = exc
        super().connection_lost(exc)


class _Resolver(AbstractResolver):
    """Looks names up in threads of its own. Those of the event loop's executor are waited for when
    the loop is closed, and a resolver that does not answer would hold the process up.
    """

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a name; OSError if there are none."""
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[ResolveResult]] = loop.create_future()

        def look_up() -> None:
            result: Any
            try:
                result = _look_up(host, port, family)
            except (OSError, UnicodeError) as error:  # UnicodeError: no host has such a name
                result = error
            with contextlib.suppress(RuntimeError):  # the loop is closed: no task waits
                loop.call_soon_threadsafe(_settle, found, result)

        threading.Thread(target=look_up, daemon=True, name="unbroken-resolver").start()
        return await found

    async def close(self) -> None:
        """Nothing is held."""


def _look_up(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    infos = socket.getaddrinfo(
        host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
    )
    return [
        ResolveResult(
            hostname=host,
            host=_with_scope(address),
            port=port,
            family=kind,
            proto=protocol,
            flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
        )
        for kind, _, protocol, _, address in infos
    ]


def _with_scope(address: tuple[Any, ...]) -> str:
    """The host of an address; a link-local one of IPv6 needs its interface."""
    scope = address[3] if len(address) > 3 else 0
    return f"{address[0]}%{scope}" if scope else str(address[0])


def _settle(future: "asyncio.Future[Any]", result: Any) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


def connector_of(loop: asyncio.AbstractEventLoop) -> aiohttp.TCPConnector:
    """Return a pool of connections. It has no limit: the caller's concurrency is the limit."""
    connector = aiohttp.TCPConnector(limit=0, resolver=_Resolver())
    connector._factory = partial(_Protocol, loop=loop)  # type: ignore[assignment]  # narrower
    return connector
