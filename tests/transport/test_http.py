"""Real HTTP: connections that serve again, close at once, and fail as ours."""

import asyncio
import json
import socket
import time
import urllib.request

import pytest

from unbroken import AsyncClient, Client, ConnectFailed, TimedOut, Timeouts
from unbroken.simulator.app import running
from unbroken.transport.http_sync import HttpTransport


@pytest.fixture(scope="module")
def server():
    with running() as url:
        yield url


def log(url, model):
    with urllib.request.urlopen(f"{url}/log") as answer:
        return [entry for entry in json.load(answer) if entry["model"] == model]


def ended(url, model):
    """How the last answer ended, once the server has noticed."""
    for _ in range(100):
        entry = log(url, model)[-1]
        if entry["ended"] != "open":
            return entry["ended"]
        time.sleep(0.05)
    return "open"


def test_a_whole_answer_leaves_its_connection_for_the_next(server):
    transport = HttpTransport()
    with Client(base_url=f"{server}/v1", api_key="k", transport=transport) as client:
        for _ in range(3):
            with client.stream("openai/reuse?ttft=0&tps=0", "hi") as stream:
                assert "".join(stream.text) == stream.response.text != ""
        pool = transport._direct.connection_from_url(server)

    assert pool.num_connections == 1
    assert pool.num_requests == 3


def test_leaving_the_block_closes_the_connection_upstream(server):
    with Client(base_url=f"{server}/v1", api_key="k") as client:
        with client.stream("openai/left?ttft=0&tps=20&tokens=500", "hi") as stream:
            next(iter(stream.text))

        assert ended(server, "left") == "client left"


def test_a_cancelled_task_closes_the_connection_upstream(server):
    async def ask(model, seconds):
        async with AsyncClient(base_url=f"{server}/v1", api_key="k") as client:
            async with client.stream(f"openai/{model}", "hi") as stream:
                async with asyncio.timeout(seconds):
                    async for _ in stream:
                        pass

    for model in ("task?ttft=0&tps=20&tokens=500", "waiting?ttft=60"):
        with pytest.raises(TimeoutError):
            asyncio.run(ask(model, 0.3))

    assert ended(server, "task") == "client left"
    assert ended(server, "waiting") == "client left"


def test_dropping_the_stream_closes_the_connection_upstream(server):
    with Client(base_url=f"{server}/v1", api_key="k") as client:
        for _ in client.stream("openai/dropped?ttft=0&tps=20&tokens=500", "hi").text:
            break

        assert ended(server, "dropped") == "client left"


def closed_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def test_nobody_listening_is_connect_failed():
    with Client(base_url=f"http://127.0.0.1:{closed_port()}/v1", api_key="k") as client:
        with pytest.raises(ConnectFailed, match="refused"):
            client.complete("openai/m", "hi")


def test_nobody_listening_is_connect_failed_when_awaited():
    async def ask():
        async with AsyncClient(
            base_url=f"http://127.0.0.1:{closed_port()}/v1", api_key="k"
        ) as client:
            await client.complete("openai/m", "hi")

    with pytest.raises(ConnectFailed):
        asyncio.run(ask())


def test_a_silent_server_runs_into_the_first_event_clock(server):
    timeouts = Timeouts(first_event=0.3, total=0.5)
    with Client(base_url=f"{server}/v1", api_key="k", timeouts=timeouts) as client:
        with pytest.raises(TimedOut) as caught:
            list(client.stream("openai/m?fault=silent", "hi"))

    assert caught.value.phase in ("first_event", "total")


@pytest.mark.parametrize("model", ["openai/gpt-4o", "anthropic/claude-haiku-5-5"])
def test_streamed_and_whole_answers_say_the_same(server, model):
    url = {"openai": f"{server}/v1", "anthropic": server}

    async def both():
        async with AsyncClient(base_url=url, api_key="k") as client:
            async with client.stream(f"{model}?ttft=0&tps=0", "hello cats") as stream:
                text = "".join([piece async for piece in stream.text])
            return text, await client.complete(f"{model}?ttft=0&tps=0", "hello cats")

    text, whole = asyncio.run(both())
    with Client(base_url=url, api_key="k") as client:
        again = client.complete(f"{model}?ttft=0&tps=0", "hello cats")

    assert text == whole.text == again.text
    assert whole.usage == again.usage
    assert whole.end == "complete"
