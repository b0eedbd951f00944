"""The WebSocket pattern, over real HTTP: boto's clients, a management API and a Bedrock of ours."""

import asyncio
import json
import urllib.request

import boto3
import pytest
from botocore.exceptions import ClientError
from events import socket_event
from management_api import ManagementApi, text_of
from runtime_api import PATIENCE, Lambda

from unbroken import AsyncClient, Client, RecoveryPolicy
from unbroken.deploy import _aws_calls
from unbroken.deploy._aws_calls import FRAME, ConnectionSender, PushFailed, endpoint_of
from unbroken.deploy.aws_websocket import MAX_INVOCATIONS, WebSocketAnswers
from unbroken.errors import ConfigurationError
from unbroken.simulator.app import running
from unbroken.simulator.scenario import Scenario
from unbroken.simulator.transport import AsyncSimulatorTransport

CLAUDE = "bedrock/anthropic.claude-haiku-4-5-20251001-v1:0"
QUICK = f"{CLAUDE}?ttft=0&tps=0&tokens=300"
QUESTION = "Tell me about cats."
ARN = "arn:aws:lambda:us-east-1:0:function:f"
KEYS = {
    "AWS_ACCESS_KEY_ID": "k",
    "AWS_SECRET_ACCESS_KEY": "s",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",  # Lambda sets both
}


class Context:
    invoked_function_arn = ARN

    def __init__(self, seconds=60):
        self._seconds = seconds

    def get_remaining_time_in_millis(self):
        return int(self._seconds * 1000)


@pytest.fixture(scope="module")
def bedrock():
    with running() as url:
        yield url


@pytest.fixture
def api(monkeypatch, bedrock):
    made = ManagementApi()
    ends = {"LAMBDA": made.url.removesuffix("/prod"), "BEDROCK_RUNTIME": bedrock}
    ends["APIGATEWAYMANAGEMENTAPI"] = made.url
    for name, value in (KEYS | {f"AWS_ENDPOINT_URL_{n}": url for n, url in ends.items()}).items():
        monkeypatch.setenv(name, value)
    _aws_calls._client.cache_clear()  # its addresses are this test's
    yield made
    made.stop()


@pytest.fixture
def whole(bedrock, api):
    """The answer as it would be without any of this."""

    def ask(model, question=QUESTION):
        with Client() as client:
            return client.complete(model, question, max_tokens=99_999).text

    return ask


def ask(api, model=QUICK, body=None, seconds=60, **options):
    """One `sendMessage`, and the invocations that it leads to, one after the other."""
    function = WebSocketAnswers(model, max_tokens=99_999, **options)
    said = json.dumps({"action": "sendMessage", "message": QUESTION} if body is None else body)
    assert function(socket_event("sendMessage", said), Context()) == {"statusCode": 200}
    for job in api.jobs:  # it grows while it is read
        function(job, Context(seconds))
    return api.connections.get("c1")


def test_connecting_and_leaving_need_nothing(api):
    function = WebSocketAnswers(QUICK)

    assert function(socket_event("$connect"), Context()) == {"statusCode": 200}
    assert function(socket_event("$disconnect"), Context()) == {"statusCode": 200}
    assert (api.jobs, api.connections, api.refused) == ([], {"c1": []}, [])


def test_a_message_is_answered_by_another_invocation(api):
    function = WebSocketAnswers(QUICK)
    function(socket_event("sendMessage", json.dumps({"message": "Hi", "id": "q1"})), Context())

    assert api.connections["c1"] == []  # the integration is over before there is a word
    (job,) = api.jobs
    assert job["answer"]["turns"] == [{"role": "user", "content": "Hi"}]
    assert (job["answer"]["connection"], job["answer"]["id"]) == ("c1", "q1")


def test_the_answer_arrives_whole_and_in_order(api, whole):
    said = ask(api)

    assert text_of(said) == whole(QUICK)
    assert said[-1]["type"] == "end"
    assert said[-1]["finish_reason"] == "stop"
    assert said[-1]["usage"]["output_tokens"] > 0
    assert {message["id"] for message in said} == {"r1"}


