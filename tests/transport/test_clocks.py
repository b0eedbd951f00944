"""The clocks hold over real sockets: silence, drips that are no answer, and callers who are late."""

import asyncio
import contextlib
import json
import socket
import threading
import time

import pytest

from unbroken import AsyncClient, Client, RecoveryPolicy, TimedOut, Timeouts

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
ONCE = RecoveryPolicy(attempts=1, on_cut="raise")


def chunk(text="", finish=None):
    """One event, in a chunk of its own."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    data = b"data: %b\n\n" % json.dumps({"id": "a", "model": "m", "choices": [choice]}).encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


END = chunk(finish="stop") + b"0\r\n\r\n"


@pytest.fixture
def serve():
    """The URL of a server that does this with the one connection that it takes."""
    listening, threads = socket.create_server(("127.0.0.1", 0)), []

    def start(answer):
        def run():
            connection, _ = listening.accept()
            with connection, contextlib.suppress(OSError):
                seen = b""
                while b"messages" not in seen and b"CONNECT" not in seen:
                    seen += connection.recv(65536)
                answer(connection)

        threads.append(threading.Thread(target=run))
        threads[0].start()
        return f"http://127.0.0.1:{listening.getsockname()[1]}/v1"

    yield start
    for thread in threads:
        thread.join(20)
    listening.close()


# Bytes that come one at a time, and never make anything whole

GZIPPED = b"content-encoding: gzip\r\n"
NAMED = b"\x1f\x8b\x08\x08\0\0\0\0\0\0"  # gzip's head, with a file's name to follow
DRIPS = {
    "the headers": HEAD + b"x-a: ",
    "the size of a chunk": CHUNKED + b"5;",
    "the size of a compressed chunk": HEAD + GZIPPED + b"transfer-encoding: chunked\r\n\r\n5;",
    "the head of what is compressed": HEAD + GZIPPED + b"content-length: 9999\r\n\r\n" + NAMED,
}


class Drip:
    """So many bytes that whoever waits for their end waits for ten seconds."""

    def __init__(self, head):
        self.head, self.fell = head, 0

    def __call__(self, connection):
        connection.sendall(self.head)
        for _ in range(500):
            connection.sendall(b"a")
            self.fell += 1
            time.sleep(0.02)


TIGHT = Timeouts(connect=1, first_event=0.3)


def quick(**more):
    return {"api_key": "k", "recovery": ONCE, "timeouts": TIGHT, **more}


@pytest.mark.parametrize("where", DRIPS)
def test_a_drip_does_not_stop_the_clock_when_blocking(serve, where):
    drip = Drip(DRIPS[where])
    with Client(base_url=serve(drip), **quick()) as client:
        with pytest.raises(TimedOut, match="first_event"):
            list(client.stream("openai/m", "hi"))

        assert drip.fell < 500  # nobody waited for its end


@pytest.mark.parametrize("where", DRIPS)
def test_a_drip_does_not_stop_the_clock_when_awaited(serve, where):
    drip = Drip(DRIPS[where])

    async def ask():
        async with AsyncClient(base_url=serve(drip), **quick()) as client:
            async for _ in client.stream("openai/m", "hi"):
                pass

    with pytest.raises(TimedOut, match="first_event"):
        asyncio.run(ask())
    assert drip.fell < 500


def test_a_proxy_that_drips_does_not_stop_it_either(serve, monkeypatch):
    drip = Drip(b"HTTP/1.1 200 OK\r\nx-a: ")
    monkeypatch.setenv("HTTPS_PROXY", serve(drip).removesuffix("/v1"))
    with Client(base_url="https://far.example/v1", **quick()) as client:
        with pytest.raises(TimedOut):
            list(client.stream("openai/m", "hi"))

    assert drip.fell < 500


# No clock, or a caller who is late

FREE = Timeouts(first_event=0.5, idle=None)


def pausing(connection):
    connection.sendall(CHUNKED + chunk("one "))
    time.sleep(1)
    connection.sendall(chunk("two") + END)


def test_a_clock_that_is_off_does_not_tick_when_blocking(serve):
    with Client(base_url=serve(pausing), **quick(timeouts=FREE)) as client:
        with client.stream("openai/m", "hi") as stream:
            assert "".join(stream.text) == "one two"


def test_a_clock_that_is_off_does_not_tick_when_awaited(serve):
    async def ask():
        async with AsyncClient(base_url=serve(pausing), **quick(timeouts=FREE)) as client:
            async with client.stream("openai/m", "hi") as stream:
                return "".join([text async for text in stream.text])

    assert asyncio.run(ask()) == "one two"


HASTY = Timeouts(idle=0.2)


class InTwo:
    """The second half is there before it is asked for, and after the clock would have rung."""

    def __init__(self):
        self.begun, self.sent = threading.Event(), threading.Event()

    def __call__(self, connection):
        connection.sendall(CHUNKED + chunk("one "))
        assert self.begun.wait(10)
        connection.sendall(chunk("two") + END)
        time.sleep(0.5)
        self.sent.set()


def test_a_caller_who_is_late_gets_what_is_here_when_blocking(serve):
    server = InTwo()
    with Client(base_url=serve(server), **quick(timeouts=HASTY)) as client:
        stream = client.stream("openai/m", "hi")
        for _ in stream.batches():
            server.begun.set()
            assert server.sent.wait(10)

    assert stream.response.text == "one two"


def test_a_caller_who_is_late_gets_what_is_here_when_awaited(serve):
    server = InTwo()

    async def ask():
        async with AsyncClient(base_url=serve(server), **quick(timeouts=HASTY)) as client:
            stream = client.stream("openai/m", "hi")
            async for _ in stream.batches():
                server.begun.set()
                assert await asyncio.to_thread(server.sent.wait, 10)
            return stream.response.text

    assert asyncio.run(ask()) == "one two"


def test_a_reader_is_woken_on_a_connection_that_is_not_kept(serve):
    """http.client lets go of such a socket itself, as soon as the headers are read."""
    stuck = threading.Event()
    with Client(base_url=serve(lambda c: hold(c, stuck)), **quick(timeouts=FREE)) as client:
        stream = client.stream("openai/m", "hi")
        reading = threading.Thread(target=lambda: list(stream), daemon=True)
        reading.start()
        assert stuck.wait(10)
        stream.abort()
        reading.join(10)

        assert not reading.is_alive()
    assert stream.response.end == "cancelled"


def hold(connection, stuck):
    closing = CHUNKED.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
    connection.sendall(closing + chunk("one "))
    time.sleep(0.3)  # until the reader waits for more
    stuck.set()
    connection.recv(1)
