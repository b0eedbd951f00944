"""A stream as an endpoint of BentoML that says so if it breaks.

    @bentoml.api
    async def ask(self, ctx: bentoml.Context, prompt: str) -> AsyncGenerator[str, None]:
        async for text in texts(self.client.stream("sim/demo", prompt), ctx):
            yield text

What BentoML 1.4.39 does with a generator (`_bentoml_sdk/io_models.py`, `to_http_response`), and
what is done about it here:

- It sends pieces as they are, but calls them `text/event-stream`. This is `text/plain`; for real
  events an endpoint may `return unbroken.server.sse(stream)`.
- It waits for the first piece before it answers, and makes every error until then a 500. This
  gives the status that the provider gave, with its `Retry-After`.
- It drops what is raised later: half an answer looks whole. This ends it with a mark.
- Until the first piece it does not look whether the reader is still there, and later it may be
  too busy with a fast stream to stop it (anyio cancels only what waits). This looks at each piece.

A generator without `async` gets no such help. BentoML runs it piece by piece in one thread for all
(`_bentoml_impl/server/app.py`, `_to_thread`), and does not close it when its reader has left.
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
    """The head of a response, as far as it can still be chosen: until the first piece."""

    status_code: int

    @property
    def headers(self) -> MutableMapping[str, str]: ...


class Asking(Protocol):
    """What is used of Starlette's request: its ASGI messages."""

    @property
    def receive(self) -> Callable[[], Awaitable[MutableMapping[str, Any]]]: ...


class Context(Protocol):
    """What is used of a `bentoml.Context`."""

    @property
    def request(self) -> Asking: ...

    @property
    def response(self) -> Answering: ...


async def texts(stream: AsyncStream, ctx: Context) -> AsyncGenerator[str, None]:
    """The visible text of the first choice, as it comes; it ends when the reader leaves.

    An UnbrokenError is told, not raised: before the first piece as a sentence under the status that
    fits, later as a `mark` behind the text. Both are logged as warnings of `unbroken.deploy`.
    """
    head, begun = ctx.response, False
    head.headers.update({"content-type": "text/plain; charset=utf-8", **STREAMING})
    leaving = asyncio.ensure_future(wait_for_disconnect(ctx.request.receive))
    try:
        async with stream:
            pieces = stream.text
            while (text := await _unless(leaving, anext(pieces, None))) is not None:
                begun = True
                yield text
    except UnbrokenError as error:
        LOGGER.warning("%s", error)
        yield mark(error) if begun else _refused(error, head)
    finally:
        leaving.cancel()


def mark(error: UnbrokenError) -> str:
    """What a reader sees at the end of what is not whole."""
    return f"\n[broken off: {error}]\n"


def _refused(error: UnbrokenError, head: Answering) -> str:
    """A sentence instead of an answer, under the status that fits."""
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
