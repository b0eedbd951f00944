"""The gateway as a process: uvicorn around it, and an orderly end.

Asked to stop, it takes no new connections, gives open answers some time, then lets every reader
go with a clean end and its leases with them, so that another process goes on at once.
"""

import asyncio
import errno
import gc
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from unbroken.errors import ConfigurationError
from unbroken.server.csrf import is_loopback
from unbroken.server.gateway import Gateway
from unbroken.server.keys import Allowance, Keys
from unbroken.server.log import configure_logging
from unbroken.server.settings import Settings
from unbroken.stores import registry

MOMENT = 0.3
"""Seconds that a store may take to open before it is said that it does."""


class _Server(uvicorn.Server):
    """Opens everything before it says so, and drains the gateway while uvicorn waits for its
    connections to end.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        gateway: Gateway,
        ready: Callable[[], None],
        waiting: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._gateway, self._ready, self._waiting = gateway, ready, waiting
        self._draining: asyncio.Task[None] | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """The port first: that it is taken is known at once, and a store may take long."""
        sockets = _listening(self._gateway.settings)
        try:
            await self._open()
            async with self._gateway:
                await super().serve(sockets)
        finally:
            _close(sockets)

    async def _open(self) -> None:
        notice = asyncio.get_running_loop().call_later(MOMENT, self._waiting)
        try:
            await _check_keys(self._gateway.settings)
            await self._gateway.__aenter__()
        finally:
            notice.cancel()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """It listens."""
        await super().startup(sockets)
        self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains, the second ends it."""
        if self._draining is None:
            drain = self._gateway.answers.drain(self._gateway.settings.drain)
            self._draining = asyncio.get_running_loop().create_task(drain)
        else:
            self.force_exit = sig in (signal.SIGINT, signal.SIGTERM)
        super().handle_exit(sig, frame)


MAX_HEAD = 64 * 1024
"""Bytes of a request's line and headers: nginx takes 32 KB, Node 16 KB; uvicorn any number."""

_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\r\n"


class _TooLarge(Exception):
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
        """Its body follows. HTTP/1.0 knows no chunks (RFC 9112, 6.1): an answer ends with its
        connection.
        """
        self._in_head = False
        super().on_headers_complete()
        if self.scope["http_version"] == "1.0":
            self.cycle.chunked_encoding = False
            self.cycle.expected_content_length = _UntilClose()

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


def serve(
    settings: Settings,
    key_limits: Mapping[str, Allowance],
    ready: Callable[[], None],
    waiting: Callable[[], None],
) -> int:
    """Serve until a signal; the exit code. `ready` is called when it can be asked, `waiting` if the
    store does not open at once.

    ConfigurationError, StoreError: it can't start, and nothing has been promised.
    """
    gateway = Gateway(registry.open(settings.store), settings=settings, key_limits=key_limits)
    gateway.guard.loopback = is_loopback(settings.host)
    gateway.keys.needed = not gateway.guard.loopback
    config = uvicorn.Config(
        gateway,
        http=_Bounded,
        log_config=None,
        access_log=False,
        ws_max_size=settings.max_body + 65536,  # so that too much is told, and not hung up on
        timeout_graceful_shutdown=int(settings.drain) + 5,
    )
    configure_logging(settings.log)
    server = _Server(config, gateway, ready, waiting)
    signal.signal(signal.SIGTERM, _leave)
    _calm()
    server.run()
    return 0 if server.started else 1


async def _check_keys(settings: Settings) -> None:
    """To this machine it always listens; to others only behind keys. ConfigurationError."""
    if is_loopback(settings.host):
        return
    async with registry.open(settings.store) as store:
        if not await Keys(store).all():
            raise ConfigurationError(
                f"without a key only this machine may ask, and {settings.host} is more than that",
                hint="Make one: unbroken keys create NAME",
            )


def url_of(settings: Settings) -> str:
    """Where it is asked."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{settings.port}"


def _listening(settings: Settings) -> list[socket.socket]:
    """Sockets at every address of the host. ConfigurationError if one is taken, or none is there.

    Not by uvicorn: it logs why it can't, and ends with a code that means something else here.
    """
    try:
        found = socket.getaddrinfo(
            settings.host or None,
            settings.port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )
        return _bound({(family, address): None for family, _, _, _, address in found})
    except OSError as error:
        why = f"can't listen on {url_of(settings)}: {error.strerror}"
        raise ConfigurationError(why, hint="--host and --port choose another place.") from error


def _bound(places: Iterable[tuple[int, Any]]) -> list[socket.socket]:
    """A name may have addresses that this machine does not: `::1` where IPv6 is off."""
    sockets, absent = list[socket.socket](), None
    for family, address in places:
        try:
            sockets.append(_socket(family, address))
        except OSError as error:
            if error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                _close(sockets)
                raise
            absent = error
    if absent is not None and not sockets:
        raise absent
    return sockets


def _socket(family: int, address: Any) -> socket.socket:
    """Bound, and deaf as yet: who comes before the store is open is sent elsewhere."""
    made = socket.socket(family)
    try:
        if sys.platform != "win32":  # there it would take the port away from others
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made


def _close(sockets: Iterable[socket.socket]) -> None:
    for one in sockets:
        one.close()


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
