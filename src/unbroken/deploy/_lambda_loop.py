"""What happens between one event and the next: call the function, send what it yields, in time.

    the function                      what is sent
    returns a value                   the value as JSON, in one piece
    yields (generator, async or not)  each piece at once, as a streamed response
    yields a `Head` first             an HTTP response: status, headers, then the pieces

A reader who leaves does not stop a function: it runs, and is billed, to its timeout
(docs.aws.amazon.com/lambda/latest/dg/configuration-response-streaming.html). And at its timeout
Lambda kills the process, which looks to a reader like any torn connection. So every stream is ended
a second before, by us, with a mark that the reader can tell from the answer.
"""

import asyncio
import contextlib
import inspect
import os
import sys
import time
import traceback
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from unbroken.deploy._lambda_api import (
    HTTP_INTEGRATION,
    Invocation,
    RuntimeApi,
    Streamed,
    failure_of,
)
from unbroken.errors import ProtocolError, TimedOut, TransportError, UnbrokenError
from unbroken.wire import sse
from unbroken.wire.codec import Frame

MARGIN = 1.0
"""Seconds before the deadline at which a stream is ended: enough for the last chunk to leave."""

_encode = msgspec.json.Encoder().encode


class Head(Struct, frozen=True, kw_only=True):
    """The status and headers of a streamed HTTP response; yield it before the first piece."""

    status: int = 200
    headers: dict[str, str] = {}
    cookies: list[str] = []

    def prelude(self) -> bytes:
        """As function URLs and REST APIs read it, within the first 16 KB of a response
        (docs.aws.amazon.com/apigateway: response-transfer-mode-lambda.html).
        """
        said = {"statusCode": self.status, "headers": self.headers, "cookies": self.cookies}
        return _encode(said) + bytes(8)


class Context(Struct, frozen=True, kw_only=True):
    """What AWS's own Python runtime tells a function, under the same names
    (docs.aws.amazon.com/lambda/latest/dg/python-context.html).
    """

    aws_request_id: str
    invoked_function_arn: str
    deadline: float
    function_name: str = ""
    function_version: str = ""
    memory_limit_in_mb: str = ""
    log_group_name: str = ""
    log_stream_name: str = ""

    def get_remaining_time_in_millis(self) -> int:
        """Until Lambda kills the process."""
        return max(0, int((self.deadline - time.time()) * 1000))


_HUNG_UP = (TransportError, ProtocolError, OSError)
"""The platform is away, or does not want what we say."""

Piece = Head | bytes | str
Handler = Callable[[Any, Context], Any]


async def serve(api: RuntimeApi, handler: Handler) -> None:
    """Answer one event after the other, until the process is killed."""
    while True:
        await answer(api, handler, await api.next())


async def answer(api: RuntimeApi, handler: Handler, invocation: Invocation) -> None:
    """Answer one event. What the function raises is told; the process lives on."""
    os.environ["_X_AMZN_TRACE_ID"] = invocation.trace  # as runtimes-custom.html asks
    try:
        event = msgspec.json.decode(invocation.event)
        result = await _called(handler, event, context_of(invocation, os.environ))
        if isinstance(result, AsyncGenerator):
            await _Response(api, invocation, event).send(result)
        else:
            await api.answer(invocation.id, _encode(result))
    except Exception as error:  # noqa: BLE001  # a function may raise anything
        _log(invocation.id, error)
        await _fail(api, invocation, error)


async def _fail(api: RuntimeApi, invocation: Invocation, error: Exception) -> None:
    """Tell what the function raised. A platform that won't hear it may still have a next event."""
    try:
        await api.fail(failure_of(error), invocation.id)
    except _HUNG_UP as refusal:
        _log(invocation.id, refusal)


def context_of(invocation: Invocation, env: Mapping[str, str]) -> Context:
    """What the function is told; the rest is in the environment."""
    return Context(
        aws_request_id=invocation.id,
        invoked_function_arn=invocation.arn,
        deadline=invocation.deadline,
        function_name=env.get("AWS_LAMBDA_FUNCTION_NAME", ""),
        function_version=env.get("AWS_LAMBDA_FUNCTION_VERSION", ""),
        memory_limit_in_mb=env.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", ""),
        log_group_name=env.get("AWS_LAMBDA_LOG_GROUP_NAME", ""),
        log_stream_name=env.get("AWS_LAMBDA_LOG_STREAM_NAME", ""),
    )


def is_http(event: Any) -> bool:
    """Whether it came from a function URL or a REST API, and not from an invocation."""
    request = event.get("requestContext", {}) if isinstance(event, dict) else {}
    return "http" in request or "httpMethod" in request


async def _called(handler: Handler, event: Any, context: Context) -> Any:
    """In a thread, as it may block; what it returns may still have to be awaited."""
    result = await asyncio.to_thread(handler, event, context)
    if inspect.isawaitable(result):
        result = await result
    return _threaded(result) if isinstance(result, Generator) else result


async def _threaded(pieces: Generator[Piece, None, None]) -> AsyncGenerator[Piece, None]:
    """A generator that blocks. It can't be stopped while it waits, so when time is up it is left
    behind, and closed as soon as it has its next piece.
    """
    end: Any = object()
    reading = asyncio.ensure_future(asyncio.to_thread(next, pieces, end))
    try:
        while (piece := await asyncio.shield(reading)) is not end:
            yield piece
            reading = asyncio.ensure_future(asyncio.to_thread(next, pieces, end))
    finally:
        reading.add_done_callback(lambda done: _close(done, pieces))


