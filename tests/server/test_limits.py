"""Bounds: bodies, headers, models, open answers, and readers that don't read."""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from ports import free_port
from test_leaving import until
from test_streams import ASK, SCENARIOS, Site

from unbroken import AsyncClient
from unbroken.errors import ConfigurationError
from unbroken.server.gateway import Gateway
from unbroken.server.settings import Settings, load
from unbroken.simulator.scenario import Scenario
from unbroken.simulator.transport import AsyncSimulatorTransport
from unbroken.stores.memory import MemoryStore
from unbroken.stores.sqlite import SqliteStore

LARGE = {**SCENARIOS, "large": Scenario(ttft=0.0, tps=0, text=("w" * 250 + " ") * 4_000)}


def gateway(serve, store=None, **settings):
    transport = AsyncSimulatorTransport(LARGE, real_time=True)
    client = AsyncClient(api_key="k", transport=transport)
    made = Gateway(store or MemoryStore(), client=client, settings=Settings(**settings))
    return Site(serve(made), transport)


def test_a_body_that_is_too_large_is_refused(serve):
    site = gateway(serve, max_body=1000)
    body = {"model": "sim/quick", "messages": [{"role": "user", "content": "x" * 2000}]}

    for path in ("/v1/chat/completions", "/v1/messages", "/v1/streams"):
        status, said = site.json("POST", path, body)
        assert status == 413
        assert "1000 bytes" in said["error"]["message"]


def test_only_the_models_that_are_listed_may_be_asked(serve):
    site = gateway(serve, models=["sim/quick", "sim/slow"])
    listed = site.json("GET", "/v1/models")[1]["data"]
    asked = {"model": "sim/quick", **ASK}

    assert [model["id"] for model in listed] == ["sim/quick", "sim/slow"]
    assert site.json("POST", "/v1/chat/completions", asked)[0] == 200
    for wish in ({"model": "sim/lines"}, {"fallbacks": ["sim/lines"]}):
        status, said = site.json("POST", "/v1/chat/completions", {**asked, **wish})
        assert status == 404
        assert said["error"]["message"].endswith("available: sim/quick, sim/slow")
    assert site.call("GET", "/stream?prompt=x")[0] == 200


def test_no_more_answers_than_may_be_open(serve):
    site = gateway(serve, max_streams=2)
    open_ = [site.start("endless") for _ in range(2)]
    status, said = site.json("POST", "/v1/streams", {"model": "sim/quick", **ASK})
    site.call("DELETE", f"/v1/streams/{open_[0]}")
    until(lambda: site.json("POST", "/v1/streams", {"model": "sim/quick", **ASK})[0] == 201)

    assert status == 503
    assert "limit of 2 concurrent streams" in said["error"]["message"]


def test_nor_when_many_ask_at_once(serve, tmp_path):
    site = gateway(serve, SqliteStore(str(tmp_path / "answers.db")), max_streams=3)
    with ThreadPoolExecutor(20) as pool:
        body = {"model": "sim/endless", **ASK}
        asked = [pool.submit(site.json, "POST", "/v1/streams", body) for _ in range(20)]

    assert Counter(each.result()[0] for each in asked) == {201: 3, 503: 17}


def test_the_name_of_a_model_has_an_end(serve):
    body = {"model": "sim/" + "x" * 5000, **ASK}
    status, said = gateway(serve).json("POST", "/v1/chat/completions", body)

    assert status == 400
    assert "4096 characters" in said["error"]["message"]


@pytest.fixture
def process(tmp_path):
    """`unbroken serve` as a process of its own."""
    port = free_port()
    env = {**os.environ, "UNBROKEN_PORT": str(port), "UNBROKEN_STORE": "memory:"}
    command = [sys.executable, "-m", "unbroken", "serve"]
    with subprocess.Popen(command, env=env, cwd=tmp_path, stdout=subprocess.PIPE) as running:
        running.stdout.readline()
        until(lambda: answers(port))
        yield port
        running.terminate()


def answers(port):
    with contextlib.suppress(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz").close()
        return True


def head(size):
    """A whole request whose head has so many bytes."""
    begin = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx-long: "
    return begin + b"a" * (size - len(begin) - 4) + b"\r\n\r\n"


def said_to(port, pieces):
    """The status line that such pieces get, each of them sent when the one before has gone."""
    said = b""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):  # it may hang up while there is more to send
            for piece in pieces:
                sock.sendall(piece)
                time.sleep(0.002)
        with contextlib.suppress(OSError):
            while data := sock.recv(1000):
                said += data
    return said.split(b"\r\n")[0]


def cut(data, size):
    return [data[at : at + size] for at in range(0, len(data), size)]


