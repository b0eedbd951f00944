"""`durable_sse(gateway, ...)` in one's own app, with the app's own users."""

import json
import urllib.error
import urllib.request

import pytest
from frames import frames_of
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount, Route

from unbroken import AsyncClient
from unbroken.errors import LocalProtocolError
from unbroken.server import Gateway, durable_sse
from unbroken.simulator.scenario import Fault, Scenario
from unbroken.simulator.transport import AsyncSimulatorTransport
from unbroken.stores.memory import MemoryStore

SCENARIOS = {
    "slow": Scenario(ttft=0.02, tps=150, tokens=60),
    "down": Scenario(faults=(Fault(kind="status", status=503),)),
}


async def who(connection):
    return connection.headers.get("x-user")


class Site:
    """An app of one's own with the gateway under /llm."""

    def __init__(self, serve):
        self.upstream = AsyncSimulatorTransport(SCENARIOS, real_time=True)
        client = AsyncClient(api_key="k", transport=self.upstream)
        self.gateway = Gateway(MemoryStore(), client=client, authenticate=who)
        routes = [Route("/ask/{model}", self.ask), Mount("/llm", self.gateway)]
        self.url = serve(Starlette(routes=[*routes, Route("/wrong", self.wrong)]))

    async def ask(self, request):
        models = [f"sim/{name}" for name in request.path_params["model"].split(",")]
        return await durable_sse(
            self.gateway,
            request,
            models,
            request.query_params["q"],
            system="Be kind.",
            max_tokens=90,
        )

    async def wrong(self, request):
        try:
            return await durable_sse(self.gateway, request, "sim/slow", "Hi", hedge_after=1.0)
        except LocalProtocolError as error:
            return Response(str(error), 418)

    def open(self, path, user="ada", **headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        signed = {"x-user": user} if user else {}
        asked = urllib.request.Request(self.url + path, headers={**signed, **named})
        return urllib.request.urlopen(asked, timeout=20)

    def get(self, path, stop=None, **headers):
        """The frames that have data; leaves after `stop` of them."""
        return frames_of(self.open(path, **headers), stop)

    def refused(self, path, **headers):
        with pytest.raises(urllib.error.HTTPError) as caught:
            self.open(path, **headers)
        with caught.value as error:
            return error.code, error.read().decode()


@pytest.fixture
def site(serve):
    return Site(serve)


def text(frames):
    return "".join(frame.data.decode() for frame in frames if frame.data != b"[DONE]")


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_whoever_comes_back_gets_the_rest_and_pays_once(site, cut):
    first = site.get("/ask/slow?q=cats", stop=cut)
    last = first[-1].id
    rest = site.get("/ask/slow?q=dogs", last_event_id=last)
    again = site.get(f"/ask/slow?q=dogs&last_event_id={last.split('.')[0]}.0")

    assert text(first) + text(rest) == text(again) != ""
    assert rest[-1].data == again[-1].data == b"[DONE]"
    assert len(site.upstream.log) == 1


def test_the_header_goes_over_the_address(site):
    """A browser that reconnects by itself asks under the address that it had."""
    first = site.get("/ask/slow?q=cats", stop=5)
    address = f"/ask/slow?q=cats&last_event_id={first[0].id.split('.')[0]}.0"
    rest = site.get(address, last_event_id=first[-1].id)

    assert text(first) + text(rest) == text(site.get(address))


def test_a_finished_answer_makes_the_browser_stop(site):
    frames = site.get("/ask/slow?q=cats")

    assert site.get("/ask/slow?q=cats", last_event_id=frames[-1].id) == []


def test_who_stands_in(site):
    assert text(site.get("/ask/down,slow?q=cats"))


def test_an_answer_belongs_to_its_user_by_any_road(site):
    stream = site.get("/ask/slow?q=cats")[-1].id.split(".")[0]
    with site.open("/llm/v1/streams") as mine, site.open("/llm/v1/streams", user="eve") as others:
        lists = [json.loads(answer.read())["data"] for answer in (mine, others)]

    assert [[one["id"] for one in found] for found in lists] == [[stream], []]
    assert site.refused("/ask/slow?q=cats", user="eve", last_event_id=f"{stream}.0")[0] == 404
    assert site.refused(f"/llm/v1/streams/{stream}", user="eve")[0] == 404


@pytest.mark.parametrize("path", ["/ask/slow?q=cats", "/llm/stream?prompt=cats", "/llm/v1/streams"])
def test_who_is_not_signed_in_gets_nothing(site, path):
    status, said = site.refused(path, user="")

    assert status == 401
    assert json.loads(said)["error"]["message"] == "Not authenticated."
    assert site.upstream.log == []


def test_a_question_without_words(site):
    status, said = site.refused("/ask/slow?q=")

    assert status == 400
    assert "the prompt is empty" in said


def test_what_belongs_to_the_client_is_refused(site):
    assert site.refused("/wrong") == (418, "hedge_after: for the gateway's client, not an answer")
