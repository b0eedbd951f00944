"""What the public protocols say when something is wrong: never half an answer as a whole one, never
a fault of the caller's as one of ours, and nothing is paid for that nobody asked for.
"""

import http.client
import json
import signal
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import anthropic
import openai
import pytest
from test_kill import Server
from test_leaving import until
from test_streams import ASK, SCENARIOS, Site, event_source
from websockets.sync.client import connect

from unbroken import AsyncClient
from unbroken.errors import StoreError
from unbroken.server.gateway import Gateway
from unbroken.server.settings import Settings
from unbroken.simulator.app import running
from unbroken.simulator.scenario import Fault, Scenario
from unbroken.simulator.transport import AsyncSimulatorTransport
from unbroken.stores.memory import MemoryStore

HUGE = "9" * 4301  # more digits than int() takes
WORLD = {
    **SCENARIOS,
    "locked": Scenario(faults=(Fault(kind="status", status=401, message="no such key"),)),
    "limited": Scenario(faults=(Fault(kind="status", status=429, retry_after=7.0),)),
    "full": Scenario(faults=(Fault(kind="status", status=503, message="no room"),)),
}
CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"


@pytest.fixture
def site(serve):
    transport = AsyncSimulatorTransport(WORLD, real_time=True)
    client = AsyncClient(api_key={"openai": "k"}, transport=transport)
    settings = Settings(grace=0.2, heartbeat=60)
    return Site(serve(Gateway(MemoryStore(), client=client, settings=settings)), transport)


@pytest.fixture
def calm(serve):
    """A gateway whose waits take no time."""
    transport = AsyncSimulatorTransport(WORLD)
    client = AsyncClient(api_key="k", transport=transport)
    return Site(serve(Gateway(MemoryStore(), client=client)), transport)


@pytest.fixture
def responses(calm):
    with openai.OpenAI(api_key="k", base_url=f"{calm.url}/v1", max_retries=0) as sdk:
        yield sdk.responses


@pytest.fixture
def socket(site):
    with connect(site.url.replace("http", "ws") + "/ws", max_size=None) as socket:
        yield socket


# A server that stops


def asking(url, model="openai/demo"):
    """Each SDK, streamed and whole."""
    ask = ASK["messages"]
    one = openai.OpenAI(api_key="k", base_url=f"{url}/v1", max_retries=0)
    two = anthropic.Anthropic(api_key="k", base_url=url, max_retries=0)
    chat, messages, responses = one.chat.completions, two.messages, one.responses
    whole = {
        "chat": lambda **how: chat.create(model=model, messages=ask, **how),
        "messages": lambda **how: messages.create(
            model=model, messages=ask, max_tokens=900, timeout=90, **how
        ),
        "responses": lambda **how: responses.create(model=model, input="Hi", **how),
    }
    background = lambda: list(
        responses.create(model=model, input="Hi", stream=True, background=True)
    )
    streamed = {
        f"{name} streamed": lambda ask=ask: list(ask(stream=True)) for name, ask in whole.items()
    }
    return {**whole, **streamed, "background": background}


def raised(ask):
    try:
        return ask()
    except (openai.APIError, anthropic.APIError) as error:
        return error


def under_way(site):
    listed = site.json("GET", "/v1/streams?closed=false")[1]["data"]
    return [s for s in listed if site.json("GET", f"/v1/streams/{s['id']}")[1]["text"]]


@pytest.mark.slow
def test_a_server_that_stops_gives_no_sdk_half_an_answer_as_a_whole_one(tmp_path, monkeypatch):
    monkeypatch.setenv("UNBROKEN_DRAIN", "0.3")
    with running({"*": Scenario(ttft=0.05, tps=10, tokens=900)}) as upstream:
        server = Server(tmp_path, upstream).start()
        asks = asking(server.url)
        with ThreadPoolExecutor(len(asks)) as pool:
            waiting = {name: pool.submit(raised, ask) for name, ask in asks.items()}
            until(lambda: len(under_way(Site(server.url, None))) == len(asks))
            server.kill(signal.SIGTERM)
            told = {name: future.result(30) for name, future in waiting.items()}

    for name, error in told.items():
        assert isinstance(error, openai.APIError | anthropic.APIError), name
        assert "restarting" in str(error), name
    for name in ("chat", "messages", "responses"):
        assert told[name].status_code == 503
        assert told[name].response.headers["retry-after"] == "1"


class Away(MemoryStore):
    """A store that can be away."""

    away = False

    def __getattribute__(self, name):
        if name in {"append", "read", "wait"} and object.__getattribute__(self, "away"):
            raise StoreError("the store is away")
        return super().__getattribute__(name)


@pytest.fixture
def away(serve):
    store, transport = Away(), AsyncSimulatorTransport(WORLD, real_time=True)
    gateway = Gateway(store, client=AsyncClient(api_key="k", transport=transport))
    return store, serve(gateway)