MANY = head(100)[:-2] + b"x: y\r\n" * 20_000 + b"\r\n"
NEVER_ENDS = head(200_000)[:-4]
LONG_URL = b"GET /healthz?" + b"a" * 100_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n"
BODY = b"POST /healthz HTTP/1.1\r\nhost: localhost\r\ncontent-length: 50000\r\n\r\n" + b"x" * 50_000


@pytest.mark.parametrize("size", [1 << 20, 3_000])
@pytest.mark.parametrize("data", [head(66_000), head(120_000), MANY, NEVER_ENDS, LONG_URL])
def test_a_head_that_is_too_large_is_refused_however_it_comes(process, data, size):
    assert said_to(process, cut(data, size)) == b"HTTP/1.1 431 Request Header Fields Too Large"
    assert answers(process)


@pytest.mark.parametrize("size", [1 << 20, 31_000, 3_000])
def test_a_head_within_the_bound_is_read_however_it_comes(process, size):
    assert said_to(process, cut(head(64_000), size)) == b"HTTP/1.1 200 OK"


def test_what_came_before_a_head_is_not_counted_with_it(process):
    first, rest = cut(BODY + head(50_000), 60_000)[0], (BODY + head(50_000))[60_000:]

    assert said_to(process, [first, rest]).startswith(b"HTTP/1.1 405")


def test_a_large_body_has_no_large_head(process):
    connection = http.client.HTTPConnection("127.0.0.1", process, timeout=20)
    long = {"model": "sim/demo", "messages": [{"role": "user", "content": "x" * 500_000}]}
    for _ in range(2):
        connection.request("POST", "/v1/chat/completions", json.dumps(long))
        with connection.getresponse() as answer:
            assert answer.status == 200
            assert json.loads(answer.read())["choices"][0]["finish_reason"] == "stop"
    connection.close()


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"UNBROKEN_PORT": "http"}, "UNBROKEN_PORT: Expected `int`"),
        ({"UNBROKEN_GRACE": "-1"}, "UNBROKEN_GRACE: grace=-1.0"),
        ({"UNBROKEN_ON_DISCONNECT": "wait"}, "UNBROKEN_ON_DISCONNECT: Invalid"),
        ({"UNBROKEN_DRAIN": "inf"}, "UNBROKEN_DRAIN: drain=inf"),
        ({"UNBROKEN_GRACE": "nan"}, "UNBROKEN_GRACE: grace=nan"),
        ({"UNBROKEN_MODELS": ","}, "UNBROKEN_MODELS: ',' is an empty list"),
        ({"UNBROKEN_MODELS": "sim/demo,nope/x"}, "UNBROKEN_MODELS: there is no provider 'nope'"),
    ],
)
def test_a_wrong_variable_is_told_by_its_name(tmp_path, env, words):
    with pytest.raises(ConfigurationError, match=words):
        load(env, {}, str(tmp_path))


def test_options_go_over_variables_and_these_over_the_file(tmp_path):
    (tmp_path / "unbroken.toml").write_text("[server]\nport = 1\ngrace = 2\nhost = 'a'\n")
    env = {"UNBROKEN_GRACE": "3", "UNBROKEN_HOST": "b", "UNBROKEN_CORS": "https://x, https://y"}
    settings = load(env, {"host": "c"}, str(tmp_path))

    assert (settings.port, settings.grace, settings.host) == (1, 3.0, "c")
    assert settings.cors == ["https://x", "https://y"]


# A reader that does not read


def rss():
    """Bytes that this process holds."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="asks Linux for its memory")
def test_a_reader_that_stops_reading_costs_nobody_anything(serve, tmp_path):
    site = gateway(serve, SqliteStore(str(tmp_path / "a.db"), "normal"))
    produced(site, readers=0)
    before = rss()
    stream, lazy = produced(site, readers=60)
    grown = rss() - before
    whole = site.json("GET", f"/v1/streams/{stream}")[1]
    told = drained(lazy[0])
    for sock in lazy:
        sock.close()

    assert whole["state"] == "complete"
    assert grown < len(lazy) * len(whole["text"]) / 3
    assert b"event: end" in told


def produced(site, readers):
    """A large answer, made while so many ask for it and don't read it."""
    host, stream = urlsplit(site.url), site.start("large")
    lazy = [socket.create_connection((host.hostname, host.port)) for _ in range(readers)]
    for sock in lazy:
        sock.sendall(
            f"GET /v1/streams/{stream}?after=0 HTTP/1.1\r\nhost: x\r\n"
            "accept: text/event-stream\r\n\r\n".encode()
        )
    until(lambda: site.json("GET", "/v1/streams")[1]["data"][0]["state"] != "open", 60)
    return stream, lazy


def drained(sock):
    """Everything that a reader gets who takes it up again."""
    sock.settimeout(20)
    said = b""
    while b"event: end" not in said:
        data = sock.recv(1 << 20)
        assert data
        said += data
    return said
