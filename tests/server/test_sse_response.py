"""`sse(stream)` in one's own app, over real sockets."""

import contextlib
import json
import socket
import time
import urllib.request
from urllib.parse import urlsplit

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.routing import Route

from unbroken import AsyncClient, Client
from unbroken.server import sse
from unbroken.simulator.app import running
from unbroken.simulator.scenario import Fault, Scenario
from unbroken.simulator.transport import AsyncSimulatorTransport
from unbroken.wire.sse import SseDecoder

UPSTREAM = {
    "lines": Scenario(text="one\ntwo\r\n three\n\n", ttft=0.0, tps=0),
    "slow": Scenario(ttft=0.0, tps=20, tokens=600),
    "late": Scenario(ttft=0.5, tps=0, text="at last"),
    "mute": Scenario(faults=(Fault(kind="silent"),)),
    "cut": Scenario(text="one two three", ttft=0.0, tps=0, faults=(Fault(kind="cut", words=2),)),
}


@pytest.fixture
def upstream():
    with running(UPSTREAM) as url:
        yield url


def app(upstream):
    given = {"api_key": "k", "base_url": f"{upstream}/v1"}

    @contextlib.asynccontextmanager
    async def lifespan(app):
        with Client(**given) as app.state.sync:
            async with AsyncClient(**given) as app.state.aio:
                yield

    async def from_async(request):
        stream = request.app.state.aio.stream(f"openai/{request.path_params['model']}", "hi")
        return sse(stream, events=request.query_params.get("events", "text"), heartbeat=0.1)

    def from_sync(request):
        stream = request.app.state.sync.stream(f"openai/{request.path_params['model']}", "hi")
        return sse(stream, heartbeat=0.1)

    routes = [Route("/async/{model}", from_async), Route("/sync/{model}", from_sync)]
    return Starlette(routes=routes, lifespan=lifespan)


def got(url):
    with urllib.request.urlopen(url) as answer:
        return answer.headers, answer.read()


def data(body):
    return [(frame.event, frame.data.decode()) for frame in SseDecoder().feed(body)]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_text_comes_with_its_newlines_and_ends_with_done(serve, upstream, kind):
    headers, body = got(f"{serve(app(upstream))}/{kind}/lines")
    frames = data(body)

    assert "".join(text for _, text in frames[:-1]) == "one\ntwo\n three\n\n"
    assert frames[-1] == ("", "[DONE]")
    assert headers["content-type"].startswith("text/event-stream")
    assert headers["x-accel-buffering"] == "no"
    assert "no-transform" in headers["cache-control"]
    assert "content-length" not in headers


def test_every_event_as_json(serve, upstream):
    _, body = got(f"{serve(app(upstream))}/async/lines?events=json")
    kinds = [json.loads(text)["type"] for _, text in data(body)[:-1]]

    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_end"


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_silence_is_bridged_by_heartbeats(serve, upstream, kind):
    _, body = got(f"{serve(app(upstream))}/{kind}/late")

    assert body.count(b": keep-alive\n\n") >= 2
    assert "".join(text for _, text in data(body)) == "at last[DONE]"


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_failure_is_an_error_event_after_what_came(serve, upstream, kind):
    _, body = got(f"{serve(app(upstream))}/{kind}/cut")
    event, said = data(body)[-1]

    assert event == "error"
    assert json.loads(said)["error"]["type"] == "StreamInterrupted"
    assert "".join(text for _, text in data(body)[:-1]) == "one two"


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("model", ["slow", "mute"])
def test_a_reader_that_leaves_ends_the_providers_connection(serve, upstream, kind, model):
    address = urlsplit(serve(app(upstream)))
    with socket.create_connection((address.hostname, address.port)) as reader:
        reader.sendall(f"GET /{kind}/{model} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        assert b"200 OK" in reader.recv(100)
        time.sleep(0.2)
    for _ in range(250):
        with urllib.request.urlopen(f"{upstream}/log") as answer:
            ended = json.load(answer)[0]["ended"]
        if ended != "open":
            break
        time.sleep(0.02)

    assert ended == "client left"


def test_what_is_to_be_done_afterwards_is_done(serve):
    done = []

    async def stream(request):
        client = AsyncClient(api_key="k", transport=AsyncSimulatorTransport())
        response = sse(client.stream("openai/lines", "hi"))
        response.background = BackgroundTask(done.append, "billed")
        return response

    got(serve(Starlette(routes=[Route("/", stream)])))
    for _ in range(100):
        if done:
            break
        time.sleep(0.02)

    assert done == ["billed"]
