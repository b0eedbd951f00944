"""The event loop of the Lambda runtime: call the function and send what it yields, in time.

    the function                      response
    returns a value                   the value as JSON, in one piece
    yields (generator, async or not)  each piece at once, as a streamed response
    yields a `Head` first             an HTTP response: status, headers, then the pieces

A client that disconnects does not stop a function: it runs, and is billed, to its timeout
(docs.aws.amazon.com/lambda/latest/dg/configuration-response-streaming.html). At its
timeout Lambda kills the process, which a client can't tell from a lost connection. Therefore every
stream is ended one second earlier, with a marker that can't be confused with the answer.
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
"""Seconds before the deadline at which a stream is ended, so that the last chunk is still sent."""

_encode = msgspec.json.Encoder().encode


class Head(Struct, frozen=True, kw_only=True):
    """The status and headers of a streamed HTTP response; yield it before the first piece."""

    status: int = 200
    headers: dict[str, str] = {}
    cookies: list[str] = []

    def prelude(self) -> bytes:
        """Encode the head for function URLs and REST APIs: within the first 16 KB of a response
        (docs.aws.amazon.com/apigateway: response-transfer-mode-lambda.html).
        """
        head = {"statusCode": self.status, "headers": self.headers, "cookies": self.cookies}
        return _encode(head) + bytes(8)


class Context(Struct, frozen=True, kw_only=True):
    """The context object of AWS's own Python runtime, with the same names
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
        """Return the milliseconds until Lambda kills the process."""
        return max(0, int((self.deadline - time.time()) * 1000))


_CONNECTION_ERRORS = (TransportError, ProtocolError, OSError)
"""The Runtime API is unavailable or rejected the response."""

Piece = Head | bytes | str
Handler = Callable[[Any, Context], Any]


async def serve(api: RuntimeApi, handler: Handler) -> None:
    """Handle events one at a time, until the process is killed."""
    while True:
        await answer(api, handler, await api.next())


async def answer(api: RuntimeApi, handler: Handler, invocation: Invocation) -> None:
    """Handle one event. Exceptions of the function are reported; the process continues."""
    os.environ["_X_AMZN_TRACE_ID"] = invocation.trace  # as runtimes-custom.html asks
    try:
        event = msgspec.json.decode(invocation.event)
        result = await _invoke_handler(handler, event, context_of(invocation, os.environ))
        if isinstance(result, AsyncGenerator):
            await _Response(api, invocation, event).send(result)
        else:
            await api.answer(invocation.id, _encode(result))
    except Exception as error:  # noqa: BLE001  # a function may raise anything
        _log(invocation.id, error)
        await _fail(api, invocation, error)


async def _fail(api: RuntimeApi, invocation: Invocation, error: Exception) -> None:
    """Report what the function raised. If that fails, the next event may still succeed."""
    try:
        await api.fail(failure_of(error), invocation.id)
    except _CONNECTION_ERRORS as failure:
        _log(invocation.id, failure)


def context_of(invocation: Invocation, env: Mapping[str, str]) -> Context:
    """Return the context of an invocation; the rest is in the environment."""
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
    """Return True for an event of a function URL or a REST API, False for a direct invocation."""
    request = event.get("requestContext", {}) if isinstance(event, dict) else {}
    return "http" in request or "httpMethod" in request


async def _invoke_handler(handler: Handler, event: Any, context: Context) -> Any:
    """Call the handler in a thread, since it may block, and await its result if needed."""
    result = await asyncio.to_thread(handler, event, context)
    if inspect.isawaitable(result):
        result = await result
    return _threaded(result) if isinstance(result, Generator) else result


