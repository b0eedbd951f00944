"""Both transports read the same bytes alike: heads, lengths, chunks, codings and ends.

Each row is what a server sends, and what comes of it: a status and a body, or the body's beginning
and what the error says. RFC 9110 and 9112; early hints: RFC 8297.
"""

import asyncio
import gzip
import socket
import threading
import time
import zlib

import pytest

from unbroken.errors import ConnectionLost, TimedOut, TransportError
from unbroken.transport import compression
from unbroken.transport.base import Deadlines, HttpRequest
from unbroken.transport.http_async import AsyncHttpTransport
from unbroken.transport.http_sync import HttpTransport

OK = b"HTTP/1.1 200 OK\r\n"
TWO = b"content-length: 2\r\n"
HI = TWO + b"\r\nhi"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
RESET = "reset"
TEXT = b"data: hello\n\n" * 3


def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


def coded(name, data, length=b""):
    return OK + b"content-encoding: %b\r\n%b\r\n%b" % (name, length, data)


WHOLE = {
    "early hints": b"HTTP/1.1 103 Early Hints\r\nlink: </s.css>\r\n\r\n" + OK + HI,
    "many interim responses": b"HTTP/1.1 102 P\r\n\r\n" * 5 + b"HTTP/1.1 100 C\r\n\r\n" + OK + HI,
    "an interim response of a later standard": b"HTTP/1.1 199 X\r\n\r\n" + OK + HI,
    "a long header": OK + b"x: " + b"a" * 60_000 + b"\r\n" + HI,
    "many headers": OK + b"".join(b"x%d: v\r\n" % n for n in range(2000)) + HI,
    "a long reason": b"HTTP/1.1 200 " + b"O" * 9000 + b"\r\n" + HI,
    "no reason": b"HTTP/1.1 200\r\n" + HI,
    "no length": OK + b"\r\nhi",
    "a closing connection": OK + b"connection: close\r\n\r\nhi",
    "the length twice": OK + TWO + HI,
    "the length twice in one header": OK + b"content-length: 2, 2\r\n\r\nhi",
    "an empty length": OK + b"content-length: \r\n\r\nhi",
    "a length beside chunks": OK + TWO + b"transfer-encoding: chunked\r\n\r\n" + chunk(b"hi") + END,
    "chunks beside a wrong length": OK + b"transfer-encoding: chunked\r\ncontent-length: 200\r\n\r\n" + chunk(b"hi") + END,
    "chunks in capitals": OK + b"Transfer-Encoding: Chunked\r\n\r\n" + chunk(b"hi") + END,
    "chunks named twice": OK + b"transfer-encoding: chunked\r\n" * 2 + b"\r\n" + chunk(b"hi") + END,
    "the identity coding": OK + b"transfer-encoding: identity\r\n\r\nhi",
    "a compressed transfer": OK + b"transfer-encoding: gzip, chunked\r\n\r\n" + chunk(gzip.compress(b"hi")) + END,
    "extensions and trailers": CHUNKED + b"2;a=b\r\nhi\r\n0\r\nx: y\r\n\r\n",
    "a padded chunk size": CHUNKED + b"2  \r\nhi\r\n" + END,
    "garbage behind the length": OK + HI + b"GARBAGE",
    "garbage behind the chunks": CHUNKED + chunk(b"hi") + END + b"GARBAGE",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\nhi",
    "HTTP/1.0 with a length": b"HTTP/1.0 200 OK\r\n" + HI,
    "HTTP/1.0 in chunks": b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(b"hi") + END,
    "bare line feeds": b"HTTP/1.1 200 OK\ncontent-length: 2\n\nhi",
    "a folded header": OK + b"x: a\r\n b\r\n" + HI,
    "a line without a colon": OK + b"garbage\r\n" + HI,
    "space before the colon": OK + b"x : y\r\n" + HI,
    "an empty line first": b"\r\n" + OK + HI,
    "bytes beyond ASCII": OK + b"x: \xe9\xff\r\n" + HI,
    "an offer to upgrade": OK + b"upgrade: h2c\r\nconnection: upgrade\r\n" + HI,
}  # fmt: skip