@pytest.mark.parametrize("name", ["chat streamed", "messages streamed", "responses streamed"])
def test_a_store_that_is_away_makes_no_answer_whole(away, name):
    store, url = away
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(raised, asking(url, "sim/long")[name])
        until(lambda: under_way(Site(url, None)))
        store.away = True

        assert "the store does not answer" in str(waiting.result(30))


def numbered(said):
    """The sequence numbers of a stream of responses, and its text."""
    frames = [json.loads(line[6:]) for line in said.decode().splitlines() if line[:5] == "data:"]
    text = "".join(f["delta"] for f in frames if f["type"] == "response.output_text.delta")
    return [frame["sequence_number"] for frame in frames], text


def test_who_is_let_go_comes_back_by_the_last_number_and_misses_nothing(away):
    store, url = away
    site = Site(url, None)
    ask = {"model": "sim/long", "input": "x", "background": True, "stream": True}
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(site.call, "POST", RESPONSES, ask)
        until(lambda: under_way(site))
        store.away = True
        first, begun = numbered(waiting.result(30)[1])
    store.away = False
    stream = site.json("GET", "/v1/streams")[1]["data"][0]["id"]
    again = site.call("GET", f"/v1/responses/{stream}?stream=true&starting_after={first[-1]}")[1]
    rest, more = numbered(again)

    assert first[-1] == first[-2]  # the error has no place in the answer
    assert first[:-1] + rest == [*range(rest[-1] + 1)]
    assert begun + more == site.json("GET", f"/v1/streams/{stream}")[1]["text"] != begun


def test_a_store_that_is_away_is_told_over_a_socket(away):
    store, url = away
    with connect(url.replace("http", "ws") + "/ws") as socket:
        stream = start(socket, "long")
        heard(socket, "events")
        store.away = True
        while (message := json.loads(socket.recv(10)))["type"] == "events":
            pass

    assert (message["type"], message["stream"]) == ("error", stream)
    assert "goes on as" in message["error"]["message"]


# A provider that refuses, asked through responses


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(("model", "status"), [("locked", 401), ("limited", 429), ("full", 503)])
def test_a_refusal_before_the_first_content_is_a_status(responses, model, status, streamed):
    with pytest.raises(openai.APIStatusError) as caught:
        responses.create(model=f"openai/{model}", input="x", stream=streamed)

    assert caught.value.status_code == status
    assert caught.value.response.headers.get("retry-after") == ("7" if status == 429 else None)


def test_a_refusal_in_the_background_is_a_state(responses):
    begun = responses.create(model="openai/full", input="x", background=True)
    until(lambda: responses.retrieve(begun.id).status == "failed")

    assert "no room" in responses.retrieve(begun.id).error.message
    with pytest.raises(openai.APIError, match="no room"):
        list(responses.create(model="openai/full", input="x", background=True, stream=True))


@pytest.mark.parametrize("background", [True, False])
def test_only_what_was_asked_for_in_the_background_says_so(responses, background):
    ask = {"model": "openai/quick", "input": "x", "background": background}
    first, *_, last = responses.create(**ask, stream=True)
    found = responses.retrieve(last.response.id)
    whole = responses.create(**ask)

    assert {first.response.background, found.background, whole.background} == {background}


@pytest.mark.parametrize("background", [True, False])
def test_a_whole_response_names_its_log(calm, responses, background):
    raw = responses.with_raw_response.create(model="openai/quick", input="x", background=background)

    assert raw.headers["x-unbroken-stream"] == raw.parse().id
    assert calm.json("GET", f"/v1/streams/{raw.parse().id}")[0] == 200


def test_a_conversation_that_is_not_sent_whole_is_refused(responses):
    with pytest.raises(openai.BadRequestError, match="whole"):
        responses.create(model="openai/quick", input="x", previous_response_id="resp_1")


# Who leaves before there is anything to read


@pytest.mark.parametrize(
    ("path", "model", "extra"),
    [
        (CHAT, "endless", ASK),
        (MESSAGES, "endless", {**ASK, "max_tokens": 9000}),
        (RESPONSES, "endless", {"input": "x"}),
        (CHAT, "mute", {**ASK, "stream": True}),
        (MESSAGES, "mute", {**ASK, "stream": True, "max_tokens": 9000}),
        (RESPONSES, "mute", {"input": "x", "stream": True}),
    ],
)
def test_who_leaves_before_the_first_word_is_noticed(site, path, model, extra):
    connection = http.client.HTTPConnection(urlsplit(site.url).netloc, timeout=10)
    body = {"model": f"sim/{model}", "on_disconnect": "cancel", **extra}
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    until(lambda: site.upstream.log)
    connection.close()

    until(lambda: site.upstream.log[0].ended == "client left")


