"""The runtime in a process of its own, against a Lambda of ours that keeps every chunk apart."""

import contextlib
import json
import subprocess
import sys

import pytest
from events import rest_event, url_event
from redis_server import fresh_url
from runtime_api import PATIENCE, Lambda

from unbroken import Client
from unbroken.simulator.app import running

QUICK = "?ttft=0&tps=0&tokens=40"


@pytest.fixture
def function():
    """Starts functions by their names in functions.py."""
    with contextlib.ExitStack() as stack:

        def start(name, **options):
            made = Lambda(f"functions.{name}", **options)
            stack.callback(made.stop)
            return made

        yield start


def test_a_function_that_returns_answers_in_one_piece(function):
    invoked = function("value").invoke({"say": "é" * 3000})  # an event that comes in chunks

    said = json.loads(invoked.body())
    assert said.pop("said") == "é" * 3000
    assert said == {
        "id": "id-0",
        "arn": "arn:aws:lambda:x:0:function:f",
        "name": "f",
        "in_time": True,
        "trace": "Root=id-0",
    }
    assert invoked.headers["content-type"] == "application/json"


def test_a_function_that_is_awaited_answers_in_one_piece(function):
    assert json.loads(function("awaited").invoke({"a": [1]}).body()) == {"a": [1]}


@pytest.mark.parametrize("name", ["blocking", "waiting"])
def test_a_piece_arrives_while_the_function_still_runs(function, tmp_path, name):
    gate = tmp_path / "gate"
    invoked = function(name).invoke({"gate": str(gate)})
    first = invoked.piece()
    gate.touch()  # it could not have gone on before

    assert (first, invoked.pieces()) == (b"one ", [b"two"])
    assert invoked.whole
    assert invoked.trailers == {}
    assert invoked.headers["content-type"] == "text/plain; charset=utf-8"
    assert invoked.headers["connection"] == "close"


def test_one_process_answers_one_event_after_the_other(function):
    started = function("http")
    bodies = [started.invoke(url_event()).body() for _ in range(3)]

    assert len(set(bodies)) == 1


@pytest.mark.parametrize("name", ["blocking", "waiting"])
def test_events_are_served_at_once_where_the_platform_allows_it(function, tmp_path, name):
    gate = tmp_path / "gate"
    started = function(name, env={"AWS_LAMBDA_MAX_CONCURRENCY": "2"})
    both = [started.invoke({"gate": str(gate)}) for _ in range(2)]
    firsts = [invoked.piece() for invoked in both]  # neither can have gone on
    gate.touch()

    assert firsts == [b"one ", b"one "]
    assert [invoked.pieces() for invoked in both] == [[b"two"], [b"two"]]


def test_a_head_is_written_as_function_urls_read_it(function):
    invoked = function("http").invoke(url_event())
    status, headers, cookies, body = invoked.http()

    assert (status, headers) == (201, {"content-type": "text/event-stream"})
    assert cookies == ["a=1", "b=2"]
    assert body.decode() == "data: 1\n\ndata: ä\n\n"
    kind = "application/vnd.awslambda.http-integration-response"
    assert invoked.headers["content-type"] == kind


@pytest.mark.parametrize("event", [url_event(), rest_event()], ids=["url", "rest"])
def test_text_without_a_head_is_plain_text(function, event):
    status, headers, _, body = function("plain_http").invoke(event).http()

    assert (status, body) == (200, b"no head")
    assert headers == {"content-type": "text/plain; charset=utf-8"}


def test_an_empty_answer_is_an_answer(function):
    assert function("silent").invoke(url_event()).http()[3] == b""
    assert function("silent").invoke().body() == b""


def test_bytes_are_of_no_known_kind(function):
    invoked = function("raw").invoke()

    assert invoked.body() == b"\x00\xff"
    assert invoked.headers["content-type"] == "application/octet-stream"


def test_an_error_before_the_first_piece_is_the_invocations(function):
    started = function("early")
    invoked = started.invoke(url_event())

    assert invoked.pieces() == []
    assert invoked.error["errorType"] == "Function.ValueError"
    assert invoked.error["errorMessage"] == "before the first piece"
    assert any("in early" in line for line in invoked.error["stackTrace"])
    assert started.invoke(url_event()).pieces() == []  # and the process lives


def test_an_error_later_is_marked_and_told_in_the_trailers(function):
    invoked = function("late").invoke()

    assert invoked.body() == b"a b\n[interrupted: the function failed]\n"
    assert invoked.whole
    assert invoked.failure()["errorType"] == "Function.ValueError"
    assert invoked.failure()["errorMessage"] == "a secret"


