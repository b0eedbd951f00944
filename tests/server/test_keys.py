"""Keys, limits, links, the socket, and who may see what."""

import asyncio
import contextlib
import json
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
import websockets.sync.client
from test_streams import ASK, SCENARIOS, Site, text

from unbroken import AsyncClient
from unbroken.errors import AuthenticationFailed, ConfigurationError
from unbroken.server.auth import EVERYBODY, OWNER, KeyLimits, Keys, NewKey
from unbroken.server.gateway import Gateway
from unbroken.server.settings import Settings
from unbroken.simulator.transport import AsyncSimulatorTransport
from unbroken.stores import registry
from unbroken.stores.base import NewStream
from unbroken.stores.memory import MemoryStore

OPEN = Settings(simulator="open")


@pytest.fixture
def store_url(tmp_path):
    return f"sqlite:///{tmp_path}/answers.db"


@pytest.fixture
def site(serve, store_url):
    transport = AsyncSimulatorTransport(SCENARIOS, real_time=True)
    client = AsyncClient(api_key="k", transport=transport, routes={"fast": ["sim/quick"]})
    gateway = Gateway(registry.open(store_url), client=client, settings=OPEN)
    site = Site(serve(gateway), transport)
    site.store_url = store_url
    return site


@pytest.fixture
def make(store_url):
    """Makes a key, as the command does: in another process's connection to the store."""

    def key(name, **allowance):
        async def made():
            async with registry.open(store_url) as store:
                return await Keys(store).create(NewKey(name=name, limits=KeyLimits(**allowance)))

        return asyncio.run(made())

    return key


def bearer(key):
    return {"authorization": f"Bearer {key}"}


def test_a_key_sees_its_own_answers_and_nobody_elses(make, site):
    one, two = make("one"), make("two")
    body = {"model": "sim/quick", **ASK}
    stream = site.json("POST", "/v1/streams", body, **bearer(one))[1]["id"]

    assert site.json("GET", f"/v1/streams/{stream}", **bearer(one))[0] == 200
    assert site.json("GET", f"/v1/streams/{stream}", x_api_key=one)[0] == 200
    assert site.json("GET", f"/v1/streams/{stream}", **bearer(two))[0] == 404
    assert site.json("DELETE", f"/v1/streams/{stream}", **bearer(two))[0] == 404
    assert site.json("GET", "/v1/streams", **bearer(two))[1]["data"] == []
    assert [s["id"] for s in site.json("GET", "/v1/streams", **bearer(one))[1]["data"]] == [stream]


@pytest.mark.parametrize("key", ["", "ub-wrong"])
def test_without_a_good_key_nothing_goes(make, site, key):
    make("one")
    given = bearer(key) if key else {}
    for method, path in (
        ("POST", "/v1/chat/completions"),
        ("GET", "/v1/models"),
        ("GET", "/v1/streams"),
    ):
        status, said = site.json(
            method, path, {"model": "sim/quick", **ASK} if method == "POST" else None, **given
        )
        assert status == 401
        assert "key" in said["error"]["message"]


def test_a_link_shares_one_answer_read_only(make, site):
    key = make("one")
    before = [{"role": "system", "content": "A secret."}, {"role": "user", "content": "Earlier."}]
    body = {"model": "sim/quick", "messages": [*before, *ASK["messages"]]}
    stream = site.json("POST", "/v1/streams", body, **bearer(key))[1]["id"]
    token = site.json("POST", f"/v1/streams/{stream}/share", {}, **bearer(key))[1]["token"]

    status, shown = site.json("GET", f"/v1/streams/{stream}?token={token}")
    assert (status, shown["request"]["messages"]) == (200, ASK["messages"])
    assert site.json("GET", f"/v1/streams/{stream}?token=wrong")[0] == 401
    assert site.json("DELETE", f"/v1/streams/{stream}?token={token}")[0] == 401
    assert text(site.follow(f"{stream}?token={token}&x=")) != ""
    asyncio.run(forgotten(site.store_url, stream))
    assert site.json("GET", f"/v1/streams/{stream}?token={token}")[0] == 404


