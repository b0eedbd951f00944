"""One client, one process: CPU microseconds per event on standard output.

    python benchmarks/one_client.py "unbroken sync" PORT

Each client does what its documentation shows for a stream and counts the events.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable

from upstream import EVENTS

ROUNDS = 6
MESSAGES = [{"role": "user", "content": "hi"}]
BODY = b'{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"hi"}]}'


def raw_socket(port: int) -> Callable[[], int]:
    """Nothing but reading the bytes."""
    import socket

    head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(BODY)

    def ask() -> int:
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(head + BODY)
            last = b""
            while not last.endswith(b"0\r\n\r\n"):
                last = sock.recv(65536)
        return EVENTS

    return ask


def urllib3(port: int) -> Callable[[], int]:
    """The bare HTTP library under our sync client."""
    import urllib3

    pool = urllib3.PoolManager()

    def ask() -> int:
        url = f"http://127.0.0.1:{port}/v1"
        response = pool.urlopen("POST", url, body=BODY, preload_content=False)
        while response.read1(65536):
            pass
        response.release_conn()
        return EVENTS

    return ask


def aiohttp(port: int) -> Callable[[], Awaitable[int]]:
    """The bare HTTP library under our async client."""
    import aiohttp

    async def ask() -> int:
        url = f"http://127.0.0.1:{port}/v1"
        async with aiohttp.ClientSession() as session, session.post(url, data=BODY) as response:
            while await response.content.readany():
                pass
        return EVENTS

    return ask


def unbroken_sync(port: int) -> Callable[[], int]:
    """Ours."""
    from unbroken import Client

    client = Client(base_url=f"http://127.0.0.1:{port}/v1", api_key="x")

    def ask() -> int:
        with client.stream("openai/gpt-4o", "hi") as stream:
            return sum(1 for _ in stream)

    return ask


def unbroken_async(port: int) -> Callable[[], Awaitable[int]]:
    """Ours, awaited."""
    from unbroken import AsyncClient

    client = AsyncClient(base_url=f"http://127.0.0.1:{port}/v1", api_key="x")

    async def ask() -> int:
        count = 0
        async with client.stream("openai/gpt-4o", "hi") as stream:
            async for _ in stream:
                count += 1
        return count

    return ask


def openai_sync(port: int) -> Callable[[], int]:
    """The official SDK."""
    from openai import OpenAI

    client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="x")

    def ask() -> int:
        chunks = client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True)
        return sum(1 for _ in chunks)

    return ask


def openai_async(port: int) -> Callable[[], Awaitable[int]]:
    """The official SDK, awaited."""
    from openai import AsyncOpenAI

    client = AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="x")

    async def ask() -> int:
        count = 0
        chunks = client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True)
        async for _ in await chunks:
            count += 1
        return count

    return ask


def litellm_sync(port: int) -> Callable[[], int]:
    """LiteLLM's completion()."""
    import litellm

    def ask() -> int:
        base = f"http://127.0.0.1:{port}/v1"
        chunks = litellm.completion(
            "openai/gpt-4o", MESSAGES, stream=True, api_base=base, api_key="x"
        )
        return sum(1 for _ in chunks)

    return ask


def litellm_async(port: int) -> Callable[[], Awaitable[int]]:
    """LiteLLM's acompletion()."""
    import litellm

    async def ask() -> int:
        base = f"http://127.0.0.1:{port}/v1"
        chunks = await litellm.acompletion(
            "openai/gpt-4o", MESSAGES, stream=True, api_base=base, api_key="x"
        )
        count = 0
        async for _ in chunks:
            count += 1
        return count

    return ask


def measure(name: str, port: int) -> float:
    """Warm up with one answer, then CPU microseconds per event over the rounds."""
    ask = globals()[name.replace(" ", "_")](port)
    loop = asyncio.new_event_loop()

    def once() -> int:
        asked = ask()
        return asked if isinstance(asked, int) else loop.run_until_complete(asked)

    once()
    begin = time.process_time()
    events = sum(once() for _ in range(ROUNDS))
    return (time.process_time() - begin) / events * 1e6


if __name__ == "__main__":
    print(measure(sys.argv[1], int(sys.argv[2])))
