"""The gateway as a process: uvicorn around it, and an orderly end.

Asked to stop, it takes no new connections, gives open answers some time, then lets every reader
go with a clean end and its leases with them, so that another process goes on at once.
"""

import asyncio
import gc
import signal
import sys
from collections.abc import Mapping
from types import FrameType

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from unbroken.server.gateway import Gateway
from unbroken.server.keys import Allowance, Keys
from unbroken.server.log import show
from unbroken.server.settings import Settings
from unbroken.stores import registry


class _Server(uvicorn.Server):
    """Drains the gateway while uvicorn waits for its connections to end."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway, seconds: float) -> None:
        super().__init__(config)
        self._gateway, self._seconds = gateway, seconds
        self._draining: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains, the second ends it."""
        if self._draining is None:
            drain = self._gateway.answers.drain(self._seconds)
            self._draining = asyncio.get_running_loop().create_task(drain)
        else:
            self.force_exit = sig in (signal.SIGINT, signal.SIGTERM)
        super().handle_exit(sig, frame)


MAX_HEAD = 64 * 1024
"""Bytes of a request's line and headers: nginx takes 32 KB, Node 16 KB; uvicorn any number."""

_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\r\n"


class _TooLarge(Exception):
    """Raised within the parser, which then reads no further."""


class _Bounded(HttpToolsProtocol):
    """HTTP whose heads are bounded.

    Two counts, neither of them ever more than the head: what the parser has read of it, and the
    packets that lie wholly in it, since the parser tells of a header when it has all of it.
    """

    _read = _came = 0
    _in_head = _begun = False

    def on_message_begin(self) -> None:
        """A request begins."""
        self._read = self._came = 0
        self._in_head = self._begun = True
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Some of its address."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer behind the body."""
        self._count(len(name) + len(value) + len(": \r\n"))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Its body follows."""
        self._in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Some of it has come."""
        self._begun = False
        super().data_received(data)
        if self._in_head and not self._begun:
            self._came += len(data)
        if self._in_head and self._came > MAX_HEAD and not self.transport.is_closing():
            self._refuse()

    def send_400_response(self, msg: str) -> None:
        """The parser has stopped: at what is no HTTP, or because we did."""
        if self._read > MAX_HEAD:
            self._refuse()
        else:
            super().send_400_response(msg)

    def _count(self, size: int) -> None:
        self._read += size
        if self._read > MAX_HEAD:
            raise _TooLarge

    def _refuse(self) -> None:
        self.transport.write(_TOO_LARGE)
        self.transport.close()


LOOPBACK = ("127.0.0.1", "::1", "localhost")


async def may_listen(settings: Settings) -> bool:
    """Whether to listen there: to this machine always, to others only behind keys."""
    store = registry.open(settings.store)
    if settings.host in LOOPBACK:
        return True
    async with store:
        return bool(await Keys(store).all())


def serve(settings: Settings, key_limits: Mapping[str, Allowance]) -> int:
    """Serve until a signal; the exit code."""
    gateway = Gateway(registry.open(settings.store), settings=settings, key_limits=key_limits)
    config = uvicorn.Config(
        gateway,
        host=settings.host,
        port=settings.port,
        http=_Bounded,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=int(settings.drain) + 5,
    )
    show(settings.log)
    server = _Server(config, gateway, settings.drain)
    signal.signal(signal.SIGTERM, _leave)
    _calm()
    server.run()
    return 0 if server.started else 1


def _leave(_signal: int, _frame: FrameType | None) -> None:
    """Uvicorn sends itself the signal again when all is done, so whoever stopped us in order would
    see a process that was killed (143). Before it listens, this is all there is to do.
    """
    sys.exit(0)


def _calm() -> None:
    """Collect garbage less often: a full collection stops every stream while it lasts (measured:
    up to 130 ms with 200 open answers), and what is here by now is there to stay.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
