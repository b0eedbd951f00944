"""Our reader of responses below aiohttp's connections.

aiohttp's connector (names, addresses, TLS, proxies, the pool) makes a protocol for each
connection, and that protocol a parser for each response. Here `http1.ResponseReader` takes the
parser's place: both transports read the same bytes alike, and all chunks of one read are one piece.
"""

import asyncio
from functools import partial
from typing import Any

import aiohttp
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


def connector_of(loop: asyncio.AbstractEventLoop) -> aiohttp.TCPConnector:
    """Return a pool of connections. It has no limit: the caller's concurrency is the limit."""
    connector = aiohttp.TCPConnector(limit=0)
    connector._factory = partial(_Protocol, loop=loop)  # type: ignore[assignment]  # narrower
    return connector
