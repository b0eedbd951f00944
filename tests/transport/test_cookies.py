"""What one key is told is said with no other: clients keep no cookies."""

import asyncio
import socket
import threading

import pytest

from unbroken import AsyncClient, Client

BODY = b'{"id":"1","choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}]}'
ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nset-cookie: session=mine; Path=/\r\n"
    b"connection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)
)
KEYS = {"openai": "key-a", "groq": "key-b"}


@pytest.fixture
def baker():
    """A server that gives everybody a cookie; its URL, and the requests it got."""
    listening, seen = socket.create_server(("127.0.0.1", 0)), []

    def run():
        for _ in KEYS:
            connection, _ = listening.accept()
            with connection:
                request = b""
                while b"messages" not in request:
                    request += connection.recv(65536)
                seen.append(request.lower())
                connection.sendall(ANSWER)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    # a name, since a jar takes no cookies from bare addresses
    url = f"http://localhost:{listening.getsockname()[1]}/v1"
    yield dict.fromkeys(KEYS, url), seen
    thread.join(10)
    listening.close()


def test_no_cookie_goes_from_one_key_to_another_when_blocking(baker):
    urls, seen = baker
    with Client(base_url=urls, api_key=KEYS) as client:
        for name in KEYS:
            client.complete(f"{name}/m", "hi")

    assert [b"\r\ncookie:" in request for request in seen] == [False, False]


def test_no_cookie_goes_from_one_key_to_another_when_awaited(baker):
    urls, seen = baker

    async def ask():
        async with AsyncClient(base_url=urls, api_key=KEYS) as client:
            for name in KEYS:
                await client.complete(f"{name}/m", "hi")

    asyncio.run(ask())

    assert [b"\r\ncookie:" in request for request in seen] == [False, False]