COMPRESSED = {
    "gzip": coded(b"gzip", gzip.compress(TEXT)),
    "gzip in chunks": OK + b"content-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(gzip.compress(TEXT)) + END,
    "its old name": coded(b"x-gzip", gzip.compress(TEXT)),
    "in capitals": coded(b"GZIP", gzip.compress(TEXT)),
    "two members": coded(b"gzip", gzip.compress(TEXT[:13]) + gzip.compress(TEXT[13:])),
    "padding behind it": coded(b"gzip", gzip.compress(TEXT) + b"\0\0\0"),
    "gzip and identity": coded(b"gzip, identity", gzip.compress(TEXT)),
    "gzip twice": coded(b"gzip, gzip", gzip.compress(gzip.compress(TEXT))),
    "deflate": coded(b"deflate", zlib.compress(TEXT)),
    "deflate without its wrapper": coded(b"deflate", zlib.compress(TEXT)[2:-4]),
    "none": coded(b"none", TEXT),
    "identity": coded(b"identity", TEXT),
    "a charset": coded(b"utf-8", TEXT),
}  # fmt: skip

OTHER = {
    "no content": (b"HTTP/1.1 204 No Content\r\n" + HI, (204, b"", "")),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\n\r\n", (304, b"", "")),
    "another protocol": (b"HTTP/1.1 101 S\r\nconnection: upgrade\r\n\r\nhi", (101, b"", "")),
    "a redirect": (b"HTTP/1.1 302 F\r\nlocation: http://x/\r\n" + HI, (302, b"hi", "")),
    "a short length": (OK + b"content-length: 1\r\n\r\nhi", (200, b"h", "")),
    "a compressed nothing": (coded(b"gzip", b"", b"content-length: 0\r\n"), (200, b"", "")),
    "a length too long": (OK + b"content-length: 9\r\n\r\nhi", (200, b"hi", "after 2 of 9 bytes")),
    "two lengths": (OK + b"content-length: 1\r\n" + HI, (0, b"", "content-length is '1, 2'")),
    "a length in words": (OK + b"content-length: two\r\n\r\nhi", (0, b"", "is 'two'")),
    "a negative length": (OK + b"content-length: -2\r\n\r\nhi", (0, b"", "is '-2'")),
    "no last chunk": (CHUNKED + chunk(b"hi"), (200, b"hi", "in the middle")),
    "half a chunk": (CHUNKED + b"5\r\nhi", (200, b"hi", "in the middle")),
    "no chunk at all": (CHUNKED + b"zz\r\nhi", (0, b"", "malformed chunked")),
    "a chunk in C": (CHUNKED + b"0x2\r\nhi\r\n" + END, (0, b"", "malformed chunked")),
    "a chunk in Python": (CHUNKED + b"0_2\r\nhi\r\n" + END, (0, b"", "malformed chunked")),
    "an endless chunk": (CHUNKED + b"f" * 18 + b"\r\nhi", (0, b"", "malformed chunked")),
    "a chunk that is too long": (CHUNKED + b"2\r\nhix\r\n" + END, (200, b"hi", "longer than its size")),
    "garbage after a chunk": (CHUNKED + chunk(b"hi") + b"?\r\n", (200, b"hi", "malformed chunked")),
    "HTTP/2": (b"HTTP/2.0 200 OK\r\n" + HI, (0, b"", "no HTTP/1 response")),
    "no HTTP": (b"hello\r\n\r\n", (0, b"", "begins with b'hello'")),
    "nothing": (b"", (0, b"", "without a response")),
    "half a status line": (b"HTTP/1.", (0, b"", "in the headers")),
    "half the headers": (OK + b"x: y", (0, b"", "in the headers")),
    "headers without bounds": (OK + b"x: " + b"a" * 300_000, (0, b"", "larger than")),
    "a reset": ([OK + b"\r\nhi", RESET], (200, b"hi", "reset")),
    "half of what is compressed": (coded(b"gzip", gzip.compress(TEXT)[:-10]), (200, b"data: hello\n\nd", "in the middle of its gzip")),
    "no gzip, though promised": (coded(b"gzip", b"not gzip"), (200, b"", "malformed content-encoding gzip")),
    "codings without end": (coded(b"gzip," * 40, b"x"), (0, b"", "40 codings")),
}  # fmt: skip

