"""Whose pages may ask where no key must be shown: the gateway's own, and those that `cors` names.

A browser lets any page send requests to this machine: a WebSocket or a form needs no leave, and a
name that its owner points at 127.0.0.1 makes a page of theirs look like one of ours (DNS
rebinding). What gives it away are headers that a page can't choose: `origin` (RFC 6454, 7.3),
`sec-fetch-site` where there is no origin (W3C Fetch Metadata, 2.4), and `host`. Programs send no
origin, and pass. Behind keys there is nothing to guard. Where an app says who its users are they
are guarded as well, for browsers send their cookies along whoever's page it is; a page of others
can't know a bearer token.
"""

import ipaddress
import re
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from unbroken.errors import AuthenticationFailed, PermissionDenied
from unbroken.server.keys import EVERYBODY, Keys
from unbroken.wire.openai_chat.dialect import CODEC

REFUSED = 4403
"""The code that closes a WebSocket; before it is open, servers make it the status 403."""


class Guarded:
    """An ASGI app that pages of others don't reach while there are no `keys`; None: the app's users
    are known by other means.

    With `loopback` it answers to the names of this machine only. An app that a gateway is mounted
    in knows its own names better, so that this is for a gateway by itself.
    """

    def __init__(self, app: ASGIApp, keys: Keys | None, cors: Sequence[str]) -> None:
        self._app, self._keys = app, keys
        self._any = "*" in cors
        self._origins = frozenset(cors)
        self._hosts = frozenset(_place(origin) for origin in cors)
        self.loopback = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI. Whether there are keys is asked only for what would be refused without."""
        if self._any or scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        reason = self._stranger(headers, scope["path"])
        if not reason or not await self._is_open(headers):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()  # its `websocket.connect`
            await send({"type": "websocket.close", "code": REFUSED, "reason": reason[:100]})
        else:
            await _refusal(reason)(scope, receive, send)

    def _stranger(self, headers: Headers, path: str) -> str:
        """Why a request comes from somebody else's page; the empty text if it does not."""
        origin, host = headers.get("origin"), headers.get("host", "").lower()
        site = headers.get("sec-fetch-site")
        if site == "same-origin":
            strange = False  # a browser's word, also where a proxy has changed the host
        elif origin is None:
            # A page's navigation to us shows what it gets to the user, not to the page; but it
            # must not begin an answer.
            shown = headers.get("sec-fetch-mode") == "navigate" and not path.endswith("/stream")
            strange = site in {"cross-site", "same-site"} and not shown
        else:
            strange = origin not in self._origins and (not host or _place(origin) != host)
        if strange:
            whose = origin or "other sites"
            return f"without a key pages of {whose} may not ask; `cors` names those that may"
        if self.loopback and host and host not in self._hosts and not is_loopback(_name(host)):
            return f"without keys this gateway is not called {host!r}; `cors` may name its origin"
        return ""

    async def _is_open(self, headers: Headers) -> bool:
        """Whether who asks shows nothing that other pages could not make a browser show."""
        if self._keys is None:
            return not headers.get("authorization", "").lower().startswith("bearer ")
        try:
            return await self._keys.caller("") == EVERYBODY
        except AuthenticationFailed:
            return False


def _refusal(reason: str) -> Response:
    refusal = PermissionDenied(reason, status=403, code="origin_not_allowed")
    return Response(CODEC.dialect.encode_error(refusal), 403, media_type="application/json")


def _place(origin: str) -> str:
    """The host and port of an origin, as a `host` header has them."""
    return origin.partition("://")[2].lower()


def _name(host: str) -> str:
    """A `host` header without its port."""
    return re.sub(r":\d*$", "", host)


def is_loopback(host: str) -> bool:
    """Whether a name or an address means this machine only: localhost, 127.0.0.0/8, ::1."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False
