"""The parts of the Lambda Runtime API that a streaming runtime needs.

Facts are from docs.aws.amazon.com/lambda/latest/dg: `runtimes-api.html` (paths, the headers of
an invocation) and `runtimes-custom.html`, section "Implementing response streaming in a custom
runtime" (response mode, chunks, trailers, and that the connection is closed after a response).

On asyncio's own streams: neither http.client nor aiohttp can send trailers.
"""

import asyncio
import base64
import traceback
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from unbroken.errors import ConnectionLost, RemoteProtocolError
from unbroken.transport.chunked import ChunkedDecoder

VERSION = "/2018-06-01/runtime"

HTTP_INTEGRATION = "application/vnd.awslambda.http-integration-response"
"""The content type of responses for function URLs and REST APIs: a JSON head, 8 NUL bytes, then
the body. AWS names the type in its Node.js runtime and in lambda_http; the layout is in the API
Gateway guide, `response-transfer-mode-lambda.html`."""

ERROR_TYPE = "Lambda-Runtime-Function-Error-Type"
ERROR_BODY = "Lambda-Runtime-Function-Error-Body"

_encode = msgspec.json.Encoder().encode


class Invocation(Struct, frozen=True):
    """One event and its metadata. `deadline` is in Unix seconds."""

    id: str
    event: bytes
    deadline: float
    arn: str
    trace: str
    headers: dict[str, str]


class Failure(Struct, frozen=True, rename="camel"):
    """An error in the Runtime API's format; `error_type` is `Category.Reason`."""

    error_type: str
    error_message: str
    stack_trace: list[str] = []


class _Reply(Struct, frozen=True):
    status: int
    headers: dict[str, str]
    body: bytes


def failure_of(error: BaseException, category: str = "Function") -> Failure:
    """Convert an exception, with its traceback."""
    kind = f"{category}.{type(error).__name__}"
    return Failure(kind, str(error), traceback.format_exception(error))


class RuntimeApi:
    """Client of the Runtime API. `address` is AWS_LAMBDA_RUNTIME_API: host and port."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def next(self) -> Invocation:
        """Wait for an event, without a timeout: the process may be frozen meanwhile."""
        reply = await self._ask("GET", "/invocation/next")
        headers = reply.headers
        return Invocation(
            id=headers["lambda-runtime-aws-request-id"],
            event=reply.body,
            deadline=int(headers["lambda-runtime-deadline-ms"]) / 1000,
            arn=headers.get("lambda-runtime-invoked-function-arn", ""),
            trace=headers.get("lambda-runtime-trace-id", ""),
            headers=headers,
        )

    async def answer(self, invocation: str, body: bytes) -> None:
        """Send the response of a function that does not stream."""
        json = {"Content-Type": "application/json"}
        await self._ask("POST", f"/invocation/{invocation}/response", json, body)

    async def fail(self, failure: Failure, invocation: str = "") -> None:
        """Report an error before the response started; without `invocation`, one of the start."""
        path = f"/invocation/{invocation}/error" if invocation else "/init/error"
        kind = {"Content-Type": "application/json", ERROR_TYPE: failure.error_type}
        await self._ask("POST", path, kind, _encode(failure))

    async def stream(self, invocation: str, content_type: str) -> "Streamed":
        """Start a streamed response."""
        head = {
            "Content-Type": content_type,
            "Lambda-Runtime-Function-Response-Mode": "streaming",
            "Transfer-Encoding": "chunked",
            "Trailer": f"{ERROR_TYPE}, {ERROR_BODY}",
        }
        reader, writer = await self._connect()
        writer.write(self._head("POST", f"/invocation/{invocation}/response", head))
        return Streamed(reader, writer)

    async def _ask(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> _Reply:
        reader, writer = await self._connect()
        try:
            sized = {**(headers or {}), "Content-Length": str(len(body))}
            writer.write(self._head(method, path, sized) + body)
            return await _reply(reader)
        finally:
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, _, port = self._address.rpartition(":")
        return await asyncio.open_connection(host or self._address, int(port) if host else 80)

    def _head(self, method: str, path: str, headers: Mapping[str, str]) -> bytes:
        always = {"Host": self._address, "User-Agent": "unbroken", "Connection": "close"}
        lines = [f"{name}: {value}" for name, value in {**always, **headers}.items()]
        return "\r\n".join([f"{method} {VERSION}{path} HTTP/1.1", *lines, "\r\n"]).encode()


class Streamed:
    """A streamed response: one HTTP chunk per piece, then how it ended."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def write(self, data: bytes) -> None:
        """Send one piece and wait until it is accepted. (An empty chunk would be the end.)"""
        if data:
            self._writer.write(b"%x\r\n%b\r\n" % (len(data), data))
            await self._writer.drain()

    async def end(self, failure: Failure | None = None) -> None:
        """Send the last chunk and the trailers of an error, then read the platform's reply."""
        trailers = b""
        if failure is not None:
            body = base64.b64encode(_encode(failure)).decode()
            trailers = f"{ERROR_TYPE}: {failure.error_type}\r\n{ERROR_BODY}: {body}\r\n".encode()
        try:
            self._writer.write(b"0\r\n%b\r\n" % trailers)
            await _reply(self._reader)
        finally:
            self._writer.close()

    def abandon(self) -> None:
        """Close the connection without an end."""
        self._writer.close()


async def _reply(reader: asyncio.StreamReader) -> _Reply:
    """Read a complete response. Raises RemoteProtocolError for an error status."""
    try:
        status, headers = _parsed(await reader.readuntil(b"\r\n\r\n"))
        body = await _body(reader, headers)
    except asyncio.IncompleteReadError as error:
        raise ConnectionLost("the Runtime API closed the connection") from error
    if status >= 300:
        raise RemoteProtocolError(f"the Runtime API answered {status}: {body[:500]!r}")
    return _Reply(status, headers, body)


def _parsed(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    pairs = (line.partition(":") for line in lines)
    return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    """Read a body; AWS's emulator sends events above two kilobytes chunked."""
    if "chunked" not in headers.get("transfer-encoding", ""):
        return await reader.readexactly(int(headers.get("content-length", 0)))
    decoder, parts = ChunkedDecoder(), list[bytes]()
    while not decoder.done:
        data = await reader.read(64 * 1024)
        if not data:
            raise ConnectionLost("the Runtime API closed the connection in mid-event")
        parts.append(decoder.feed(data))
    return b"".join(parts)
