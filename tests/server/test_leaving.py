"""Stop, a closed tab and a tunnel: three things that look alike, with three outcomes."""

import http.client
import json
import threading
import time
from urllib.parse import urlsplit

import anthropic
import openai
import pytest
from test_streams import ASK, SCENARIOS, Site, event_source, spoken, text

from unbroken import AsyncClient
from unbroken.server.gateway import Gateway
from unbroken.server.settings import Settings
from unbroken.simulator.transport import AsyncSimulatorTransport
from unbroken.stores.memory import MemoryStore
from unbroken.stores.sqlite import SqliteStore

GRACE = 0.6


def gateway(serve, store, **settings):
    transport = AsyncSimulatorTransport(SCENARIOS, real_time=True)
    client = AsyncClient(api_key="k", transport=transport)
    return Site(serve(Gateway(store, client=client, settings=Settings(**settings))), transport)


@pytest.fixture
def site(serve):
    return gateway(serve, MemoryStore(), grace=GRACE)


def until(true, seconds=10):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def leave_early(site, path, body):
    """Post a question, read a little of its answer, and go. The answer's id."""
    connection = http.client.HTTPConnection(urlsplit(site.url).netloc, timeout=10)
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    answer.read1(100)
    stream = answer.headers["x-unbroken-stream"]
    answer.close()
    connection.close()
    return stream


def ended(site, stream):
    """How the answer has ended: its state, and why it was cancelled."""
    until(lambda: site.json("GET", f"/v1/streams/{stream}")[1]["state"] != "open")
    final = site.json("GET", f"/v1/streams/{stream}")[1]["final"]
    return final["state"], final.get("reason", "")


CHAT = ("/v1/chat/completions", {"stream": True})
MESSAGES = ("/v1/messages", {"stream": True, "max_tokens": 9000})
RESPONSES = ("/v1/responses", {"stream": True, "input": "Hi"})


@pytest.mark.parametrize(("path", "extra"), [CHAT, MESSAGES, RESPONSES])
@pytest.mark.parametrize(
    ("wish", "end"),
    [
        ({}, ("cancelled", "left")),
        ({"on_disconnect": "grace", "grace": 0.2}, ("cancelled", "left")),
        ({"on_disconnect": "cancel"}, ("cancelled", "left")),
        ({"on_disconnect": "keep"}, ("complete", "")),
    ],
)
def test_the_policy_decides_what_a_closed_tab_means(site, path, extra, wish, end):
    question = {} if "input" in extra else ASK
    stream = leave_early(site, path, {"model": "sim/slow", **question, **extra, **wish})

    assert ended(site, stream) == end
    assert site.upstream.log[0].ended == ("whole" if end[0] == "complete" else "client left")


def test_the_default_is_a_setting(serve):
    site = gateway(serve, MemoryStore(), on_disconnect="keep")
    stream = leave_early(site, CHAT[0], {"model": "sim/slow", **ASK, "stream": True})

    assert ended(site, stream) == ("complete", "")


def test_the_policy_stands_in_the_query_where_there_is_no_body(site):
    path = "/stream?prompt=x&model=sim/slow&on_disconnect="
    event_source(site, f"{path}cancel", stop=2)
    until(lambda: site.upstream.log[0].ended == "client left")
    event_source(site, f"{path}keep", stop=2)
    until(lambda: site.upstream.log[1].ended == "whole")


def test_a_reader_out_of_a_tunnel_goes_on(site):
    stream = leave_early(site, CHAT[0], {"model": "sim/slow", **ASK, "stream": True})
    time.sleep(GRACE / 3)
    frames = site.follow(stream)

    assert json.loads(frames[-1].data)["state"] == "complete"
    assert text(frames) == site.json("GET", f"/v1/streams/{stream}")[1]["text"]


def test_a_reader_who_comes_back_elsewhere_counts(serve, tmp_path):
    file = str(tmp_path / "answers.db")
    here = gateway(serve, SqliteStore(file), grace=2.0)  # the answer takes twice as long
    there = gateway(serve, SqliteStore(file), grace=2.0)
    stream = leave_early(here, CHAT[0], {"model": "sim/long", **ASK, "stream": True})
    frames = there.follow(stream)

    assert json.loads(frames[-1].data)["state"] == "complete"
    assert here.upstream.log[0].ended == "whole"
    assert there.upstream.log == []