# What can't be meant


@pytest.mark.parametrize("number", [HUGE, "9" * 20])
def test_a_number_without_end_is_refused(site, number):
    stream = site.start("quick")
    site.follow(stream)
    where = f"/v1/streams/{stream}"
    told = [
        site.json("GET", f"{where}?after={number}"),
        site.json("GET", f"{where}?after=0&wait={number}"),
        site.json("GET", where, last_event_id=number, accept="text/event-stream"),
        site.json("GET", f"/v1/streams?before={number}"),
        site.json("GET", f"/v1/streams?limit={number}"),
        site.json("GET", "/stream", last_event_id=f"{stream}.{number}"),
        site.json("GET", f"/v1/responses/{stream}?stream=true&starting_after={number}"),
    ]

    assert [status for status, _ in told] == [400] * len(told)
    assert all(len(said["error"]["message"]) < 100 for _, said in told)


class Amnesia(MemoryStore):
    """A store with a fault of its own."""

    async def find(self, owner, search=None):
        if search.text == "fault":
            raise LookupError("nobody thought of this")
        return await super().find(owner, search)

    async def create(self, new, *rest):
        if new.key == "fault":
            raise LookupError("nobody thought of this")
        return await super().create(new, *rest)


def test_a_fault_of_ours_is_told_in_the_dialect_and_written_down(serve, caplog):
    client = AsyncClient(api_key="k", transport=AsyncSimulatorTransport(WORLD))
    site = Site(serve(Gateway(Amnesia(), client=client)), None)
    ask = {"model": "sim/quick", **ASK, "max_tokens": 9}
    found = site.json("GET", "/v1/streams?text=fault")
    chat = site.json("POST", CHAT, ask, idempotency_key="fault")
    messages = site.json("POST", MESSAGES, ask, idempotency_key="fault")

    assert [found[0], chat[0], messages[0]] == [500] * 3
    assert chat[1] == found[1]
    assert "Internal gateway error (LookupError)" in chat[1]["error"]["message"]
    assert messages[1]["type"] == "error"
    assert caplog.text.count("LookupError: nobody thought of this") == 3


def test_a_provider_without_a_key_is_not_worth_another_try(site):
    status, said = site.json("POST", CHAT, {"model": "anthropic/x", **ASK})

    assert status == 404
    assert said["error"]["code"] == "model_not_found"
    assert "ANTHROPIC_API_KEY" in said["error"]["message"]


def test_a_look_at_the_head_starts_no_answer(site):
    asked = urllib.request.Request(f"{site.url}/stream?prompt=x&model=sim/quick", method="HEAD")
    with urllib.request.urlopen(asked) as answer:
        kind = answer.headers["content-type"]

    assert (answer.status, kind.partition(";")[0]) == (200, "text/event-stream")
    assert site.json("GET", "/v1/streams")[1]["data"] == []


# Idempotency-Key


@pytest.mark.parametrize(
    ("path", "other"),
    [
        (CHAT, {"messages": [{"role": "user", "content": "Tell me about dogs."}]}),
        (CHAT, {"model": "sim/slow"}),
        (CHAT, {"temperature": 0.5}),
        (CHAT, {"fallbacks": ["sim/slow"]}),
        (MESSAGES, {"max_tokens": 9}),
        (RESPONSES, {"messages": None, "input": "Hi"}),
        ("/v1/streams", {"max_tokens": 9}),
    ],
)
def test_a_key_for_another_question_is_refused(site, path, other):
    body = {"model": "sim/quick", **ASK, "max_tokens": 500}
    first = site.json("POST", CHAT, body, idempotency_key="a")
    status, said = site.json("POST", path, {**body, **other}, idempotency_key="a")

    assert (first[0], status) == (200, 422)
    assert "Idempotency-Key" in said["error"]["message"]


@pytest.mark.parametrize("path", [CHAT, MESSAGES, "/v1/streams"])
def test_a_key_for_the_same_question_is_the_same_answer_however_it_is_read(site, path):
    body = {"model": "sim/quick", **ASK, "max_tokens": 500}
    first = site.json("POST", CHAT, body, idempotency_key="a")
    again = site.call("POST", path, {**body, "stream": True}, idempotency_key="a")

    assert (first[0], again[0]) == (200, 200)
    assert len(site.upstream.log) == 1


# Offsets


def test_an_offset_that_never_was_is_an_error_of_a_closed_stream_too(site):
    stream = site.start("quick")
    end = int(site.follow(stream)[-1].id)
    where, sse = f"/v1/streams/{stream}?after=", {"accept": "text/event-stream"}

    assert site.call("GET", f"{where}{end}", **sse)[0] == 204
    assert site.json("GET", f"{where}{end + 1}", **sse)[0] == 400
    assert event_source(site, "/stream", last=f"{stream}.{end}") == (204, [])
    assert site.json("GET", "/stream", last_event_id=f"{stream}.{end + 1}")[0] == 400
    assert site.follow(stream, after=end - 1)[-1].event == "end"


