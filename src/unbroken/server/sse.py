"""`return unbroken.server.sse(stream)`: a stream as a response that is right by itself.

Text goes out as `data:` lines (several for a text with newlines, WHATWG HTML 9.2), and the end as
`data: [DONE]`, the way the tutorials do it. A failure is an `error` event with a sentence: the
status is long sent by then.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Literal

import msgspec

from unbroken.client._async import AsyncStream
from unbroken.client._sync import Stream
from unbroken.errors import UnbrokenError
from unbroken.events import Event, TextDelta
from unbroken.server.responses import HEARTBEAT, StreamResponse
from unbroken.wire import sse as framing
from unbroken.wire.codec import Frame

DONE = framing.encode(Frame(b"[DONE]"))

_json = msgspec.json.Encoder().encode


def sse(
    stream: AsyncStream | Stream,
    *,
    events: Literal["text", "json"] = "text",
    headers: Mapping[str, str] | None = None,
    heartbeat: float = HEARTBEAT,
) -> StreamResponse:
    """The response for a route of FastAPI or Starlette, with status 200.

    `events="text"` sends the visible text of the first choice, `"json"` every event as JSON.
    `heartbeat` is in seconds. A reader that leaves ends the stream, and with it the provider's
    connection.
    """
    return StreamResponse(_source(stream, _WRITERS[events]()), headers=headers, heartbeat=heartbeat)


class Texts:
    """Text as frames. What ends in a carriage return waits for what follows: SSE reads it as a
    line's end, and the line feed behind it as another.
    """

    def __init__(self) -> None:
        self._kept = ""

    def __call__(self, batch: list[Event], id: str = "") -> bytes:
        """The frame of one batch; nothing if it holds no visible text of the first choice."""
        said = "".join(e.text for e in batch if type(e) is TextDelta and e.choice == 0)
        if not said:
            return b""
        self._kept += said
        return b"" if said.endswith("\r") else self.rest(id)

    def rest(self, id: str = "") -> bytes:
        """What has waited."""
        said, self._kept = self._kept, ""
        return framing.encode(Frame(said.encode(), id=id)) if said else b""


class Jsons:
    """Every event as JSON, in a frame of its own."""

    def __call__(self, batch: list[Event]) -> bytes:
        """The frames of one batch."""
        return b"".join(framing.encode(Frame(_json(event))) for event in batch)

    def rest(self) -> bytes:
        """Nothing waits here."""
        return b""


_WRITERS: dict[str, Callable[[], Texts | Jsons]] = {"text": Texts, "json": Jsons}


def failure(error: UnbrokenError) -> bytes:
    """The `error` event: what happened, for people, and its class, for programs."""
    said = {"error": {"message": str(error), "type": type(error).__name__}}
    return framing.encode(Frame(_json(said), event="error"))


async def _source(
    stream: AsyncStream | Stream, write: Texts | Jsons
) -> AsyncGenerator[bytes, None]:
    batches = stream.batches() if isinstance(stream, AsyncStream) else _threaded(stream)
    try:
        async for batch in batches:
            if data := write(batch):
                yield data
        yield write.rest() + DONE
    except UnbrokenError as error:
        yield write.rest() + failure(error)
    finally:
        await batches.aclose()
        if isinstance(stream, AsyncStream):
            await stream.close()


async def _threaded(stream: Stream) -> AsyncGenerator[list[Event], None]:
    """A stream that blocks, read in a thread."""
    batches: Any = stream.batches()
    end: list[Event] = []
    reading = asyncio.ensure_future(asyncio.to_thread(next, batches, end))
    try:
        while (batch := await asyncio.shield(reading)) is not end:
            yield batch
            reading = asyncio.ensure_future(asyncio.to_thread(next, batches, end))
    finally:
        stream.abort()  # wakes a read that is under way
        await asyncio.gather(reading, return_exceptions=True)
        stream.close()