def test_a_conversation_is_passed_on(api, whole):
    turns = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": "They purr."},
        {"role": "user", "content": "And dogs?"},
    ]

    assert text_of(ask(api, body={"messages": turns})) == whole(QUICK, turns)


def test_tokens_are_gathered_into_few_messages(api, whole):
    model = f"{CLAUDE}?ttft=0&tps=200&tokens=200"
    said = ask(api, model)

    assert text_of(said) == whole(model)
    assert 1 < len(said) < 50  # of 200 tokens


def test_no_message_is_larger_than_a_frame(api, whole):
    model = f"{CLAUDE}?ttft=0&tps=0&tokens=30000"
    said = ask(api, model, gather=60)  # all of it gathers behind the first message

    assert text_of(said) == whole(model)
    sizes = [len(json.dumps(message, ensure_ascii=False).encode()) for message in said]
    assert sum(sizes) > 3 * FRAME
    assert max(sizes) < 1.1 * FRAME  # json.dumps writes spaces


def test_a_message_that_is_too_large_is_sent_in_parts(api, whole):
    api.limit = 300
    said = ask(api)

    assert 413 in api.refused
    assert text_of(said) == whole(QUICK)


def test_a_throttled_message_is_sent_again(api, whole):
    api.throttled = 3
    said = ask(api)

    assert api.refused == [429, 429, 429]
    assert text_of(said) == whole(QUICK)


def test_a_connection_that_takes_nothing_is_given_up(api):
    api.throttled = 10
    push = ConnectionSender(api.url, "c1", waits=(0.0, 0.0))
    with pytest.raises(PushFailed, match="429"):
        asyncio.run(push(b"{}"))

    assert api.refused == [429, 429, 429]


def test_a_management_api_that_is_not_there_is_given_up(api):
    push = ConnectionSender("http://127.0.0.1:9/prod", "c1", waits=(0.0,))
    with pytest.raises(PushFailed, match="no response"):
        asyncio.run(push(b"{}"))


def test_a_client_that_left_ends_the_answer_at_the_provider(api, bedrock):
    api.leaves_after = 2
    model = f"{CLAUDE}?ttft=0&tps=50&tokens=5000"

    assert ask(api, model) is None
    assert api.refused == [410]  # and it was not tried again
    with urllib.request.urlopen(f"{bedrock}/log") as answer:
        last = json.load(answer)[-1]
    assert last["ended"] == "client left"


def test_an_answer_that_outlasts_the_function_goes_on_in_another_one(api, whole):
    model = f"{CLAUDE}?ttft=0&tps=40&tokens=100"
    said = ask(api, model, seconds=5)

    assert len(api.jobs) > 1
    assert api.jobs[1]["answer"]["invocation"] == 2
    assert text_of(said) == whole(model)
    assert said[-1]["type"] == "end"


def test_a_model_that_can_not_go_on_answers_again_from_the_beginning(api):
    """Another text than the first: what the client has shown is taken back."""
    first = Scenario(text="one two three four five six seven eight nine ten", ttft=0.0, tps=4)
    answers = iter([first, Scenario(text="Quite another answer.", ttft=0.0, tps=0)])

    def client():
        story = AsyncSimulatorTransport(next(answers), real_time=True)
        return AsyncClient(api_key="k", transport=story)

    recovery = RecoveryPolicy(allow_restart=True, continue_by_prompt=False)
    said = ask(api, "openai/gpt-x", seconds=4, client=client, recovery=recovery)

    assert [message["type"] for message in said].count("restart") == 1
    assert said[0]["text"].startswith("one")
    assert text_of(said) == "Quite another answer."


def test_an_error_that_is_not_ours_is_told_without_details_and_raised(api):
    def broken():
        raise ValueError("a secret")

    with pytest.raises(ValueError, match="a secret"):
        ask(api, client=broken)

    (said,) = api.connections["c1"]
    assert said["error"] == {"message": "the function failed", "type": "ValueError"}


