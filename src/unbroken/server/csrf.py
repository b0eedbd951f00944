"""Refuses cross-origin requests where no key is required, except from the origins in `cors`.

A browser lets any page send requests to this machine: a WebSocket or a form needs no permission,
and a host name that resolves to 127.0.0.1 makes a foreign page look same-origin (DNS rebinding).
Headers that a page cannot set tell them apart: `origin` (RFC 6454, 7.3), `sec-fetch-site` where
there is no origin (W3C Fetch Metadata, 2.4), and `host`. Programs send no origin, and pass. With
API keys no guard is needed: a foreign page does not know the key. An app that authenticates its
users itself is guarded as well, because browsers attach cookies to requests from any page; a
bearer token exempts a request.
"""

import ipaddress
import re
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from unbroken.errors import AuthenticationFailed, PermissionDenied
from unbroken.server.auth import EVERYBODY, Keys
from unbroken.wire.openai_chat.dialect import CODEC

WS_FORBIDDEN = 4403
"""Close code of a refused WebSocket; before the handshake ends, servers send status 403."""


class CrossOriginGuard:
    """ASGI middleware that refuses foreign pages while there are no `keys`; None: the app
    authenticates its users by other means.

    With `loopback` it accepts only host names of this machine. That is for a gateway that runs by
    itself: an app that mounts one knows its own host names.
    """

    def __init__(self, app: ASGIApp, keys: Keys | None, cors: Sequence[str]) -> None:
        self._app, self._keys = app, keys
        self._any = "*" in cors
        self._origins = frozenset(cors)
        self._hosts = frozenset(_host_of(origin) for origin in cors)
        self.loopback = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI. Looks for keys only when the request would be refused without them."""
        if self._any or scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        reason = self._cross_origin_reason(headers, scope["path"])
        if not reason or not await self._is_unauthenticated(headers):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()  # its `websocket.connect`
            await send({"type": "websocket.close", "code": WS_FORBIDDEN, "reason": reason[:100]})
        else:
            await _refusal(reason)(scope, receive, send)

    def _cross_origin_reason(self, headers: Headers, path: str) -> str:
        """Return why a request counts as cross-origin, or "" if it does not."""
        origin, host = headers.get("origin"), headers.get("host", "").lower()
        site = headers.get("sec-fetch-site")
        if site == "same-origin":
            foreign = False  # the browser says so, also where a proxy has changed the host
        elif origin is None:
            # A navigation shows its response to the user, not to the foreign page; it is allowed
            # unless it would start an answer.
            shown = headers.get("sec-fetch-mode") == "navigate" and not path.endswith("/stream")
            foreign = site in {"cross-site", "same-site"} and not shown
        else:
            foreign = origin not in self._origins and (not host or _host_of(origin) != host)
        if foreign:
            return (
                f"cross-origin request from {origin or 'another site'} refused: "
                "add the origin to `cors`, or use an API key"
            )
        if self.loopback and host and host not in self._hosts and not is_loopback(_name(host)):
            return f"host {host!r} refused: create an API key, or add its origin to `cors`"
        return ""

    async def _is_unauthenticated(self, headers: Headers) -> bool:
        """Whether the request has no credential that a foreign page could not send."""
        if self._keys is None:
            return not headers.get("authorization", "").lower().startswith("bearer ")
        try:
            return await self._keys.principal("") == EVERYBODY
        except AuthenticationFailed:
            return False


def _refusal(reason: str) -> Response:
    refusal = PermissionDenied(reason, status=403, code="origin_not_allowed")
    return Response(CODEC.dialect.encode_error(refusal), 403, media_type="application/json")


def _host_of(origin: str) -> str:
    """Return the host and port of an origin, as a `host` header has them."""
    return origin.partition("://")[2].lower()


def _name(host: str) -> str:
    """Return a `host` header without its port."""
    return re.sub(r":\d*$", "", host)


def is_loopback(host: str) -> bool:
    """Whether a host name or address is loopback: localhost, 127.0.0.0/8, ::1."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False
