"""Listening sockets, bound before anything else starts: a taken port is reported at once."""

import errno
import os
import socket
import stat
import sys
from collections.abc import Iterable
from typing import Any

from unbroken.errors import ConfigurationError
from unbroken.server.settings import Settings

BACKLOG = 2048
"""Connections that wait to be accepted, as in uvicorn."""


def bind_sockets(settings: Settings) -> list[socket.socket]:
    """Bind every address of `host`, or the unix socket. Connections are refused until `listen`.

    Raises ConfigurationError if an address is in use or does not exist. Not left to uvicorn, which
    logs the reason and exits with a code that has another meaning here.
    """
    if settings.uds:
        return [_unix_socket(settings.uds)]
    try:
        found = socket.getaddrinfo(
            settings.host or None,
            settings.port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )
        return _bind_all({(family, address): None for family, _, _, _, address in found})
    except OSError as error:
        raise ConfigurationError(
            f"can't listen on {settings.url}: {error.strerror}",
            hint="Choose another --host or --port.",
        ) from error


def close_all(sockets: Iterable[socket.socket]) -> None:
    """Close all sockets."""
    for one in sockets:
        one.close()


def _bind_all(places: Iterable[tuple[int, Any]]) -> list[socket.socket]:
    """Bind all addresses that this machine has: `::1` may be missing where IPv6 is off."""
    sockets, absent = list[socket.socket](), None
    for family, address in places:
        try:
            sockets.append(_bind(family, address))
        except OSError as error:
            if error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                close_all(sockets)
                raise
            absent = error
    if absent is not None and not sockets:
        raise absent
    return sockets


def _bind(family: int, address: Any) -> socket.socket:
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


def _unix_socket(path: str) -> socket.socket:
    """Bind a unix socket, in place of one that no process listens on any more."""
    if not hasattr(socket, "AF_UNIX"):
        raise ConfigurationError("uds: this platform has no unix sockets")
    try:
        _remove_stale(path)
        made = _bind(socket.AF_UNIX, path)
        os.chmod(path, 0o666)  # noqa: S103, PTH101  # as uvicorn: a proxy may run as another user
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigurationError(f"can't listen on uds {path!r}: {reason}") from error
    return made


def _remove_stale(path: str) -> None:
    if not os.path.exists(path) or not stat.S_ISSOCK(os.stat(path).st_mode):  # noqa: PTH110, PTH116
        return
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(path) == 0:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    os.unlink(path)  # noqa: PTH108