def test_an_answer_without_end_takes_a_bounded_number_of_invocations(api):
    said = ask(api, f"{CLAUDE}?ttft=0&tps=20&tokens=9000", seconds=4.2)

    assert len(api.jobs) == MAX_INVOCATIONS
    assert said[-1]["error"] == {
        "type": "TimedOut",
        "message": "timed out (total), the function reached its timeout",
    }
    assert text_of(said)


def test_what_has_no_word_yet_when_time_is_up_is_told(api):
    said = ask(api, f"{CLAUDE}?ttft=30", seconds=3.2)

    assert len(api.jobs) == 1
    assert [message["type"] for message in said] == ["error"]


def test_a_broken_answer_is_told_behind_its_text(api):
    said = ask(api, f"{QUICK}&fault=error:events=20")

    assert text_of(said)
    assert said[-1]["error"]["type"] == "StreamInterrupted"
    assert "simulated failure" in said[-1]["error"]["message"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "required"),
        ({"message": 1}, "Expected `str`"),
        ({"message": "Hi", "id": "x" * 101}, "length <= 100"),
        ({"messages": [{"role": "system", "content": "Obey."}]}, "Invalid enum value 'system'"),
    ],
)
def test_what_can_not_be_read_is_told(api, body, words):
    (said,) = ask(api, body=body)

    assert said["type"] == "error"
    assert words in said["error"]["message"]
    assert api.jobs == []


def test_a_job_that_is_refused_is_told_without_details_and_raised(api):
    api.refuses_jobs = True
    with pytest.raises(ClientError):
        ask(api)

    (said,) = api.connections["c1"]
    assert said["error"]["message"] == "the function failed"


def test_tools_have_no_way_over_a_socket():
    with pytest.raises(ConfigurationError, match="tools"):
        WebSocketAnswers(QUICK, tools=[{"name": "f", "parameters": {}}])


def test_the_address_of_a_connection(monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI", raising=False)
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    own = socket_event("sendMessage")["requestContext"]
    custom = own | {"domainName": "chat.example"}

    assert endpoint_of(own) == "https://x.execute-api.us-east-1.amazonaws.com/prod"
    assert endpoint_of(custom) == "https://x.execute-api.eu-west-1.amazonaws.com/prod"


def test_in_the_runtime_as_one_process(api, bedrock, whole):
    """Everything at once: events in, botocore out, an invocation that invokes itself."""
    env = {"MODEL": QUICK}
    started = Lambda("functions.socket", env=env)
    try:
        api.run = started.invoke
        invoked = started.invoke(socket_event("sendMessage", json.dumps({"message": QUESTION})))
        assert json.loads(invoked.body()) == {"statusCode": 200}
        assert text_of(api.said()) == whole(QUICK)
    finally:
        started.stop()


def test_a_client_that_takes_nothing_never_runs_the_function_past_its_timeout(api):
    api.throttled = 1_000_000
    job = {"connection": "c1", "endpoint": api.url, "id": "r1"}
    job["turns"] = [{"role": "user", "content": QUESTION}]
    started = Lambda("functions.socket", env={"MODEL": f"{CLAUDE}?ttft=0&tps=20&tokens=5000"})
    try:
        invoked = started.invoke({"answer": job}, seconds=7)
        assert invoked.over.wait(PATIENCE)
        assert not invoked.timed_out
        assert json.loads(invoked.body()) == {"statusCode": 200}
        assert set(api.refused) == {429}
    finally:
        started.stop()


# Our management API against boto3


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"connections": {}}, "GoneException"),
        ({"limit": 3}, "PayloadTooLargeException"),
        ({"throttled": 9}, "LimitExceededException"),
    ],
)
def test_boto3_knows_what_our_management_api_says(api, change, name):
    for field, value in change.items():
        setattr(api, field, value)
    client = boto3.client("apigatewaymanagementapi", endpoint_url=api.url)

    with pytest.raises(getattr(client.exceptions, name)):
        client.post_to_connection(ConnectionId="c1", Data=b"{1: 2}")


def test_a_client_of_ones_own_is_used(api, async_simulator):
    said = ask(api, "sim/demo", client=lambda: AsyncClient(transport=async_simulator))

    assert text_of(said)
    assert said[-1]["type"] == "end"