async def _threaded(pieces: Generator[Piece, None, None]) -> AsyncGenerator[Piece, None]:
    """Iterate over a blocking generator. It can't be stopped while it waits, so at the deadline it
    is abandoned, and closed as soon as it yields its next piece.
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
    """Close the generator in a thread, since it may block. Its last error was already reported."""
    if not done.cancelled():
        done.exception()
    done.get_loop().run_in_executor(None, pieces.close)


async def _until_deadline(
    pieces: AsyncGenerator[Piece, None], until: float
) -> AsyncGenerator[Piece | Exception, None]:
    """Yield the pieces until `until`, and as the last item the error, if there was one."""
    try:
        while True:
            async with asyncio.timeout_at(until) as clock:
                piece = await anext(pieces)
            yield piece
    except StopAsyncIteration:
        return
    except Exception as error:  # noqa: BLE001  # a function may raise anything
        yield TimedOut("the function reached its timeout") if clock.expired() else error
    finally:
        await pieces.aclose()


class _Response:
    """A streamed response. It starts with the first piece; earlier errors fail the invocation."""

    def __init__(self, api: RuntimeApi, invocation: Invocation, event: Any) -> None:
        self._api, self._invocation = api, invocation
        self._http = is_http(event)
        self._sent: Streamed | None = None
        self._kind = "text/plain"

    async def send(self, pieces: AsyncGenerator[Piece, None]) -> None:
        """Send all pieces and the end. Raises what the function raised before its first piece."""
        broken = None
        try:
            broken = await self._send_all(pieces)
            if broken is None or self._sent is not None:
                await self._end(broken)
        except _CONNECTION_ERRORS as error:
            _log(self._invocation.id, error)  # the platform closed the connection
            if self._sent is not None:
                self._sent.abandon()
        if broken is not None and self._sent is None:
            raise broken

    async def _send_all(self, pieces: AsyncGenerator[Piece, None]) -> Exception | None:
        """Send every piece; return the function's error, if there was one."""
        until = asyncio.get_running_loop().time() + self._remaining() - MARGIN
        async with contextlib.aclosing(_until_deadline(pieces, until)) as timely:
            async for piece in timely:
                if isinstance(piece, Exception):
                    return piece
                try:
                    data = _data(piece)
                except (TypeError, ValueError) as error:
                    return error
                await self._write(piece, data)
        return None

    def _remaining(self) -> float:
        return self._invocation.deadline - time.time()

    async def _write(self, piece: Piece, data: bytes) -> None:
        sent = self._sent or await self._open(piece)
        if not isinstance(piece, Head):
            async with asyncio.timeout(self._remaining()):  # clients may be slow
                await sent.write(data)

    async def _open(self, first: Piece) -> Streamed:
        """Start the response, with a head for HTTP events; plain bytes have no content type."""
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
        """Send the last chunk; on an error, a marker before it and trailers behind it."""
        sent = self._sent or await self._open("")
        async with asyncio.timeout(max(self._remaining(), MARGIN / 2)):
            if broken is None:
                return await sent.end()
            _log(self._invocation.id, broken)
            await sent.write(_MARKS.get(self._kind, _no_mark)(broken))
            return await sent.end(failure_of(broken))


def _data(piece: Piece) -> bytes:
    """Encode a piece. Raises TypeError or ValueError for an invalid one, before the response
    starts.
    """
    if isinstance(piece, Head):
        return piece.prelude()
    if isinstance(piece, str):
        return piece.encode()
    return bytes(memoryview(piece or b""))  # the last delta of many an SDK is None


_PLAIN = Head(headers={"content-type": "text/plain; charset=utf-8"})


def _public_error(error: Exception) -> dict[str, str]:
    """Return the error as clients may see it: messages of other libraries stay in the log."""
    known = isinstance(error, UnbrokenError)
    return {
        "message": str(error) if known else "the function failed",
        "type": type(error).__name__,
    }


def _sse_mark(error: Exception) -> bytes:
    """Encode an `error` event, which the SDKs raise. The empty line ends a partial frame."""
    data = _encode({"error": _public_error(error)})
    return b"\n\n" + sse.encode(Frame(data, event="error"))


def _json_mark(error: Exception) -> bytes:
    return b"\n" + _encode({"error": _public_error(error)}) + b"\n"


def _text_mark(error: Exception) -> bytes:
    return f"\n[interrupted: {_public_error(error)['message']}]\n".encode()


def _no_mark(_error: Exception) -> bytes:
    return b""  # text would corrupt binary content; the trailers report the error


_MARKS: dict[str, Callable[[Exception], bytes]] = {
    "text/event-stream": _sse_mark,
    "application/x-ndjson": _json_mark,
    "application/jsonl": _json_mark,
    "text/plain": _text_mark,
}


def _log(invocation: str, error: BaseException) -> None:
    """Log to standard error, which CloudWatch keeps."""
    trace = "".join(traceback.format_exception(error))
    sys.stderr.write(f"{invocation} {trace}")
    sys.stderr.flush()
