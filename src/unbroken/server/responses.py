"""An ASGI response whose body is sent as it comes, and that ends when its reader disconnects.

Its headers: `x-accel-buffering: no` stops nginx from collecting the body, `cache-control: no-cache,
no-transform` stops caches and compressing proxies. Heartbeats keep connections open that proxies
would close for silence.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from time import monotonic
from typing import Self

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

HEARTBEAT = 15.0
"""Seconds of silence before a heartbeat: proxies and load balancers give up after 30 to 60."""

RAW_SEND = "unbroken.send"
"""In an ASGI scope: the server's own `send`. Our middleware needs to see the head only."""

HEARTBEAT_FRAME = b": keep-alive\n\n"

STREAMING = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}


class StreamResponse(Response):
    """Sends what `source` yields, at once, and closes it when it ends or the reader disconnects."""

    def __init__(
        self,
        source: AsyncGenerator[bytes, None],
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str = "text/event-stream",
        heartbeat: float = HEARTBEAT,
        beat: bytes = HEARTBEAT_FRAME,
    ) -> None:
        super().__init__(None, status, {**STREAMING, **(headers or {})}, media_type)
        del self.headers["content-length"]
        self._source, self._heartbeat, self._beat = source, heartbeat, beat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response; the source is closed however this ends."""
        if scope["type"] != "http" or scope.get("method") == "HEAD":
            await self._source.aclose()
            await super().__call__(scope, receive, send)
            return
        body = asyncio.create_task(self._body(send, scope.get(RAW_SEND, send)))
        reader = asyncio.create_task(wait_for_disconnect(receive))
        try:
            await asyncio.wait((body, reader), return_when=asyncio.FIRST_COMPLETED)
            if body.done():
                body.result()
        finally:
            for task in (body, reader):
                task.cancel()
            await asyncio.gather(body, reader, return_exceptions=True)
            await self._source.aclose()
        if self.background is not None:  # also if the reader has disconnected
            await self.background()

    async def _body(self, wrapped: Send, send: Send) -> None:
        head = {"status": self.status_code, "headers": self.raw_headers}
        await wrapped({"type": "http.response.start", **head})
        async with _Heartbeat(send, self._heartbeat, self._beat) as heartbeat:
            async for data in self._source:
                heartbeat.last = monotonic()
                await send({"type": "http.response.body", "body": data, "more_body": True})
        await wrapped({"type": "http.response.body", "body": b""})


class _Heartbeat:
    """Sends a frame whenever nothing has been sent for a while.

    A timer and not a task: there is one for each reader, and most of them never fire.
    """

    def __init__(self, send: Send, seconds: float, frame: bytes) -> None:
        self._send, self._seconds = send, seconds
        self._message: Message = {"type": "http.response.body", "body": frame, "more_body": True}
        self._loop = asyncio.get_running_loop()
        self._sending: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle
        self.last = monotonic()

    async def __aenter__(self) -> Self:
        self._schedule()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._timer.cancel()
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)

    def _schedule(self) -> None:
        silence = monotonic() - self.last
        self._timer = self._loop.call_later(max(0.0, self._seconds - silence), self._fire)

    def _fire(self) -> None:
        if monotonic() - self.last >= self._seconds:
            self.last = monotonic()
            if self._sending is None or self._sending.done():  # else the reader is slow
                self._sending = asyncio.ensure_future(self._send(self._message))
        self._schedule()


async def wait_for_disconnect(receive: Receive) -> None:
    """Return when the reader has disconnected."""
    while (await receive())["type"] != "http.disconnect":
        pass
