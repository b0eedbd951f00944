"""Answers as resources, and for EventSource: followed, resumed, shared, stopped."""

import asyncio
import json
import threading
import time
import urllib.error
import urllib.request

import pytest
from frames import frames_of

from unbroken import AsyncClient
from unbroken.server.gateway import Gateway
from unbroken.server.settings import Settings
from unbroken.simulator.scenario import Fault, Scenario
from unbroken.simulator.transport import AsyncSimulatorTransport
from unbroken.stores.memory import MemoryStore

SCENARIOS = {
    "quick": Scenario(ttft=0.0, tps=0, tokens=40),
    "slow": Scenario(ttft=0.05, tps=100, tokens=100),
    "long": Scenario(ttft=0.05, tps=50, tokens=200),
    "late": Scenario(ttft=0.5, tps=0, tokens=20),
    "endless": Scenario(ttft=0.05, tps=20, tokens=2000),
    "down": Scenario(faults=(Fault(kind="status", status=503),)),
    "mute": Scenario(faults=(Fault(kind="silent"),)),
    "busy": Scenario(faults=(Fault(kind="status", status=503, retry_after=30.0),)),
    "lines": Scenario(text="one\ntwo\n\n three", ttft=0.0, tps=0),
}
ASK = {"messages": [{"role": "user", "content": "Tell me about cats."}]}


class Site:
    """A gateway, its upstream's log, and how to talk to it."""

    def __init__(self, url, transport):
        self.url, self.upstream = url, transport

    def call(self, method, path, body=None, **headers):
        data = None if body is None else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        asked = urllib.request.Request(self.url + path, data, named, method=method)
        try:
            with urllib.request.urlopen(asked, timeout=20) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def json(self, method, path, body=None, **headers):
        status, said = self.call(method, path, body, **headers)
        return status, json.loads(said)

    def start(self, model, **headers):
        return self.json("POST", "/v1/streams", {"model": f"sim/{model}", **ASK}, **headers)[1][
            "id"
        ]

    def follow(self, stream, after=0, stop=None):
        """The frames behind an offset; leaves after `stop` of them."""
        url = f"{self.url}/v1/streams/{stream}?after={after}"
        asked = urllib.request.Request(url, headers={"accept": "text/event-stream"})
        return frames_of(urllib.request.urlopen(asked, timeout=20), stop)


@pytest.fixture
def site(serve):
    transport = AsyncSimulatorTransport(SCENARIOS, real_time=True)
    client = AsyncClient(api_key="k", transport=transport)
    return Site(
        serve(
            Gateway(
                MemoryStore(),
                client=client,
                settings=Settings(grace=0.2, cors=["https://chat.example"]),
            )
        ),
        transport,
    )


def text(frames):
    events = [event for frame in frames if frame.event != "end" for event in json.loads(frame.data)]
    return "".join(event["text"] for event in events if event["type"] == "text_delta")


def test_an_answer_is_started_followed_and_read(site):
    stream = site.start("quick")
    frames = site.follow(stream)
    status, whole = site.json("GET", f"/v1/streams/{stream}")

    assert status == 200
    assert frames[-1].event == "end"
    assert json.loads(frames[-1].data)["state"] == whole["state"] == "complete"
    assert text(frames) == whole["text"] != ""
    assert whole["request"]["messages"] == ASK["messages"]
    assert whole["final"]["usage"]["output_tokens"] == 40


@pytest.mark.parametrize("stop", [1, 3, 9])
def test_whoever_comes_back_gets_the_rest_and_nothing_twice(site, stop):
    stream = site.start("slow")
    first = site.follow(stream, stop=stop)
    rest = site.follow(stream, after=first[-1].id)

    assert text(first) + text(rest) == text(site.follow(stream))
    assert rest[-1].event == "end"
    assert (
        site.call("GET", f"/v1/streams/{stream}?after={rest[-1].id}", accept="text/event-stream")[0]
        == 204
    )