ROWS = {
    **{name: (data, (200, b"hi", "")) for name, data in WHOLE.items()},
    **{name: (data, (200, TEXT, "")) for name, data in COMPRESSED.items()},
    **OTHER,
}


class Server:
    """Answers each connection with the next script: bytes to send, seconds to wait, or a reset."""

    def __init__(self, *scripts):
        self.accepted = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._scripts = scripts
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def request(self):
        url = f"http://127.0.0.1:{self._listening.getsockname()[1]}/v1"
        return HttpRequest("POST", url, {"accept-encoding": "identity"}, b"X")

    def _run(self):
        with self._listening:
            for script in self._scripts:
                connection, _ = self._listening.accept()
                self.accepted += 1
                with connection:
                    self._answer(connection, script)

    def _answer(self, connection, script):
        connection.settimeout(5)
        try:
            while not connection.recv(65536).endswith(b"X"):
                pass
            for step in [script] if isinstance(script, bytes) else script:
                if step == RESET:
                    time.sleep(0.05)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    return
                time.sleep(step) if isinstance(step, float) else connection.sendall(step)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)
        except OSError:
            return

    def close(self):
        self._thread.join(10)


def read_blocking(server):
    transport, answer, status, body, error = HttpTransport(), None, 0, b"", ""
    now = transport.now()
    try:
        answer = transport.open(server.request(), Deadlines(now + 5, now + 5))
        status = answer.status
        while data := answer.read(now + 5):
            body += data
    except TransportError as failure:
        error = str(failure)
    if answer:
        answer.close()
    transport.close()
    return status, body, error


async def read_awaiting(server):
    transport, answer, status, body, error = AsyncHttpTransport(), None, 0, b"", ""
    now = transport.now()
    try:
        answer = await transport.open(server.request(), Deadlines(now + 5, now + 5))
        status = answer.status
        while data := await answer.read(now + 5):
            body += data
    except TransportError as failure:
        error = str(failure)
    if answer:
        await answer.close()
    await transport.close()
    return status, body, error


def both(*scripts):
    """What comes of the scripts in each transport."""
    results = []
    for read in (read_blocking, lambda server: asyncio.run(read_awaiting(server))):
        server = Server(*scripts)
        results.append(read(server))
        server.close()
    return results


@pytest.mark.parametrize("name", ROWS)
def test_both_transports_read_the_same(name):
    script, (status, body, error) = ROWS[name]
    for found in both(script):
        if status:  # else a slow machine may show the headers first
            assert found[:2] == (status, body)
        assert error in found[2] if error else found[2] == ""


@pytest.mark.parametrize("size", [1, 7])
@pytest.mark.parametrize("name", ["early hints", "extensions and trailers", "gzip twice"])
def test_any_slicing_reads_the_same(name, size):
    script, expected = ROWS[name]
    pieces = [script[at : at + size] for at in range(0, len(script), size)]

    assert both(pieces) == [expected, expected]


@pytest.mark.parametrize(
    ("coding", "module", "function"),
    [(b"br", "brotli", "compress"), (b"zstd", "backports.zstd", "compress")],
)
def test_other_codings_are_read_where_their_package_is(coding, module, function):
    data = getattr(pytest.importorskip(module), function)(TEXT)

    assert both(coded(coding, data)) == [(200, TEXT, "")] * 2
    for status, _, error in both(coded(coding, data[:-5])):
        assert status == 200
        assert "in the middle" in error


def test_a_coding_whose_package_is_missing_is_named_with_its_remedy():
    with pytest.raises(ConnectionLost, match="'br', though no compression was asked for.*brotli"):
        compression._package("br", "brotli", "there_is_no_such_module")


def test_what_is_compressed_is_there_as_soon_as_it_was_flushed():
    packer = zlib.compressobj(wbits=31)
    first = packer.compress(b"data: one\n\n") + packer.flush(zlib.Z_SYNC_FLUSH)
    script = [coded(b"gzip", first), 0.5]
    transport, server = HttpTransport(), Server(script)
    now = transport.now()
    body = transport.open(server.request(), Deadlines(now + 5, now + 5))

    assert body.read(now + 5) == b"data: one\n\n"
    body.close()
    server.close()


