"""An ASGI response whose body is sent as it comes, and that ends when its reader leaves.

What each of its headers is for: `x-accel-buffering: no` stops nginx from collecting the body,
`cache-control: no-cache, no-transform` stops caches and compressing proxies. Heartbeats keep
connections open that somebody closes for silence.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from time import monotonic

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

HEARTBEAT = 15.0
"""Seconds of silence before a heartbeat: proxies and load balancers give up after 30 to 60."""

RAW_SEND = "unbroken.send"
"""In an ASGI scope: the way to the reader past our own layers, which care for heads only."""

HEARTBEAT_FRAME = b": keep-alive\n\n"

STREAMING = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}


class StreamResponse(Response):
    """Sends what `source` yields, at once, and closes it when it ends or the reader leaves."""

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
        """Send it all; the source is closed however this ends."""
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
        if self.background is not None:  # also where the reader has left
            await self.background()

    async def _body(self, wrapped: Send, send: Send) -> None:
        head = {"status": self.status_code, "headers": self.raw_headers}
        await wrapped({"type": "http.response.start", **head})
        pulse = _Heartbeat(send, self._heartbeat, self._beat)
        beating = asyncio.create_task(pulse.run())
        try:
            async for data in self._source:
                pulse.last = monotonic()
                await send({"type": "http.response.body", "body": data, "more_body": True})
        finally:
            beating.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await beating
        await wrapped({"type": "http.response.body", "body": b""})


class _Heartbeat:
    """Says something whenever nothing has been said for a while."""

    def __init__(self, send: Send, seconds: float, beat: bytes) -> None:
        self._send, self._seconds = send, seconds
        self._message: Message = {"type": "http.response.body", "body": beat, "more_body": True}
        self.last = monotonic()

    async def run(self) -> None:
        while True:
            silence = monotonic() - self.last
            if silence >= self._seconds:
                await self._send(self._message)
                self.last, silence = monotonic(), 0.0
            await asyncio.sleep(self._seconds - silence)


async def wait_for_disconnect(receive: Receive) -> None:
    """Returns when the reader has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