def _close(done: "asyncio.Future[Any]", pieces: Generator[Piece, None, None]) -> None:
    """Where it may block, and with its last error seen: it has been told, or nobody waits."""
    if not done.cancelled():
        done.exception()
    done.get_loop().run_in_executor(None, pieces.close)


async def _in_time(
    pieces: AsyncGenerator[Piece, None], until: float
) -> AsyncGenerator[Piece | Exception, None]:
    """The pieces that come before `until`, and as the last one what went wrong, if anything did."""
    try:
        while True:
            async with asyncio.timeout_at(until) as clock:
                piece = await anext(pieces)
            yield piece
    except StopAsyncIteration:
        return
    except Exception as error:  # noqa: BLE001  # a function may raise anything
        yield TimedOut("the function's time is up") if clock.expired() else error
    finally:
        await pieces.aclose()


class _Response:
    """A streamed response, opened by its first piece: an error before is the invocation's own."""

    def __init__(self, api: RuntimeApi, invocation: Invocation, event: Any) -> None:
        self._api, self._invocation = api, invocation
        self._http = is_http(event)
        self._sent: Streamed | None = None
        self._kind = "text/plain"

    async def send(self, pieces: AsyncGenerator[Piece, None]) -> None:
        """All pieces, and the end. Raises what the function raised before its first piece."""
        broken = None
        try:
            broken = await self._all(pieces)
            if broken is None or self._sent is not None:
                await self._end(broken)
        except _HUNG_UP as error:
            _log(self._invocation.id, error)  # the platform has hung up: there is nobody to tell
            if self._sent is not None:
                self._sent.abandon()
        if broken is not None and self._sent is None:
            raise broken

    async def _all(self, pieces: AsyncGenerator[Piece, None]) -> Exception | None:
        """Every piece; what went wrong with the function, if something did."""
        until = asyncio.get_running_loop().time() + self._left() - MARGIN
        async with contextlib.aclosing(_in_time(pieces, until)) as timely:
            async for piece in timely:
                if isinstance(piece, Exception):
                    return piece
                try:
                    data = _data(piece)
                except (TypeError, ValueError) as error:
                    return error
                await self._write(piece, data)
        return None

    def _left(self) -> float:
        return self._invocation.deadline - time.time()

    async def _write(self, piece: Piece, data: bytes) -> None:
        sent = self._sent or await self._open(piece)
        if not isinstance(piece, Head):
            async with asyncio.timeout(self._left()):  # a reader may be slower than the function
                await sent.write(data)

    async def _open(self, first: Piece) -> Streamed:
        """Begin, with a head where one is read; pieces of bytes alone are of an unknown kind."""
        head = first if isinstance(first, Head) else _PLAIN if self._http else None
        if head is None:
            self._kind = "text/plain" if isinstance(first, str) else ""
            kind = _PLAIN.headers["content-type"] if self._kind else "application/octet-stream"
            self._sent = await self._api.stream(self._invocation.id, kind)
            return self._sent
        self._kind = head.headers.get("content-type", "").partition(";")[0].strip()
        self._sent = await self._api.stream(self._invocation.id, HTTP_INTEGRATION)
        await self._sent.write(head.prelude())
        return self._sent

    async def _end(self, broken: Exception | None) -> None:
        """The last chunk; before it the mark, and behind it the trailers, of what went wrong."""
        sent = self._sent or await self._open("")
        async with asyncio.timeout(max(self._left(), MARGIN / 2)):
            if broken is None:
                return await sent.end()
            _log(self._invocation.id, broken)
            await sent.write(_MARKS.get(self._kind, _no_mark)(broken))
            return await sent.end(failure_of(broken))


def _data(piece: Piece) -> bytes:
    """What is sent of a piece. TypeError or ValueError for what is none, before it opens a response
    that can't be taken back.
    """
    if isinstance(piece, Head):
        return piece.prelude()
    if isinstance(piece, str):
        return piece.encode()
    return bytes(memoryview(piece or b""))  # the last delta of many an SDK is None


_PLAIN = Head(headers={"content-type": "text/plain; charset=utf-8"})


def _told(error: Exception) -> dict[str, str]:
    """What a reader may know: what our own errors say; of others only that there was one."""
    known = isinstance(error, UnbrokenError)
    return {
        "message": str(error) if known else "the function failed",
        "type": type(error).__name__,
    }


def _sse_mark(error: Exception) -> bytes:
    """An `error` event, which the SDKs raise. The empty line ends a frame that was cut."""
    data = _encode({"error": _told(error)})
    return b"\n\n" + sse.encode(Frame(data, event="error"))


def _json_mark(error: Exception) -> bytes:
    return b"\n" + _encode({"error": _told(error)}) + b"\n"


def _text_mark(error: Exception) -> bytes:
    return f"\n[broken off: {_told(error)['message']}]\n".encode()


def _no_mark(_error: Exception) -> bytes:
    return b""  # an image with a sentence at its end is no image; the trailers have to do


_MARKS: dict[str, Callable[[Exception], bytes]] = {
    "text/event-stream": _sse_mark,
    "application/x-ndjson": _json_mark,
    "application/jsonl": _json_mark,
    "text/plain": _text_mark,
}


def _log(invocation: str, error: BaseException) -> None:
    """For CloudWatch, which keeps what is written to standard error."""
    said = "".join(traceback.format_exception(error))
    sys.stderr.write(f"{invocation} {said}")
    sys.stderr.flush()