def test_many_follow_one_answer_that_is_paid_for_once(site):
    stream, told = site.start("slow"), []
    threads = [
        threading.Thread(target=lambda: told.append(text(site.follow(stream)))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(told)) == 1
    assert told[0]
    assert len(site.upstream.log) == 1


def test_a_repeated_post_is_the_same_answer(site):
    body = {"model": "sim/quick", **ASK}
    first = site.json("POST", "/v1/streams", body, idempotency_key="a")
    again = site.json("POST", "/v1/streams", body, idempotency_key="a")
    other = site.json("POST", "/v1/streams", body, idempotency_key="b")

    assert (first[0], again[0]) == (201, 200)
    assert first[1]["id"] == again[1]["id"] != other[1]["id"]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("model", ["mute", "busy", "late"])
def test_stop_is_not_kept_waiting_by_the_provider(site, model):
    """For its headers, for the pause that it asked for, for its first word."""
    stream = site.start(model)
    time.sleep(0.2)
    site.call("DELETE", f"/v1/streams/{stream}")
    *_, end = site.follow(stream)  # a pause is told, too

    assert end.event == "end"
    assert json.loads(end.data)["state"] == "cancelled"


def test_stop_is_told_to_every_follower_and_closes_upstream(site):
    stream, frames = site.start("endless"), []
    thread = threading.Thread(target=lambda: frames.extend(site.follow(stream)))
    thread.start()
    time.sleep(0.3)
    site.call("DELETE", f"/v1/streams/{stream}")
    thread.join(10)

    assert frames[-1].event == "end"
    assert json.loads(frames[-1].data)["state"] == "cancelled"
    assert site.json("GET", f"/v1/streams/{stream}")[1]["state"] == "cancelled"
    assert site.upstream.log[0].ended == "client left"


def test_a_started_answer_is_finished_without_any_reader(site):
    stream = site.start("slow")
    for _ in range(200):
        if site.json("GET", f"/v1/streams/{stream}")[1]["state"] != "open":
            break
        time.sleep(0.02)

    assert site.json("GET", f"/v1/streams/{stream}")[1]["state"] == "complete"


def test_a_long_poll_waits_for_more(site):
    stream, after, said = site.start("slow"), 0, ""
    for _ in range(300):
        _, page = site.json("GET", f"/v1/streams/{stream}?after={after}&wait=5")
        said += "".join(e["text"] for e in page["events"] if e["type"] == "text_delta")
        after = page["next"]
        if page["state"] != "open" and not page["events"]:
            break

    assert said == site.json("GET", f"/v1/streams/{stream}")[1]["text"]


def test_ones_own_answers_are_listed(site):
    ids = [site.start("quick") for _ in range(3)]
    _, listed = site.json("GET", "/v1/streams?limit=2")
    _, rest = site.json("GET", f"/v1/streams?limit=2&before={listed['next']}")

    assert [s["id"] for s in listed["data"] + rest["data"]] == ids[::-1]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v1/streams/ans_none", None, 404),
        ("DELETE", "/v1/streams/ans_none", None, 404),
        ("POST", "/v1/streams", {"model": "nobody/x", **ASK}, 404),
        ("POST", "/v1/streams", {"model": "sim/quick"}, 400),
        ("GET", "/stream", None, 400),
        ("GET", "/nothing", None, 404),
        ("PUT", "/v1/streams", {}, 405),
        ("GET", "/v1/streams?closed=perhaps", None, 400),
        ("GET", "/v1/streams?limit=many", None, 400),
        ("GET", "/stream?prompt=hi&model=nobody/x", None, 404),
    ],
)
def test_wrong_input_is_told(site, method, path, body, status):
    got, said = site.json(method, path, body)

    assert got == status
    assert said["error"]["message"]


def test_a_wrong_offset_is_told(site):
    stream = site.start("quick")
    site.follow(stream)

    assert site.json("GET", f"/v1/streams/{stream}?after=x")[0] == 400
    assert site.json("GET", f"/v1/streams/{stream}?after=99999")[0] == 400
    open_ = site.start("endless")
    followed = {"accept": "text/event-stream"}
    assert site.json("GET", f"/v1/streams/{open_}?after=99999", **followed)[0] == 400
    assert site.json("GET", "/stream", last_event_id=f"{open_}.99999")[0] == 400
    site.call("DELETE", f"/v1/streams/{open_}")


def test_pages_of_allowed_sites_may_ask(site):
    asked = urllib.request.Request(
        f"{site.url}/v1/models", headers={"origin": "https://chat.example"}
    )
    with urllib.request.urlopen(asked) as answer:
        assert answer.headers["access-control-allow-origin"] == "https://chat.example"
    assert site.call("GET", "/v1/models", origin="https://evil.example")[0] == 403


