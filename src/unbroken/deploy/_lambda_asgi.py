"""Adapts events of function URLs and REST APIs to ASGI, so that any app can stream its response.

Function URLs send payload format 2.0 (docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html),
REST APIs 1.0 (docs.aws.amazon.com/apigateway: set-up-lambda-proxy-integrations.html). The app
never receives `http.disconnect`, since Lambda does not report it, and no lifespan events; the
gateway starts at its first request.
"""

import asyncio
import base64
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote, unquote, urlencode

from unbroken.deploy._lambda_loop import Context, Head

Message = dict[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Any], Awaitable[None]]], Any]
Answering = Callable[[Any, Context], AsyncGenerator[Head | bytes, None]]


def asgi(app: App) -> Answering:
    """Return a streaming handler for an ASGI app; `asgi(Gateway(store))` is a complete gateway."""

    def handler(event: Any, context: Context) -> AsyncGenerator[Head | bytes, None]:
        return _pieces(app, scope_of(event, context), body_of(event))

    return handler


async def _pieces(app: App, scope: Message, body: bytes) -> AsyncGenerator[Head | bytes, None]:
    """Yield what the app sends. The app waits until each message is consumed."""
    messages: asyncio.Queue[Message] = asyncio.Queue(1)
    incoming = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Message:
        return next(incoming, None) or await asyncio.get_running_loop().create_future()

    running = asyncio.ensure_future(app(scope, receive, messages.put))
    try:
        while (message := await _next(messages, running)) is not None:
            if message["type"] == "http.response.start":
                yield _head(message)
            else:
                yield message.get("body", b"")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _next(messages: asyncio.Queue[Message], running: "asyncio.Future[Any]") -> Message | None:
    """Return the app's next message, or None at its end. Raises what the app raises."""
    pending = asyncio.ensure_future(messages.get())
    try:
        await asyncio.wait((pending, running), return_when=asyncio.FIRST_COMPLETED)
        if pending.done():
            return pending.result()
        running.result()
        return None
    finally:
        pending.cancel()


def _head(message: Message) -> Head:
    """Convert the start message: cookies apart, other repeated headers joined (RFC 9110, 5.3)."""
    pairs = [(name.decode("latin-1").lower(), value) for name, value in message["headers"]]
    headers: dict[str, str] = {}
    for name, value in pairs:
        text = value.decode("latin-1")
        headers[name] = f"{headers[name]}, {text}" if name in headers else text
    headers.pop("set-cookie", None)
    cookies = [value.decode("latin-1") for name, value in pairs if name == "set-cookie"]
    return Head(status=message["status"], headers=headers, cookies=cookies)


def scope_of(event: Mapping[str, Any], context: Context) -> Message:
    """Return the ASGI scope of a request (asgi.readthedocs.io: HTTP connection scope)."""
    request = event["requestContext"]
    http = request.get("http") or {
        "method": event.get("httpMethod", "GET"),
        "sourceIp": request.get("identity", {}).get("sourceIp", ""),
    }
    path = event.get("rawPath") or event.get("path") or "/"
    headers = [(n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in _headers(event)]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": http["method"],
        "scheme": "https",
        "path": unquote(path),
        "raw_path": quote(path, safe="/%:@!$&'()*+,;=-._~").encode(),
        "root_path": "",
        "query_string": _query(event).encode(),
        "headers": headers,
        "client": (http.get("sourceIp", ""), 0),
        "server": (request.get("domainName", "lambda"), 443),
        "state": {"aws": {"event": event, "context": context}},
    }


def _headers(event: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Yield the headers: format 1.0 lists values, 2.0 joins them and has cookies apart."""
    for name, values in (event.get("multiValueHeaders") or {}).items():
        yield from ((name, value) for value in values)
    if not event.get("multiValueHeaders"):
        yield from (event.get("headers") or {}).items()
    if event.get("cookies"):
        yield "cookie", "; ".join(event["cookies"])


def _query(event: Mapping[str, Any]) -> str:
    """Return the query string: format 2.0 has it raw, 1.0 decoded."""
    if "rawQueryString" in event:
        return str(event["rawQueryString"])
    return urlencode(event.get("multiValueQueryStringParameters") or {}, doseq=True)


def body_of(event: Mapping[str, Any]) -> bytes:
    """Return the body, base64 decoded if needed."""
    body = event.get("body") or ""
    return base64.b64decode(body) if event.get("isBase64Encoded") else body.encode()