async def forgotten(store_url, stream):
    async with registry.open(store_url) as store:
        await store.delete(stream)


def test_a_key_that_has_used_up_its_day_waits_for_the_next(make, site):
    key = make("small", requests=2)
    body = {"model": "sim/quick", **ASK}
    told = [site.json("POST", "/v1/chat/completions", body, **bearer(key))[0] for _ in range(2)]
    status, said = site.json("POST", "/v1/chat/completions", body, **bearer(key))

    assert told == [200, 200]
    assert status == 429
    assert "2 requests" in said["error"]["message"]


def start(site, key, model, **headers):
    body = {"model": f"sim/{model}", **ASK}
    return site.json("POST", "/v1/streams", body, **bearer(key), **headers)


def used(store_url, name):
    """What a key has used today, as another process knows it."""

    async def read():
        async with registry.open(store_url) as store:
            keys = Keys(store)
            [id] = [k.id for k in await keys.all() if k.labels["name"] == name]
            return (await keys.usage([id]))[0]

    return asyncio.run(read())


def until(told, wanted):
    """The first that is told and wanted."""
    for _ in range(500):
        if wanted(found := told()):
            return found
        time.sleep(0.02)
    return pytest.fail(f"never: {found}")


def test_requests_at_once_do_not_pass_the_limit(make, site, store_url):
    key = make("small", requests=5)
    with ThreadPoolExecutor(20) as together:
        told = [*together.map(lambda _: start(site, key, "quick")[0], range(30))]

    assert told.count(201) == 5
    assert told.count(429) == 25
    assert used(store_url, "small").requests == 5


def test_an_answer_that_was_stopped_counts_by_estimate(make, site, store_url):
    key = make("small", tokens=10)
    stream = start(site, key, "endless")[1]["id"]
    place = f"/v1/streams/{stream}"
    until(lambda: site.json("GET", place, **bearer(key))[1], lambda said: len(said["text"]) > 60)
    site.json("DELETE", place, **bearer(key))
    spent = until(lambda: used(store_url, "small"), lambda spent: spent.tokens)

    usage = site.json("GET", place, **bearer(key))[1]["final"]["usage"]

    assert 15 < spent.tokens < 100
    assert usage["source"] == "estimated"
    assert usage["input_tokens"] + usage["output_tokens"] == spent.tokens
    assert start(site, key, "quick")[0] == 429


def test_a_repeated_request_counts_once_and_is_never_refused(make, site, store_url):
    key = make("small", requests=1)
    told = [start(site, key, "quick", idempotency_key="a") for _ in range(3)]
    other = [start(site, key, "quick", idempotency_key="b")[0] for _ in range(2)]

    assert [status for status, _ in told] == [201, 200, 200]
    assert {said["id"] for _, said in told} == {told[0][1]["id"]}
    assert other == [429, 429]
    assert used(store_url, "small").requests == 1


def test_what_is_refused_leaves_nothing_behind(make, site):
    key = make("small", requests=1)
    told = [start(site, key, model)[0] for model in ("quick", "slow")]

    assert told == [201, 429]
    assert len(site.json("GET", "/v1/streams", **bearer(key))[1]["data"]) == 1
    assert len(site.upstream.log) == 1


def test_a_wrong_question_does_not_count(make, site):
    key = make("small", requests=1)
    wrong = site.json("POST", "/v1/streams", {"model": "nobody/x", **ASK}, **bearer(key))[0]

    assert wrong in (400, 404)
    assert start(site, key, "quick")[0] == 201


def test_concurrent_repeats_of_a_refused_key_are_all_refused(make, site):
    key = make("small", requests=1)
    start(site, key, "quick")
    with ThreadPoolExecutor(8) as together:
        repeats = together.map(
            lambda n: start(site, key, "quick", idempotency_key=f"k{n // 4}"), range(24)
        )
        refusals = {(status, body["error"]["code"]) for status, body in repeats}

    assert refusals == {(429, "insufficient_quota")}