def test_prometheus_is_told(site):
    site.follow(site.start("quick"))
    page = ""
    for _ in range(100):
        page = site.call("GET", "/metrics")[1].decode()
        if 'state="complete"' in page:
            break
        time.sleep(0.02)

    assert 'unbroken_answers_total{model="quick",provider="sim",state="complete"} 1.0' in page
    assert 'unbroken_tokens_total{kind="output",model="quick",provider="sim"} 40.0' in page
    assert "unbroken_open_answers 0.0" in page


# EventSource


def event_source(site, path, last="", stop=None):
    headers = {"last-event-id": last} if last else {}
    asked = urllib.request.Request(site.url + path, headers=headers)
    answer = urllib.request.urlopen(asked, timeout=20)
    return answer.status, frames_of(answer, stop)


def spoken(frames):
    return "".join(frame.data.decode() for frame in frames if frame.data != b"[DONE]")


def test_a_browser_that_reconnects_follows_the_same_answer_and_stops_at_its_end(site):
    path = "/stream?prompt=cats&model=sim/slow"
    _, first = event_source(site, path, stop=5)
    _, rest = event_source(site, path, last=first[-1].id)
    status, nothing = event_source(site, path, last=rest[-1].id)
    _, again = event_source(site, path, last=first[0].id.rpartition(".")[0] + ".0")

    assert spoken(first) + spoken(rest) == spoken(again)
    assert rest[-1].data == b"[DONE]"
    assert (status, nothing) == (204, [])
    assert len(site.upstream.log) == 1


def test_newlines_are_several_data_lines(site):
    _, frames = event_source(site, "/stream?prompt=x&model=sim/lines")

    assert spoken(frames) == "one\ntwo\n\n three"


def test_an_answer_that_nobody_reads_any_more_is_stopped_after_its_grace(site):
    event_source(site, "/stream?prompt=x&model=sim/endless", stop=3)
    for _ in range(200):
        if site.upstream.log[0].ended != "open":
            break
        time.sleep(0.02)

    assert site.upstream.log[0].ended == "client left"


def test_a_failure_is_an_error_event(site):
    _, frames = event_source(site, "/stream?prompt=x&model=sim/down")

    assert [frame.event for frame in frames][-2:] == ["error", ""]
    assert frames[-1].data == b"[DONE]"


def test_an_answer_that_is_deleted_under_its_reader_ends_for_it(serve):
    store = MemoryStore()
    transport = AsyncSimulatorTransport(SCENARIOS, real_time=True)
    gateway = Gateway(store, client=AsyncClient(api_key="k", transport=transport))
    site, frames = Site(serve(gateway), transport), []
    other = Gateway(store, client=AsyncClient(api_key="k", transport=transport))
    reader = Site(serve(other), transport)
    stream = site.start("endless")
    thread = threading.Thread(target=lambda: frames.extend(reader.follow(stream)))
    thread.start()
    time.sleep(0.4)
    asyncio.run(store.delete(stream))
    thread.join(10)
    final = json.loads(frames[-1].data)

    assert frames[-1].event == "end"
    assert (final["state"], final["error"]["type"]) == ("failed", "StreamMissing")


def test_an_answer_that_has_ended_is_deleted_with_its_question(site):
    once = {"idempotency_key": "k1"}
    body = {"model": "sim/quick", **ASK}
    stream = site.json("POST", "/v1/streams", body, **once)[1]["id"]
    assert text(site.follow(stream))
    token = site.json("POST", f"/v1/streams/{stream}/share")[1]["token"]
    status, told = site.json("DELETE", f"/v1/streams/{stream}")

    assert (status, told["deleted"]) == (200, True)
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", f"?token={token}")):
        assert site.json(method, f"/v1/streams/{stream}{path}")[0] == 404
    assert site.json("GET", "/v1/streams")[1]["data"] == []
    assert site.json("POST", "/v1/streams", body, **once)[1]["id"] != stream


@pytest.mark.parametrize(
    "id", ["%00", "..%2f..", "a%20b", "x" * 200, "ans_%ff", "*", "%F0%9F%98%80"]
)
def test_what_can_be_no_id_is_not_looked_up(site, id):
    for method in ("GET", "DELETE"):
        assert site.call(method, f"/v1/streams/{id}")[0] == 404
        assert site.call(method, f"/v1/responses/{id}")[0] == 404
