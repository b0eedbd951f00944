"""Every way that HTTP has to carry a body, and bodies that nobody expected."""

import asyncio
import gzip
import socket
import threading

import pytest

from unbroken import AsyncClient, Client, RecoveryPolicy, UnbrokenError

CHUNKS = (
    b'data: {"id":"1","model":"m","choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
)
WHOLE = b'{"id":"1","choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}]}'
STREAM, JSON = b"content-type: text/event-stream\r\n", b"content-type: application/json\r\n"


def answer(status, headers, body, length=None):
    length = len(body) if length is None else length
    sized = b"content-length: %d\r\n" % length if length >= 0 else b"connection: close\r\n"
    return b"HTTP/1.1 %b\r\n%b%b\r\n%b" % (status, headers, sized, body)


ANSWERS = {
    "with a length": (answer(b"200 OK", STREAM, CHUNKS), "hi"),
    "until the connection closes": (answer(b"200 OK", STREAM, CHUNKS, -1), "hi"),
    "compressed": (
        answer(b"200 OK", STREAM + b"content-encoding: gzip\r\n", gzip.compress(CHUNKS)),
        "hi",
    ),
    "whole, though a stream was asked for": (answer(b"200 OK", JSON, WHOLE), "hi"),
    "shorter than promised": (answer(b"200 OK", STREAM, CHUNKS[:90], 9999), "StreamInterrupted"),
    "empty": (answer(b"200 OK", STREAM, b""), "StreamTruncated"),
    "no content": (answer(b"204 No Content", b"", b""), "StreamTruncated"),
    "a redirect": (answer(b"307 Moved", b"location: http://x/\r\n", b""), "BadRequest"),
    "a page of HTML": (answer(b"502 Bad", b"", b"<html>sorry</html>"), "ServerError"),
    "a page of HTML with a 200": (answer(b"200 OK", b"", b"<html></html>"), "RemoteProtocolError"),
    "an error with a 200": (answer(b"200 OK", JSON, b'{"error": {"message": "x"}}'), "ServerError"),
    "no HTTP at all": (b"hello there\r\n\r\n", "ConnectionLost"),
    "no chunks, though promised": (
        b"HTTP/1.1 200 OK\r\n" + STREAM + b"transfer-encoding: chunked\r\n\r\nzz\r\nabc",
        "ConnectionLost",
    ),
}


@pytest.fixture
def serve():
    """The URL of a server that gives these bytes to whoever asks."""
    server = socket.create_server(("127.0.0.1", 0))
    given = []

    def run():
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                seen = b""
                while b"messages" not in seen:
                    seen += connection.recv(65536)
                connection.sendall(given[0])
                connection.shutdown(socket.SHUT_WR)
                connection.recv(1)

    thread = threading.Thread(target=run)
    thread.start()
    yield lambda data: given.append(data) or f"http://127.0.0.1:{server.getsockname()[1]}/v1/"
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join(10)


ONCE = RecoveryPolicy(attempts=1)


@pytest.mark.parametrize("name", ANSWERS)
def test_a_body_when_blocking(name, serve):
    data, expected = ANSWERS[name]
    with Client(base_url=serve(data), api_key="k", recovery=ONCE) as client:
        try:
            with client.stream("openai/m", "hi") as stream:
                got = "".join(stream.text)
        except UnbrokenError as error:
            got = type(error).__name__

    assert got == expected


@pytest.mark.parametrize("name", ANSWERS)
def test_a_body_when_awaited(name, serve):
    data, expected = ANSWERS[name]

    async def ask():
        async with AsyncClient(base_url=serve(data), api_key="k", recovery=ONCE) as client:
            try:
                async with client.stream("openai/m", "hi") as stream:
                    return "".join([text async for text in stream.text])
            except UnbrokenError as error:
                return type(error).__name__

    assert asyncio.run(ask()) == expected
