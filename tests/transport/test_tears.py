"""Connections that break behind words that had arrived: a reader who is late gets them all the same,
and they are not paid for twice.
"""

import asyncio
import json
import socket
import struct
import threading

import pytest

from unbroken import AsyncClient, Client, RecoveryPolicy
from unbroken.errors import StreamInterrupted

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(text="", finish=None):
    """One event, in a chunk of its own."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    data = b"data: %b\n\n" % json.dumps({"id": "a", "model": "m", "choices": [choice]}).encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


REST = b"".join([chunk(f"w{at} ") for at in range(50)]) + chunk(finish="stop")
DONE = b"e\r\ndata: [DONE]\n\n\r\n"
WORDS = "one " + "".join(f"w{at} " for at in range(50))
AUTO = RecoveryPolicy(backoff=0)


class Tearing:
    """A server whose answers are whole but for HTTP's own end: the connection is torn instead."""

    def __init__(self, rest, *, reset):
        self.asked, self.keeps = 0, False
        self.torn, self.heard, self.left = (threading.Event() for _ in range(3))
        self._rest, self._reset = rest, reset
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.settings = {
            "base_url": f"http://127.0.0.1:{self._listening.getsockname()[1]}/v1",
            "api_key": "k",
            "recovery": AUTO,
        }
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self):
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(10)

    def _run(self):
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.asked += 1
            with connection:
                self._answer(connection)
            self.torn.set()

    def _answer(self, connection):
        seen = b""
        while b"messages" not in seen:
            seen += connection.recv(65536)
        connection.sendall(HEAD + chunk("one "))
        assert self.heard.wait(10)
        connection.sendall(self._rest)
        if self.keeps and not connection.recv(1):
            self.left.set()
        if self._reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.fixture(params=[False, True], ids=["closed", "reset"])
def tearing(request):
    server = Tearing(REST + DONE, reset=request.param)
    yield server
    server.close()


def test_what_came_before_a_tear_is_read_when_blocking(tearing):
    with Client(**tearing.settings) as client:
        stream = client.stream("openai/m", "hi")
        for _ in stream.batches():
            tearing.heard.set()
            assert tearing.torn.wait(10)

    assert (stream.response.text, stream.response.end, tearing.asked) == (WORDS, "complete", 1)


def test_what_came_before_a_tear_is_read_when_awaited(tearing):
    async def ask():
        async with AsyncClient(**tearing.settings) as client:
            stream = client.stream("openai/m", "hi")
            async for _ in stream.batches():
                tearing.heard.set()
                await until_broken(stream)
            return stream.response

    response = asyncio.run(ask())

    assert (response.text, response.end, tearing.asked) == (WORDS, "complete", 1)


async def until_broken(stream):
    """Until aiohttp knows that the connection is gone, with the bytes still unread."""
    body = stream._driver._body
    for _ in range(1000):
        if body is None or body._content.exception() is not None:
            return
        await asyncio.sleep(0.01)


def test_the_break_itself_is_said_once_all_is_read(tearing):
    tearing._rest = REST[:900]  # in the middle of a chunk
    tearing.settings["recovery"] = RecoveryPolicy(on_cut="raise")

    async def ask():
        async with AsyncClient(**tearing.settings) as client:
            stream = client.stream("openai/m", "hi")
            with pytest.raises(StreamInterrupted):
                async for _ in stream.batches():
                    tearing.heard.set()
                    await until_broken(stream)
            return stream.response

    response = asyncio.run(ask())

    assert response.text.startswith("one w0 w1 ")
    assert response.end == "failed"


def test_a_task_that_is_cancelled_while_its_connection_lingers_closes_it(tearing):
    tearing.keeps = True

    async def ask():
        async with AsyncClient(**tearing.settings) as client:
            stream = client.stream("openai/m", "hi")
            reading = asyncio.create_task(read(stream))
            while not stream._driver.delivery.is_complete or stream._driver._body is not None:
                await asyncio.sleep(0)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            return await asyncio.to_thread(tearing.left.wait, 10)

    async def read(stream):
        async for _ in stream.batches():
            tearing.heard.set()

    assert asyncio.run(ask())
