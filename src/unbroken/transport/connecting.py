"""A TCP connection by one deadline, which includes the name and all addresses; and its TLS."""

import queue
import socket
import ssl
import threading
import time
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any

from urllib3.util.ssl_ import create_urllib3_context

from unbroken.errors import ConnectFailed, TimedOut

Address = tuple[str, int]
_Infos = list[tuple[Any, Any, int, str, Any]]


def connect(
    address: Address, deadline: float | None, options: Iterable[tuple[Any, ...]]
) -> socket.socket:
    """Return a connected socket whose timeout is what is left, for the TLS handshake.

    Addresses are tried in order, each with an equal share of the time that is left. Raises
    ConnectFailed or TimedOut.
    """
    infos = _resolve(address, deadline)
    failure: OSError | None = None
    for number, info in enumerate(infos):
        left = _left(deadline)
        share = None if left is None else left / (len(infos) - number)
        try:
            sock = _open(info, share, options)
        except OSError as error:
            failure = error
            continue
        sock.settimeout(_left(deadline))
        return sock
    if isinstance(failure, TimeoutError):
        raise TimedOut(phase="connect") from failure
    raise ConnectFailed(f"{address[0]}:{address[1]}: {failure}") from failure


def _open(
    info: tuple[Any, Any, int, str, Any],
    seconds: float | None,
    options: Iterable[tuple[Any, ...]],
) -> socket.socket:
    family, kind, protocol, _, place = info
    sock = socket.socket(family, kind, protocol)
    try:
        for option in options:
            sock.setsockopt(*option)
        sock.settimeout(seconds)
        sock.connect(place)
    except BaseException:
        sock.close()
        raise
    return sock


def _resolve(address: Address, deadline: float | None) -> _Infos:
    """The addresses of a name. A resolver can't be interrupted, so it has a thread of its own."""
    if deadline is None or _is_literal(address[0]):
        return _look_up(address)
    found: queue.SimpleQueue[_Infos | ConnectFailed] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            found.put(_look_up(address))
        except ConnectFailed as error:
            found.put(error)

    threading.Thread(target=look_up, daemon=True, name="unbroken-resolver").start()
    try:
        infos = found.get(timeout=_left(deadline))
    except queue.Empty:
        raise TimedOut(phase="connect") from None
    if isinstance(infos, ConnectFailed):
        raise infos
    return infos


def _look_up(address: Address) -> _Infos:
    try:
        return socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # UnicodeError: no host has such a name
        raise ConnectFailed(f"{address[0]}: {error}") from error


def _is_literal(host: str) -> bool:
    try:
        return bool(ip_address(host.strip("[]")))
    except ValueError:
        return False


def _left(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimedOut(phase="connect")
    return left


def tls_context() -> ssl.SSLContext:
    """Return urllib3's choice of TLS settings, with the certificates that the system trusts."""
    context = create_urllib3_context()
    context.load_default_certs()
    return context
