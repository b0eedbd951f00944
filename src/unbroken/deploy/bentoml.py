"""Streams as BentoML endpoints that report their errors.

    @bentoml.api
    async def ask(self, ctx: bentoml.Context, prompt: str) -> AsyncGenerator[str, None]:
        async for text in texts(self.client.stream("sim/demo", prompt), ctx):
            yield text

How BentoML 1.4.39 handles a generator (`_bentoml_sdk/io_models.py`, `to_http_response`), and what
this module changes:

- It sends plain text as `text/event-stream`. Here it is `text/plain`; for real events an endpoint
  may `return unbroken.server.sse(stream)`.
- It waits for the first piece before it responds, and turns every earlier error into a 500. Here
  the response has the provider's status and `Retry-After`.
- It drops later errors: a partial answer looks complete. Here it ends with a marker.
- It does not notice a disconnect before the first piece, and may be too busy with a fast stream to
  cancel it later (anyio cancels only at waits). Here each piece checks for a disconnect.

Synchronous generators are not supported. BentoML runs them piece by piece in one shared thread
(`_bentoml_impl/server/app.py`, `_to_thread`), and does not close them on a disconnect.
"""

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from unbroken.client._async import AsyncStream
from unbroken.errors import UnbrokenError
from unbroken.server.records import Failure
from unbroken.server.responses import STREAMING, wait_for_disconnect

LOGGER = logging.getLogger("unbroken.deploy")


class Answering(Protocol):
    """The response head, which can be changed until the first piece."""

    status_code: int

    @property
    def headers(self) -> MutableMapping[str, str]: ...


class Asking(Protocol):
    """The part of Starlette's request that is used: its ASGI messages."""

    @property
    def receive(self) -> Callable[[], Awaitable[MutableMapping[str, Any]]]: ...


class Context(Protocol):
    """The part of `bentoml.Context` that is used."""

    @property
    def request(self) -> Asking: ...

    @property
    def response(self) -> Answering: ...


async def texts(stream: AsyncStream, ctx: Context) -> AsyncGenerator[str, None]:
    """Yield the visible text of the first choice, until the client disconnects.

    An UnbrokenError is sent, not raised: before the first piece as an error response, later as a
    `mark` behind the text. Both are logged as warnings of `unbroken.deploy`.
    """
    head, started = ctx.response, False
    head.headers.update({"content-type": "text/plain; charset=utf-8", **STREAMING})
    leaving = asyncio.ensure_future(wait_for_disconnect(ctx.request.receive))
    try:
        async with stream:
            pieces = stream.text
            while (text := await _unless(leaving, anext(pieces, None))) is not None:
                started = True
                yield text
    except UnbrokenError as error:
        LOGGER.warning("%s", error)
        yield mark(error) if started else _refused(error, head)
    finally:
        leaving.cancel()


def mark(error: UnbrokenError) -> str:
    """Return the text that marks an incomplete answer."""
    return f"\n[interrupted: {error}]\n"


def _refused(error: UnbrokenError, head: Answering) -> str:
    """Set the error's status and return its message."""
    refusal = Failure.from_error(error).to_error()
    head.status_code = refusal.status or 502
    if refusal.retry_after is not None:
        head.headers["retry-after"] = str(math.ceil(refusal.retry_after))  # RFC 9110, 10.2.3
    return f"{error}\n"


async def _unless(leaving: asyncio.Future[None], piece: Awaitable[str | None]) -> str | None:
    """Return the piece, or None if the reader disconnects first; the read is then cancelled."""
    reading = asyncio.ensure_future(piece)
    try:
        await asyncio.wait((reading, leaving), return_when=asyncio.FIRST_COMPLETED)
        text = reading.result() if reading.done() else None
        return None if leaving.done() else text
    finally:
        if reading.cancel():  # it was still under way
            await asyncio.wait((reading,))