def test_a_compressed_flood_comes_in_pieces():
    bomb = compression.Decompression(["gzip"])
    size, pieces = 0, [bomb.feed(gzip.compress(b"\0" * 20_000_000))]
    while bomb.pending:
        pieces.append(bomb.feed(b""))
    size = sum(map(len, pieces))
    bomb.eof()

    assert size == 20_000_000
    assert max(map(len, pieces)) <= 1024 * 1024


# Connections that serve again


REUSABLE = {
    "with a length": (OK + HI, True),
    "in chunks": (CHUNKED + chunk(b"hi") + END, True),
    "HTTP/1.0 that keeps it": (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n" + HI, True),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n" + HI, False),
    "told to close": (OK + b"connection: close\r\n" + HI, False),
    "two framings": (OK + TWO + b"transfer-encoding: chunked\r\n\r\n" + chunk(b"hi") + END, False),
    "garbage behind it": (OK + HI + b"HTTP/1.1 200 OK", False),
}


class Keeping(Server):
    """Keeps its connections and answers every request with the same bytes."""

    def _answer(self, connection, script):
        connection.settimeout(0.5)
        try:
            while data := connection.recv(65536):
                if data.endswith(b"X"):
                    connection.sendall(script)
        except OSError:
            return


@pytest.mark.parametrize("name", REUSABLE)
def test_a_connection_serves_again_when_both_sides_are_at_its_start(name):
    script, again = REUSABLE[name]
    for twice in (twice_blocking, lambda server: asyncio.run(twice_awaiting(server))):
        server = Keeping(*[script] * (1 if again else 2))
        twice(server)
        server.close()

        assert server.accepted == (1 if again else 2)


def twice_blocking(server):
    transport, request = HttpTransport(), server.request()
    for _ in range(2):
        body = transport.open(request, Deadlines())
        assert body.read(None) == b"hi"
        body.close(reusable=True)
    transport.close()


async def twice_awaiting(server):
    transport, request = AsyncHttpTransport(), server.request()
    for _ in range(2):
        body = await transport.open(request, Deadlines())
        assert await body.read(None) == b"hi"
        await body.close(reusable=True)
        await asyncio.sleep(0)
    await transport.close()


# A blocked event loop is not a silent server


def test_an_answer_that_came_while_the_loop_was_blocked_is_read():
    async def ask():
        transport, server = AsyncHttpTransport(), Server([0.1, OK + b"\r\n", 0.2, b"hi"])
        now = transport.now()
        asyncio.get_running_loop().call_later(0.05, time.sleep, 0.5)
        body = await transport.open(server.request(), Deadlines(now + 5, now + 0.3))
        asyncio.get_running_loop().call_later(0.01, time.sleep, 0.5)
        data = await body.read(transport.now() + 0.1)
        await body.close()
        await transport.close()
        server.close()
        return data

    assert asyncio.run(ask()) == b"hi"


# Connecting


def unanswered():
    """A port that drops every attempt to connect: its queue is full."""
    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    waiting = [socket.socket() for _ in range(4)]
    for one in waiting:
        one.setblocking(False)
        one.connect_ex(full.getsockname())
    return full, waiting


def connect_blocking(url):
    transport = HttpTransport()
    now = transport.now()
    transport.open(HttpRequest("POST", url, {}), Deadlines(now + 0.4, now + 9))


def connect_awaiting(url):
    async def ask():
        transport = AsyncHttpTransport()
        now = transport.now()
        try:
            await transport.open(HttpRequest("POST", url, {}), Deadlines(now + 0.4, now + 9))
        finally:
            await transport.close()

    asyncio.run(ask())


@pytest.mark.parametrize("connect", [connect_blocking, connect_awaiting])
def test_one_deadline_bounds_all_of_connecting(connect):
    full, waiting = unanswered()
    mute = socket.create_server(("127.0.0.1", 0))
    for url in (
        f"http://127.0.0.1:{full.getsockname()[1]}",
        f"https://127.0.0.1:{mute.getsockname()[1]}",
    ):
        begin = time.monotonic()
        with pytest.raises(TimedOut) as caught:
            connect(url)

        assert caught.value.phase == "connect"
        assert time.monotonic() - begin < 4
    for one in (full, mute, *waiting):
        one.close()
