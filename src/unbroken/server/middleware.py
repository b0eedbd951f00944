"""The access log, as ASGI middleware."""

import logging
import re
import secrets
import time
from collections.abc import Awaitable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unbroken.server.log import log_event

REQUEST_ID = "x-request-id"

MAX_PATH = 512
"""Characters of a path in the log."""

_PROBES = ("/healthz", "/readyz", "/metrics")
"""Paths that are asked every few seconds: their lines have the level `debug`."""

_PLAIN_ID = re.compile(r"[\w.:=+/-]{1,128}")


def request_id(scope: Scope) -> str:
    """Return the id of a request: the caller's own if it is a plain word, else a new one."""
    given: str = scope.setdefault("state", {}).get(REQUEST_ID, "")
    if not given:
        given = Headers(scope=scope).get(REQUEST_ID, "")
        given = given if _PLAIN_ID.fullmatch(given) else f"req_{secrets.token_hex(8)}"
        scope["state"][REQUEST_ID] = given
    return given


class AccessLogMiddleware:
    """Logs every request of an ASGI app, and gives every response the id of its request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        begin, id, status = time.monotonic(), request_id(scope), [0]

        def tagged(message: Message) -> Awaitable[None]:
            """Not a coroutine of its own: it stands between every token and the socket."""
            if message["type"] == "http.response.start":
                status[0] = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = id
            return send(message)

        try:
            await self._app(scope, receive, tagged)
        finally:
            _log_request(scope, id, status[0], time.monotonic() - begin)


def _log_request(scope: Scope, id: str, status: int, seconds: float) -> None:
    log_event(
        "request",
        logging.DEBUG if scope["path"].endswith(_PROBES) else logging.INFO,
        id=id,
        client=scope["client"][0] if scope.get("client") else "",
        method=scope.get("method", scope["type"]),
        path=scope["path"][:MAX_PATH],
        status=status,
        duration_ms=round(seconds * 1000, 1),
        key=scope["state"].get("key", ""),
    )