@pytest.mark.parametrize("model", ["quick", "endless"])
def test_a_sequence_number_that_never_was_is_an_error(site, model):
    stream = site.json(
        "POST", RESPONSES, {"model": f"sim/{model}", "input": "x", "background": True}
    )[1]["id"]
    until(lambda: site.json("GET", f"/v1/streams/{stream}")[1]["text"])
    path = f"/v1/responses/{stream}?stream=true&starting_after="
    status, said = site.json("GET", f"{path}9999")

    assert status == 400
    assert "9999" in said["error"]["message"]
    site.call("DELETE", f"/v1/streams/{stream}")


def test_who_has_the_last_sequence_number_gets_nothing_more(site):
    body = {"model": "sim/quick", "input": "x", "background": True, "stream": True}
    _, said = site.call("POST", RESPONSES, body)
    last = json.loads(said.decode().strip().rpartition("data: ")[2])
    path = f"/v1/responses/{last['response']['id']}?stream=true&starting_after="

    assert site.call("GET", f"{path}{last['sequence_number']}") == (200, b"")
    assert b"response.completed" in site.call("GET", f"{path}{last['sequence_number'] - 1}")[1]


# WebSocket


def say(socket, **wish):
    socket.send(json.dumps(wish))


def heard(socket, kind):
    """The next message of a kind."""
    while (message := json.loads(socket.recv(10)))["type"] != kind:
        assert message["type"] != "error", message
    return message


def start(socket, model, **more):
    say(socket, type="start", request={"model": f"sim/{model}", **ASK}, **more)
    return heard(socket, "started")["stream"]


def test_a_binary_frame_is_refused_and_the_socket_stays(socket):
    first = start(socket, "slow")
    socket.send(b"\x00\x01")

    assert "text" in heard(socket, "error")["error"]["message"]
    assert heard(socket, "end")["stream"] == first


def test_an_offset_that_never_was_is_an_error_over_a_socket_too(site, socket):
    stream = site.start("quick")
    end = int(site.follow(stream)[-1].id)
    say(socket, type="follow", stream=stream, after=end + 1)
    error = heard(socket, "error")
    say(socket, type="follow", stream=stream, after=end)

    assert (error["stream"], error["error"]["code"]) == (stream, "invalid_request_error")
    assert heard(socket, "end")["state"] == "complete"


@pytest.mark.parametrize("after", [-1, 10**18, 10**30])
def test_a_number_that_is_no_offset_is_refused(socket, after):
    say(socket, type="follow", stream="ans_x", after=after)

    assert heard(socket, "error")["error"]["code"] == "invalid_request_error"


def test_an_answer_too_many_is_refused_before_it_is_paid_for(site, socket):
    for _ in range(64):
        start(socket, "mute")
    say(socket, type="start", ref="65", request={"model": "sim/mute", **ASK})
    error = heard(socket, "error")

    assert (error["ref"], error["error"]["code"]) == ("65", "too_many_streams")
    assert len(site.json("GET", "/v1/streams?limit=100")[1]["data"]) == 64


def test_each_start_has_a_key_of_its_own(site):
    url = site.url.replace("http", "ws") + "/ws"
    with connect(url, additional_headers={"idempotency-key": "handshake"}) as socket:
        one, two = start(socket, "quick"), start(socket, "quick")
        three = start(socket, "quick", idempotency_key="a")
        four = start(socket, "quick", idempotency_key="a")

    assert len({one, two, three}) == 3
    assert three == four


# Small things


def test_all_choices_of_an_answer_are_shown(site):
    body = {"model": "openai/quick", **ASK, "n": 2}
    told = site.json("POST", CHAT, body)[1]
    stream = site.json("GET", "/v1/streams")[1]["data"][0]["id"]
    shown = site.json("GET", f"/v1/streams/{stream}")[1]

    assert [c["text"] for c in shown["choices"]] == [
        c["message"]["content"] for c in told["choices"]
    ]
    assert shown["text"] == shown["choices"][0]["text"] != ""
    assert "choices" not in site.json("GET", f"/v1/streams/{site.start('quick')}")[1]


def test_a_model_can_be_looked_up(site):
    with openai.OpenAI(api_key="k", base_url=f"{site.url}/v1", max_retries=0) as sdk:
        listed = [model.id for model in sdk.models.list()]
        found = [sdk.models.retrieve(name) for name in listed]
        with pytest.raises(openai.NotFoundError, match="nobody/x"):
            sdk.models.retrieve("nobody/x")

    assert [model.id for model in found] == listed != []