def test_an_event_stream_is_marked_by_an_error_event(function):
    started = function("late")
    body = started.invoke(url_event()).http()[3]

    expected = {"error": {"message": "the function failed", "type": "ValueError"}}
    first, _, mark = body.partition(b"\n\n\n\n")
    assert first == b"data: 1"
    assert mark.startswith(b"event: error\ndata: ")
    assert json.loads(mark.partition(b"data: ")[2]) == expected
    assert "a secret" in started.written()


def test_a_piece_of_nothing_is_passed_over(function):
    invoked = function("deltas").invoke()

    assert invoked.pieces() == [b"one ", b"two"]
    assert invoked.trailers == {}


@pytest.mark.parametrize("kind", ["dict", "surrogate", "number"])
def test_what_is_no_piece_breaks_its_answer_and_not_the_process(function, kind):
    started = function("wrong")
    later = [started.invoke({"kind": kind, "after": True}) for _ in range(2)]

    for invoked in later:
        assert invoked.body() == b"half \n[interrupted: the function failed]\n"
        assert invoked.whole
        assert invoked.failure()["errorType"].endswith("Error")


@pytest.mark.parametrize("kind", ["dict", "surrogate", "number", "head"])
def test_what_is_no_piece_from_the_start_is_an_error_of_the_invocation(function, kind):
    started = function("wrong")
    first = [started.invoke(url_event() | {"kind": kind, "after": False}) for _ in range(2)]

    for invoked in first:
        assert invoked.pieces() == []
        assert invoked.error["errorType"].endswith("Error")


def test_an_error_that_the_platform_refuses_is_for_the_log(function):
    started = function("early")
    started.refuses_errors = True
    assert started.invoke().pieces() == []
    again = started.invoke()

    assert again.pieces() == []  # the process lives
    assert again.error["errorMessage"] == "before the first piece"
    assert "the Runtime API answered 403" in started.written()


@pytest.mark.parametrize("event", [{}, url_event()], ids=["invoked", "url"])
def test_a_stream_is_ended_before_the_deadline(function, tmp_path, event):
    closed = tmp_path / "closed"
    invoked = function("endless").invoke({**event, "closed": str(closed)}, seconds=3)
    body = invoked.body()

    assert invoked.whole
    assert not invoked.timed_out
    assert b"the function reached its timeout" in body
    assert invoked.failure()["errorType"] == "Function.TimedOut"
    assert closed.read_text() == "closed"  # and what it held open upstream


def test_a_function_that_blocks_for_ever_is_left_behind_at_the_deadline(function):
    started = function("stuck")
    invoked = started.invoke(seconds=2)

    assert invoked.body().startswith(b"a\n[interrupted: ")
    assert (invoked.whole, invoked.timed_out) == (True, False)
    assert started.invoke(seconds=2).piece() == b"a"  # the process goes on


def test_no_piece_before_the_deadline_is_an_error_of_the_invocation(function):
    invoked = function("never").invoke(url_event(), seconds=2)

    assert invoked.pieces() == []
    assert invoked.error["errorType"] == "Function.TimedOut"
    assert not invoked.timed_out


def test_a_platform_that_hangs_up_ends_the_function_and_not_the_process(function, tmp_path):
    started = function("endless")
    started.hangs_up_on = b"."
    closed = tmp_path / "closed"
    torn = started.invoke({"closed": str(closed)})

    assert torn.pieces() == [b"a"]
    assert not torn.whole
    started.hangs_up_on = None
    assert started.invoke({"closed": str(closed)}, seconds=2).piece() == b"a"
    assert closed.read_text() == "closed"


@pytest.mark.parametrize(
    ("handler", "kind"),
    [("nowhere.handler", "ModuleNotFoundError"), ("functions.no", "AttributeError")],
)
def test_a_function_that_is_not_there_is_told_at_the_start(handler, kind):
    started = Lambda(handler)
    try:
        assert started.started_badly.wait(PATIENCE)
        assert started.init_error["errorType"] == f"Init.{kind}"
        assert started.process.wait(PATIENCE) == 1
    finally:
        started.stop()