@pytest.mark.parametrize("name", ["", " ", "x\ny", "\x1b[31mred", "x" * 65])
def test_a_key_has_a_name_that_can_be_shown(name):
    async def live():
        await Keys(MemoryStore()).create(NewKey(name=name))

    with pytest.raises(ConfigurationError, match="name"):
        asyncio.run(live())


def test_the_last_key_that_is_revoked_opens_nothing():
    """Also when it is forgotten, as everything is that was closed long ago."""

    async def live():
        store = MemoryStore()
        keys = Keys(store)
        assert await keys.principal("") == EVERYBODY
        key = await keys.create(NewKey(name="one"))
        await keys.revoke("one")
        await store.prune(age=0)
        assert await Keys(store).all() == []
        for shown in ("", key):
            with pytest.raises(AuthenticationFailed):
                await Keys(store).principal(shown)

    asyncio.run(live())


def test_where_a_key_is_needed_a_store_that_knows_none_opens_nothing():
    keys = Keys(MemoryStore())
    keys.required = True

    with pytest.raises(AuthenticationFailed):
        asyncio.run(keys.principal(""))


def test_any_number_of_keys_is_known_by_name():
    async def live():
        store = MemoryStore()
        keys = Keys(store)
        await keys.create(NewKey(name="first"))
        for number in range(600):
            new = NewStream(f"key_{number}", owner=OWNER, labels={"name": f"n{number}"})
            await store.create(new)
        assert len(await keys.all()) == 601
        with pytest.raises(ConfigurationError, match="already"):
            await keys.create(NewKey(name="first"))
        await keys.revoke("first")
        assert len(await keys.all()) == 600

    asyncio.run(live())


def test_keys_are_stored_hashed_listed_and_revoked(store_url, tmp_path):
    async def live():
        async with registry.open(store_url) as store:
            keys = Keys(store)
            key = await keys.create(NewKey(name="one", limits=KeyLimits(tokens=5)))
            with pytest.raises(ConfigurationError, match="already"):
                await keys.create(NewKey(name="one"))
            caller = await keys.principal(key)
            await keys.revoke("one")
            assert await keys.all() == []
            assert caller.limits == KeyLimits(tokens=5)
            with pytest.raises(AuthenticationFailed):
                await Keys(store).principal(key)
            with pytest.raises(ConfigurationError, match="no key named"):
                await keys.revoke("one")
            return key

    key = asyncio.run(live())
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert key.encode() not in stored


def test_models_and_health(site):
    models = [model["id"] for model in site.json("GET", "/v1/models")[1]["data"]]

    assert models[0] == "fast"
    assert "sim/demo" in models
    assert site.json("GET", "/healthz") == (200, {"status": "ok"})
    assert site.json("GET", "/readyz")[1]["status"] == "ok"


# The socket


class Talk:
    def __init__(self, socket):
        self.socket = socket

    def say(self, **message):
        self.socket.send(json.dumps(message))

    def until(self, *kinds):
        told = []
        while not told or told[-1]["type"] not in kinds:
            told.append(json.loads(self.socket.recv(timeout=20)))
        return told


@pytest.fixture
def talk(site):
    with websockets.sync.client.connect(
        site.url.replace("http", "ws") + "/ws", max_queue=None
    ) as socket:
        yield Talk(socket)


def said(told):
    events = [e for message in told if message["type"] == "events" for e in message["events"]]
    return "".join(e["text"] for e in events if e["type"] == "text_delta")


def test_several_answers_over_one_socket(talk, site):
    for ref in "ab":
        talk.say(type="start", ref=ref, request={"model": "sim/slow", **ASK})
    told = talk.until("end") + talk.until("end")
    streams = {m["ref"]: m["stream"] for m in told if m["type"] == "started"}

    for stream in streams.values():
        whole = site.json("GET", f"/v1/streams/{stream}")[1]["text"]
        assert said([m for m in told if m.get("stream") == stream]) == whole != ""


def test_a_socket_comes_back_to_its_offset(talk, site):
    talk.say(type="start", ref="a", request={"model": "sim/slow", **ASK})
    first = talk.until("events")
    stream = first[0]["stream"]
    with websockets.sync.client.connect(
        site.url.replace("http", "ws") + "/ws", max_queue=None
    ) as socket:
        other = Talk(socket)
        other.say(type="follow", stream=stream, after=first[-1]["offset"])
        rest = other.until("end")

    assert said(first) + said(rest) == site.json("GET", f"/v1/streams/{stream}")[1]["text"]