def test_an_answer_nobody_reads_elsewhere_either_is_stopped(serve, tmp_path):
    file = str(tmp_path / "answers.db")
    here = gateway(serve, SqliteStore(file), grace=GRACE)
    there = gateway(serve, SqliteStore(file), grace=GRACE)
    stream = leave_early(here, CHAT[0], {"model": "sim/endless", **ASK, "stream": True})
    time.sleep(GRACE / 2)
    there.follow(stream, stop=20)

    assert ended(there, stream) == ("cancelled", "left")
    assert here.upstream.log[0].ended == "client left"


def stopped_soon(site, stream):
    threading.Timer(0.3, lambda: site.call("DELETE", f"/v1/streams/{stream}")).start()


def test_a_stop_is_told_by_the_openai_dialect(site):
    with openai.OpenAI(api_key="x", base_url=f"{site.url}/v1", max_retries=0) as client:
        ask = client.chat.completions.with_raw_response.create
        raw = ask(model="sim/endless", messages=ASK["messages"], stream=True)
        stopped_soon(site, raw.headers["x-unbroken-stream"])
        with pytest.raises(openai.APIError, match="the answer was stopped"):
            list(raw.parse())


def test_a_stop_is_told_by_the_anthropic_dialect(site):
    with anthropic.Anthropic(api_key="x", base_url=site.url, max_retries=0) as client:
        ask = client.messages.with_raw_response.create
        raw = ask(model="sim/endless", messages=ASK["messages"], stream=True, max_tokens=9000)
        stopped_soon(site, raw.headers["x-unbroken-stream"])
        with pytest.raises(anthropic.APIError, match="the answer was stopped"):
            list(raw.parse())


def test_a_stop_is_told_to_an_event_source(site):
    _, first = event_source(site, "/stream?prompt=x&model=sim/endless", stop=3)
    stream = first[-1].id.rpartition(".")[0]
    stopped_soon(site, stream)
    _, rest = event_source(site, "/stream", last=first[-1].id)

    assert [frame.event for frame in rest][-2:] == ["error", ""]
    assert "the answer was stopped" in rest[-2].data.decode()
    assert ended(site, stream) == ("cancelled", "stopped")
    assert len(site.upstream.log) == 1


def test_a_stopped_whole_answer_is_an_error_and_not_half_an_answer(site):
    said = []
    body = {"model": "sim/endless", **ASK}
    thread = threading.Thread(target=lambda: said.append(site.json("POST", CHAT[0], body)))
    thread.start()
    until(lambda: site.json("GET", "/v1/streams?closed=false")[1]["data"])
    open_ = site.json("GET", "/v1/streams?closed=false")[1]["data"]
    site.call("DELETE", f"/v1/streams/{open_[0]['id']}")
    thread.join(10)

    assert said[0][0] == 499
    assert said[0][1]["error"]["message"] == "the answer was stopped"


def test_a_browser_that_is_cut_off_before_the_first_word_asks_for_no_second_answer(site):
    connection = http.client.HTTPConnection(urlsplit(site.url).netloc, timeout=10)
    connection.request("GET", "/stream?prompt=x&model=sim/late")
    with connection.getresponse() as answer:
        head = answer.read1(65536).decode()
    connection.close()
    id = next(line for line in head.splitlines() if line.startswith("id: ")).removeprefix("id: ")
    _, frames = event_source(site, "/stream", last=id)

    assert spoken(frames)
    assert len(site.upstream.log) == 1


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"on_disconnect": "perhaps"}, "on_disconnect"),
        ({"on_disconnect": 3}, "on_disconnect"),
        ({"grace": -1}, "grace"),
        ({"grace": "soon"}, "grace"),
        ({"fallbacks": "sim/demo"}, "fallbacks"),
        ({"fallbacks": [1]}, "fallbacks"),
    ],
)
def test_a_wrong_wish_is_told(site, wish, said):
    status, answer = site.json("POST", CHAT[0], {"model": "sim/quick", **ASK, **wish})

    assert status == 400
    assert said in answer["error"]["message"]
