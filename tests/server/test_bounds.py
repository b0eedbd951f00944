"""What anybody may send is bounded: names in the figures, names of files, messages of a socket."""

import json

import pytest
from test_leaving import until
from test_streams import ASK, SCENARIOS, Site
from websockets.sync.client import connect

from unbroken import AsyncClient
from unbroken.server.gateway import Gateway
from unbroken.server.settings import Settings
from unbroken.simulator.transport import AsyncSimulatorTransport
from unbroken.stores.memory import MemoryStore

MAX_BODY = 1000


def gateway(serve, **settings):
    transport = AsyncSimulatorTransport(SCENARIOS, real_time=True)
    client = AsyncClient(api_key="k", transport=transport)
    made = Gateway(MemoryStore(), client=client, settings=Settings(**settings))
    return Site(serve(made), transport)


def figures(site):
    return site.call("GET", "/metrics")[1].decode()


def ended(site):
    """How many answers are over, by the figures."""
    lines = figures(site).splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("unbroken_answers_t"))


def test_names_that_callers_make_up_do_not_stay_in_the_figures(serve):
    site = gateway(serve, simulator="open")
    for name in ("quick", f"made-up?ttft=0&tps=0&tokens=3&text={'q' * 500}", "x" * 4000):
        site.json("POST", "/v1/chat/completions", {"model": f"sim/{name}", **ASK})
    site.json("POST", "/v1/chat/completions", {"model": "sim/never?nonsense", **ASK})
    until(lambda: ended(site) == 4)
    page = figures(site)

    assert 'unbroken_answers_total{model="quick",provider="sim",state="complete"} 1.0' in page
    assert 'unbroken_attempts_total{model="made-up",outcome="ok",provider="sim"} 1.0' in page
    assert 'unbroken_answers_total{model="other",provider="sim",state="failed"} 1.0' in page
    assert "never" not in page
    assert max(map(len, page.splitlines())) < 300


@pytest.mark.parametrize("name", ["%00", "x" * 300 + ".js", "%2e%2e/gateway.py", "", "%ff.js"])
def test_a_file_that_is_not_of_the_page_is_not_found(serve, name):
    site = gateway(serve)

    assert site.call("GET", f"/page/{name}")[0] == 404


def test_a_message_is_as_long_as_a_body_at_most(serve):
    site = gateway(serve, max_body=MAX_BODY)
    long = {"model": "sim/quick", "messages": [{"role": "user", "content": "ä" * MAX_BODY}]}
    refused = site.json("POST", "/v1/chat/completions", long)[1]["error"]
    with connect(site.url.replace("http", "ws") + "/ws") as socket:
        wish = {"type": "start", "request": long}
        socket.send(json.dumps(wish, ensure_ascii=False))
        told = json.loads(socket.recv(10))
        exact = {"type": "start", "request": {"model": "sim/quick", **ASK}, "ref": ""}
        exact["ref"] = "r" * (MAX_BODY - len(json.dumps(exact)))
        socket.send(json.dumps(exact))
        begun = json.loads(socket.recv(10))

    assert refused["code"] == "request_too_large"
    assert (told["type"], told["error"]) == ("error", refused)
    assert (begun["type"], begun["ref"]) == ("started", exact["ref"])