def test_cancel_over_the_socket_tells_everybody(talk):
    talk.say(type="start", ref="a", request={"model": "sim/endless", **ASK})
    stream = talk.until("events")[0]["stream"]
    talk.say(type="cancel", stream=stream)

    assert talk.until("end")[-1]["state"] == "cancelled"


@pytest.mark.parametrize(
    "message",
    [
        "{",
        '{"type": "dance"}',
        '{"type": "follow", "stream": "ans_none"}',
        '{"type": "start", "request": {"model": "nobody/x", "messages": []}}',
    ],
)
def test_what_is_wrong_is_told_and_the_socket_stays(talk, message):
    talk.socket.send(message)
    assert talk.until("error")[-1]["error"]["message"]
    talk.say(type="start", ref="a", request={"model": "sim/quick", **ASK})

    assert talk.until("end")[-1]["state"] == "complete"


def test_one_key_has_a_share_of_the_open_answers_and_readers(serve, make, store_url):
    transport = AsyncSimulatorTransport(SCENARIOS, real_time=True)
    client = AsyncClient(api_key="k", transport=transport)
    settings = Settings(simulator="open", max_streams_per_key=2, max_followers_per_key=3)
    gateway = Gateway(registry.open(store_url), client=client, settings=settings)
    site, one, two = Site(serve(gateway), transport), make("one"), make("two")
    body = {"model": "sim/endless", **ASK}
    begun = [site.json("POST", "/v1/streams", body, **bearer(one)) for _ in range(3)]
    other = site.json("POST", "/v1/streams", body, **bearer(two))
    path = f"/v1/streams/{begun[0][1]['id']}"
    event_stream = {**bearer(one), "accept": "text/event-stream"}
    with contextlib.ExitStack() as readers:
        for _ in range(3):
            asked = urllib.request.Request(site.url + path, headers=event_stream)
            readers.enter_context(urllib.request.urlopen(asked, timeout=20))
        refused = site.json("GET", path, **event_stream)
    until(lambda: site.call("GET", f"{path}?wait=1", **bearer(one))[0], (200).__eq__)

    assert [status for status, _ in begun] == [201, 201, 429]
    assert begun[2][1]["error"]["code"] == "too_many_streams"
    assert other[0] == 201
    assert refused[0] == 429
    for stream in (begun[0], begun[1], other):
        site.json("DELETE", f"/v1/streams/{stream[1]['id']}", **bearer(one))


class Counting(MemoryStore):
    searches = 0

    async def find(self, *arguments):
        self.searches += 1
        return await super().find(*arguments)


def test_that_there_was_a_key_is_asked_once():
    async def story():
        keys = Keys(store := Counting())
        key = await keys.create(NewKey(name="phone"))
        store.searches = 0
        for _ in range(20):
            await keys.principal(key)
        return store.searches

    assert asyncio.run(story()) == 1


# Administrators, expiry, limits per minute, links


@pytest.fixture
def create(store_url):
    """Creates any key, as the command does."""

    def key(**new):
        async def made():
            async with registry.open(store_url) as store:
                return await Keys(store).create(NewKey(**new))

        return asyncio.run(made())

    return key