def test_outside_of_lambda_it_says_so():
    command = [sys.executable, "-m", "unbroken.deploy.aws_lambda"]
    done = subprocess.run(command, capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("AWS_LAMBDA_RUNTIME_API is not set")


# ASGI


@pytest.mark.parametrize(
    "event",
    [
        url_event("/a%20b/c", "hi", query="q=1&q=%C3%A9", cookies=["x=1", "y=2"]),
        url_event("/a%20b/c", "aGk=", query="q=1&q=%C3%A9", headers={"cookie": "x=1; y=2"})
        | {"isBase64Encoded": True},
        rest_event("/a b/c", "hi", "POST", {"q": ["1", "é"]}, {"Cookie": ["x=1; y=2"]}),
    ],
    ids=["url", "base64", "rest"],
)
def test_an_app_is_asked_what_the_client_asked(function, event):
    status, headers, cookies, body = function("echo").invoke(event).http()

    assert (status, cookies) == (418, ["a=1", "b=2"])
    assert headers == {"vary": "a, b", "content-type": "text/plain", "cookies": "x=1; y=2"}
    assert body.decode() == "POST /a b/c?q=1&q=%C3%A9 hi!"


def test_an_app_that_breaks_is_an_error_of_the_invocation(function):
    invoked = function("breaking").invoke(url_event())

    assert invoked.pieces() == []
    assert invoked.error["errorMessage"] == "an app that breaks"


def test_the_whole_gateway_streams(function):
    started = function("gateway")
    ask = {
        "model": f"sim/demo{QUICK}",
        "stream": True,
        "messages": [{"role": "user", "content": "Hi"}],
    }
    event = url_event(
        "/v1/chat/completions", json.dumps(ask), headers={"content-type": "application/json"}
    )
    status, headers, _, body = started.invoke(event).http()

    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert headers["x-unbroken-stream"].startswith("ans_")
    assert body.endswith(b"data: [DONE]\n\n")
    assert started.invoke(url_event("/healthz", method="GET")).http()[0] == 200
    assert started.invoke(url_event("/nowhere", method="GET")).http()[0] == 404


def test_the_gateway_marks_an_answer_that_outlasts_the_function(function):
    ask = {
        "model": "sim/demo?ttft=0&tps=20&tokens=5000",
        "stream": True,
        "messages": [{"role": "user", "content": "Hi"}],
    }
    invoked = function("gateway").invoke(
        url_event("/v1/chat/completions", json.dumps(ask)), seconds=4
    )
    body = invoked.http()[3]

    assert invoked.whole
    last = body.strip().rpartition(b"\n\n")[2]
    assert last.startswith(b"event: error\ndata: ")
    assert b"reached its timeout" in last


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/streams"])
def test_an_answer_that_one_function_leaves_is_finished_by_the_next(function, path):
    """The first is frozen in mid-answer: at its deadline, or since it only had to give the id."""
    store = {"STORE": fresh_url()}  # what is frozen in mid-commit would hold an SQLite file
    ask = {
        "model": "sim/demo?ttft=0&tps=40&tokens=160",
        "stream": True,
        "on_disconnect": "keep",
        "messages": [{"role": "user", "content": "Hi"}],
    }
    left = function("gateway", env=store).invoke(url_event(path, json.dumps(ask)), seconds=3)
    _, headers, _, body = left.http()
    name = headers.get("x-unbroken-stream") or json.loads(body)["id"]

    other = function("gateway", env=store)
    stream = url_event(f"/v1/streams/{name}", method="GET", headers={"accept": "text/event-stream"})
    followed = other.invoke(stream).http()[3]
    whole = json.loads(other.invoke(url_event(f"/v1/streams/{name}", method="GET")).http()[3])

    assert b"event: end" in followed
    assert whole["state"] == "complete"
    with Client() as client:
        assert whole["text"] == client.complete(ask["model"].replace("tps=40", "tps=0"), "Hi").text


# Bedrock, played by the simulator


@pytest.fixture(scope="module")
def bedrock():
    with running() as url:
        yield {
            "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": url,
            "AWS_ACCESS_KEY_ID": "k",
            "AWS_SECRET_ACCESS_KEY": "s",
            "AWS_REGION": "us-east-1",  # Lambda sets both
            "AWS_DEFAULT_REGION": "us-east-1",
            "MODEL": f"bedrock/anthropic.claude-haiku-4-5{QUICK}",
        }


def test_bedrock_streams_through_a_function_url(function, bedrock):
    invoked = function("bedrock", env=bedrock).invoke(url_event(body="Tell me about cats."))
    status, _, _, body = invoked.http()

    assert status == 200
    assert invoked.trailers == {}
    assert len(body.decode().split()) > 10


def test_bedrock_streams_through_a_generator_that_blocks(function, bedrock):
    invoked = function("bedrock_blocking", env=bedrock).invoke({"say": "Tell me about cats."})

    assert len(invoked.pieces()) > 10
    assert invoked.whole


def test_a_broken_answer_of_bedrocks_is_told_by_its_own_words(function, bedrock):
    model = bedrock["MODEL"] + "&fault=error:events=9"
    invoked = function("bedrock_blocking", env={**bedrock, "MODEL": model}).invoke({"say": "Hi"})
    body = invoked.body()

    assert b"[interrupted: bedrock/anthropic.claude-haiku-4-5" in body
    assert invoked.failure()["errorType"] == "Function.StreamInterrupted"


# The wrapper


def test_the_bootstrap_of_the_example_starts_it(function):
    bootstrap = "examples/aws/bootstrap"
    as_wrapper = [bootstrap, sys.executable, "/var/runtime/bootstrap.py"]

    assert json.loads(function("value", command=as_wrapper).invoke().body())["id"] == "id-0"
