"""The sixteen faults of failoverbench through a gateway, over sockets; see engine/test_failover."""

import urllib.error
import urllib.request

import msgspec
import pytest

from unbroken import AsyncClient, RecoveryPolicy
from unbroken.server.gateway import Gateway
from unbroken.simulator.app import running
from unbroken.simulator.scenario import Fault, Scenario
from unbroken.stores.memory import MemoryStore

TEXT = "The answer is sixty words long, " + " ".join(f"word{n}" for n in range(54))


def played(*faults, **given):
    return Scenario(text=TEXT, faults=faults, **{"ttft": 0.0, "tps": 2000, **given})


def status(code, **given):
    return Fault(kind="status", status=code, **given)


FAULTS = {
    "s01": played(status(429, retry_after=0.2, times=1)),
    "s02": played(status(429)),
    "s03": played(status(500, times=1)),
    "s04": played(status(503)),
    "s05": played(Fault(kind="refuse", times=1)),
    "s06": played(Fault(kind="silent")),
    "s07": played(ttft=20.0),
    "s08": played(Fault(kind="cut", words=40)),
    "s09": played(Fault(kind="stall", words=20, seconds=30.0)),
    "s10": played(Fault(kind="garble", events=10)),
    "s11": played(Fault(kind="no_done")),
    "s12": played(status(400, type="context_length_exceeded")),
    "s13": played(status(400, type="content_filter")),
    "s14": played(Fault(kind="cut", words=40)),
    "s15": played(status(503, times=4)),
    "s16": played(status(503)),
}


@pytest.fixture(scope="module")
def upstream():
    well = {"well": played(), "no-prefill": played(prefill="refuse")}
    with running(FAULTS | well) as url:
        yield url


@pytest.fixture
def gateway(upstream, serve):
    routes = {name: [f"openai/{name}", "openai/no-prefill"] for name in FAULTS}
    # The defaults, but for waits that would take this test ten seconds each.
    recovery = RecoveryPolicy(fallback_after=0.4, backoff=0.05)
    client = AsyncClient(
        api_key="k", base_url={"openai": f"{upstream}/v1"}, routes=routes, recovery=recovery
    )
    return serve(Gateway(MemoryStore(), client=client))


def ask(gateway, model):
    """The text and the finish reason that a client of the gateway gets, and the model it names."""
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "why?"}]}
    request = urllib.request.Request(
        f"{gateway}/v1/chat/completions",
        msgspec.json.encode(body),
        {"content-type": "application/json"},
    )
    text, finish, name = "", None, ""
    with urllib.request.urlopen(request, timeout=30) as response:
        for line in response:
            if not line.startswith(b"data: {"):
                continue
            chunk = msgspec.json.decode(line[6:])
            assert "error" not in chunk, chunk
            for choice in chunk["choices"]:
                text += choice["delta"].get("content") or ""
                finish = choice.get("finish_reason") or finish
            name = chunk["model"]
    return text, finish, name


@pytest.mark.parametrize("name", [name for name in FAULTS if name not in ("s13", "s15")])
def test_the_gateway_answers_whole(gateway, name):
    text, finish, model = ask(gateway, name)

    assert text == TEXT
    assert finish == "stop"
    if name == "s16":
        assert model == "no-prefill"


def test_s13_a_content_filter_is_reported_and_not_retried(gateway):
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(gateway, "s13")

    with caught.value as error:
        assert error.code == 400


def test_s15_a_primary_that_flaps_is_taken_back(gateway):
    answers = [ask(gateway, "s15") for _ in range(4)]

    assert {text for text, _, _ in answers} == {TEXT}