def test_an_administrator_creates_lists_and_revokes_keys(site, create):
    boss = bearer(create(name="boss", admin=True))
    limits = {"requests": 2, "requests_per_minute": 1}
    status, made = site.json("POST", "/v1/keys", {"name": "phone", "limits": limits}, **boss)
    phone = bearer(made["key"])
    first = site.json("POST", "/v1/streams", {"model": "sim/quick", **ASK}, **phone)[0]
    second = site.json("POST", "/v1/streams", {"model": "sim/quick", **ASK}, **phone)
    listed = site.json("GET", "/v1/keys", **boss)[1]["data"]
    removed = site.call("DELETE", "/v1/keys/phone", **boss)[0]

    assert (status, first, second[0], removed) == (201, 201, 429, 204)
    assert "per-minute limit of 1 requests" in second[1]["error"]["message"]
    found = {key["name"]: key for key in listed}
    assert found["phone"]["limits"] == limits
    assert found["phone"]["used_today"]["requests"] == 1
    assert "key" not in found["phone"]
    assert [key["name"] for key in site.json("GET", "/v1/keys", **boss)[1]["data"]] == ["boss"]


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/keys"), ("POST", "/v1/keys"), ("DELETE", "/v1/keys/boss")]
)
def test_only_an_administrator_manages_keys(site, create, method, path):
    create(name="boss", admin=True)
    usual = bearer(create(name="usual"))

    assert site.json(method, path, {"name": "x"} if method == "POST" else None, **usual)[0] == 403
    assert site.json(method, path, {"name": "x"} if method == "POST" else None)[0] == 401


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "a/b"},
        {"name": ".."},
        {"name": "x", "limit": 1},
        {"name": "x", "limits": {"requests": -1}},
        {"name": "x", "expires_in": 0},
        {"name": "boss"},
    ],
)
def test_a_key_that_can_not_be_is_refused_by_name(site, create, body):
    boss = bearer(create(name="boss", admin=True))

    assert site.json("POST", "/v1/keys", body, **boss)[0] == 400


def test_an_administrator_does_not_lock_itself_out(site, create):
    boss = bearer(create(name="boss", admin=True))

    assert site.json("DELETE", "/v1/keys/boss", **boss)[0] == 409
    assert site.json("DELETE", "/v1/keys/nobody", **boss)[0] == 404


def test_a_key_expires(site, create):
    key = bearer(create(name="short", expires_in=1.0))
    before = site.json("GET", "/v1/models", **key)[0]
    time.sleep(1.1)
    status, said = site.json("GET", "/v1/models", **key)

    assert (before, status) == (200, 401)
    assert "expired" in said["error"]["message"]


def test_a_revoked_key_ends_its_answers_and_its_links(site, create):
    boss, phone = bearer(create(name="boss", admin=True)), bearer(create(name="phone"))
    body = {"model": "sim/endless", **ASK}
    stream = site.json("POST", "/v1/streams", body, **phone)[1]["id"]
    token = site.json("POST", f"/v1/streams/{stream}/share", **phone)[1]["token"]
    shared = f"/v1/streams/{stream}?token={token}"
    before = site.json("GET", shared)[0]
    site.call("DELETE", "/v1/keys/phone", **boss)
    end = time.monotonic() + 15
    while site.json("GET", shared)[0] == 200 and time.monotonic() < end:
        time.sleep(0.2)

    assert before == 200
    assert site.json("GET", shared)[0] == 401
    until_closed(site, stream)


def until_closed(site, stream):
    """Its owner can't look any more; the provider sees that nobody listens."""
    end = time.monotonic() + 15
    while site.upstream.log[0].ended != "client left" and time.monotonic() < end:
        time.sleep(0.1)
    assert site.upstream.log[0].ended == "client left"


def test_links_are_listed_and_revoked_by_their_owner_only(site, create):
    one, two = bearer(create(name="one")), bearer(create(name="two"))
    stream = site.json("POST", "/v1/streams", {"model": "sim/quick", **ASK}, **one)[1]["id"]
    link = site.json("POST", f"/v1/streams/{stream}/share", **one)[1]
    shared = f"/v1/streams/{stream}?token={link['token']}"
    listed = site.json("GET", "/v1/shares", **one)[1]["data"]
    foreign = site.json("DELETE", f"/v1/shares/{link['id']}", **two)[0]
    opened = site.json("GET", shared)[0]
    revoked = site.call("DELETE", f"/v1/shares/{link['id']}", **one)[0]

    assert [(one["id"], one["stream"]) for one in listed] == [(link["id"], stream)]
    assert site.json("GET", "/v1/shares", **two)[1]["data"] == []
    assert (foreign, opened, revoked) == (404, 200, 204)
    assert site.json("GET", shared)[0] == 401
