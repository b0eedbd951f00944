"""The gateway as a process: uvicorn around it, signals, and an orderly shutdown.

SIGTERM, SIGINT   stop accepting, give open answers `drain` seconds, then disconnect every
reader cleanly and release the leases, so that another process continues
at once; a second signal exits immediately
SIGHUP            reload keys' limits, models, routes and certificates; open answers go on
"""

import asyncio
import gc
import signal
import ssl
import sys
from collections.abc import Callable, Mapping
from socket import socket
from types import FrameType
from typing import Protocol

import uvicorn
from msgspec import Struct

from unbroken.errors import ConfigurationError, UnbrokenError
from unbroken.server.auth import KeyLimits, Keys
from unbroken.server.csrf import is_loopback
from unbroken.server.gateway import Gateway
from unbroken.server.http_limits import limited
from unbroken.server.log import configure_logging, log_event
from unbroken.server.settings import Settings
from unbroken.server.sockets import BACKLOG, bind_sockets, close_all
from unbroken.stores import registry

STORE_OPEN_NOTICE = 0.3
"""Seconds that a store may take to open before `waiting` is called."""


class Configuration(Struct, frozen=True):
    """What the settings files, variables and options say at the moment."""

    settings: Settings
    key_limits: Mapping[str, KeyLimits] = {}


class Console(Protocol):
    """What the command shows while the gateway starts."""

    def ready(self) -> None:
        """The gateway accepts connections."""

    def waiting(self) -> None:
        """The store does not open at once."""


class _Server(uvicorn.Server):
    """Opens everything before it reports itself ready, and drains the gateway while uvicorn waits
    for its connections to end.
    """

    def __init__(
        self,
        gateway: Gateway,
        load: Callable[[], Configuration],
        console: Console,
        sockets: list[socket] | None,
    ) -> None:
        super().__init__(_uvicorn_config(gateway))
        self._gateway, self._load, self._console = gateway, load, console
        self._sockets = sockets
        self._draining: asyncio.Task[None] | None = None

    async def serve(self, sockets: list[socket] | None = None) -> None:
        """Bind first: a taken port is reported at once, while a store may take long to open."""
        sockets = self._sockets or bind_sockets(self._gateway.settings)
        try:
            await self._open()
            async with self._gateway:
                await super().serve(sockets)
        finally:
            close_all(sockets)

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        notice = loop.call_later(STORE_OPEN_NOTICE, self._console.waiting)
        try:
            await check_keys(self._gateway.settings)
            await self._gateway.__aenter__()
        finally:
            notice.cancel()

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Listen, and report it."""
        await super().startup(sockets)
        if hasattr(signal, "SIGHUP"):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload)
        self._console.ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain at the first signal, exit at the second."""
        if self._draining is None:
            drain = self._gateway.answers.drain(self._gateway.settings.drain)
            self._draining = asyncio.get_running_loop().create_task(drain)
        else:
            self.force_exit = sig in (signal.SIGINT, signal.SIGTERM)
        super().handle_exit(sig, frame)

    def _reload(self) -> None:
        """Take over the settings that can change; keep all of them if one is wrong."""
        try:
            fresh = self._load()
            restart = self._gateway.reload(fresh.settings, fresh.key_limits)
            if isinstance(self.config.ssl, ssl.SSLContext):
                _load_certificate(self.config.ssl, fresh.settings)
        except (UnbrokenError, OSError) as error:
            log_event("reload_failed", error=str(error))
        else:
            log_event("reloaded", needs_restart=", ".join(restart))


def serve(
    load: Callable[[], Configuration],
    console: Console,
    sockets: list[socket] | None = None,
) -> int:
    """Serve until a signal; return the exit code. `load` is called again at each SIGHUP; `sockets`
    are bound already if a supervisor shares them between workers.

    Raises ConfigurationError or StoreError if the gateway can't start.
    """
    settings = (found := load()).settings
    gateway = Gateway(registry.open(settings.store), settings=settings, key_limits=found.key_limits)
    gateway.guard.loopback = is_local(settings)
    gateway.keys.required = not gateway.guard.loopback
    configure_logging(settings.log)
    server = _Server(gateway, load, console, sockets)
    signal.signal(signal.SIGTERM, _exit_cleanly)
    _tune_gc()
    server.run()
    return 0 if server.started else 1


def _uvicorn_config(gateway: Gateway) -> uvicorn.Config:
    settings = gateway.settings
    config = uvicorn.Config(
        gateway,
        http=limited(settings),
        log_config=None,
        access_log=False,
        backlog=BACKLOG,
        proxy_headers=settings.proxy_headers,
        forwarded_allow_ips=settings.forwarded_allow_ips,
        timeout_keep_alive=settings.timeout_keep_alive,
        ws_max_size=settings.max_body + 65536,  # so that a larger message gets a reason
        timeout_graceful_shutdown=int(settings.drain) + 5,
    )
    config.load()
    if settings.ssl_certfile:
        config.ssl = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _load_certificate(config.ssl, settings)
    return config


def _load_certificate(context: ssl.SSLContext, settings: Settings) -> None:
    """Raises ConfigurationError if the certificate or its key can't be used."""
    try:
        context.load_cert_chain(
            settings.ssl_certfile, settings.ssl_keyfile or None, settings.ssl_keyfile_password or ""
        )
    except (OSError, ssl.SSLError) as error:
        files = f"ssl_certfile={settings.ssl_certfile!r}, ssl_keyfile={settings.ssl_keyfile!r}"
        raise ConfigurationError(f"{files}: {error.strerror or error}") from error


async def check_keys(settings: Settings) -> None:
    """Raise ConfigurationError for an address that other machines reach, before there is a key."""
    if is_local(settings):
        return
    async with registry.open(settings.store) as store:
        if not await Keys(store).all():
            raise ConfigurationError(
                f"refusing to listen on {settings.host}: no API key exists yet",
                hint="Create one: unbroken keys create NAME",
            )


def is_local(settings: Settings) -> bool:
    """Whether only this machine can connect."""
    return bool(settings.uds) or is_loopback(settings.host)


def _exit_cleanly(_signal: int, _frame: FrameType | None) -> None:
    """Exit with 0: uvicorn raises the signal again after an orderly shutdown, and a supervisor
    would see a killed process (143). Before the server listens, nothing else needs to be done.
    """
    sys.exit(0)


def _tune_gc() -> None:
    """Collect garbage less often: a full collection stops every stream while it lasts (measured:
    up to 130 ms with 200 open answers), and objects from the start stay until the end.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
