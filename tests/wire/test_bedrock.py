"""Amazon Bedrock: framing, dialect and signature, with boto3 as the peer."""

import asyncio
import contextlib
import json
import struct
from binascii import crc32

import boto3
import botocore.eventstream
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError, EventStreamError
from hypothesis import given, settings
from hypothesis import strategies as st

from unbroken import AsyncClient, Client
from unbroken.errors import (
    BadRequest,
    ConfigurationError,
    LocalProtocolError,
    Overloaded,
    RateLimited,
    RemoteProtocolError,
    ServerError,
)
from unbroken.events import (
    Boundary,
    ChoiceEnd,
    MessageEnd,
    MessageStart,
    OtherEvent,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
    UsageReport,
)
from unbroken.messages import Message, Request, Text, ToolResult, ToolUse
from unbroken.providers import registry
from unbroken.simulator.app import running
from unbroken.simulator.scenario import Fault, Scenario
from unbroken.wire.bedrock_converse.dialect import CODEC
from unbroken.wire.codec import Frame
from unbroken.wire.eventstream import EventStreamDecoder, encode

ASKED = Request(model="m", messages=(Message("user", (Text("hi"),)),))
WORD = st.text(min_size=1, max_size=8)


def said(events):
    writer = CODEC.dialect.writer(ASKED)
    return b"".join(CODEC.encode(writer, event) for event in events)


def heard(*reads):
    decoder = CODEC.decoder(ASKED)
    events = [event for read in reads for event in decoder.feed(read)]
    return [*events, *decoder.eof()], decoder


def sliced(body, places):
    edges = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[a:b] for a, b in zip(edges, edges[1:], strict=False)]


PLACES = st.lists(st.integers(0, 9999), max_size=12)


# Framing


@given(st.lists(st.tuples(st.binary(max_size=40), WORD.filter(lambda w: ":" not in w))), PLACES)
def test_frames_come_back_however_they_are_cut(content, places):
    frames = [Frame(data, event=name) for data, name in content]
    body, decoder = b"".join(map(encode, frames)), EventStreamDecoder()

    assert [f for read in sliced(body, places) for f in decoder.feed(read)] == frames


@given(st.binary(max_size=40), WORD.filter(lambda w: ":" not in w))
def test_botocore_reads_the_same_frames(data, name):
    buffer = botocore.eventstream.EventStreamBuffer()
    buffer.add_data(encode(Frame(data, event=name)))
    (message,) = list(buffer)

    assert message.payload == data
    assert message.headers[":event-type"] == name


@given(st.binary(min_size=1, max_size=40), st.integers(0, 999), st.integers(0, 7))
def test_a_flipped_bit_is_never_taken_for_content(data, at, bit):
    body = bytearray(encode(Frame(data, event="x")))
    body[at % len(body)] ^= 1 << bit
    decoder = EventStreamDecoder()
    try:
        frames = decoder.feed(bytes(body))
    except RemoteProtocolError:
        return
    assert frames == []  # a length that grew: the rest never comes


@given(st.binary(max_size=200))
def test_garbage_raises_nothing_but_a_protocol_error(data):
    with contextlib.suppress(RemoteProtocolError):
        heard(data)


def test_a_frame_written_by_hand_from_the_specification():
    """Headers of every type before the string that counts."""
    values = b"".join(
        [
            b"\x01a\x00",
            b"\x01b\x01",
            b"\x01c\x02\x07",
            b"\x01d\x03\x00\x07",
            b"\x01e\x04\x00\x00\x00\x07",
            b"\x01f\x05" + bytes(8),
            b"\x01g\x06\x00\x02hi",
            b"\x01h\x08" + bytes(8),
            b"\x01i\x09" + bytes(16),
            b"\x0b:event-type\x07\x00\x08metadata",
        ]
    )
    payload = b'{"usage":{"inputTokens":1,"outputTokens":2,"totalTokens":3}}'
    prelude = struct.pack(">II", 16 + len(values) + len(payload), len(values))
    body = prelude + struct.pack(">I", crc32(prelude)) + values + payload
    body += struct.pack(">I", crc32(body))

    assert EventStreamDecoder().feed(body) == [Frame(payload, event="metadata")]


# The dialect


def by_block(events):
    """The events, with each call behind the text: clients take one block at a time."""
    calls = [e for e in events if isinstance(e, ToolCallStart | ToolCallDelta)]
    others = [e for e in events if e not in calls and not isinstance(e, Boundary)]
    return others, sorted(calls, key=lambda event: event.index)


@st.composite
def answers(draw):
    kinds = st.sampled_from([TextDelta, ReasoningDelta])
    pieces = draw(st.lists(st.builds(lambda kind, text: kind(text), kinds, WORD), max_size=8))
    count = draw(st.integers(0, 3))
    calls = [ToolCallStart(at, f"c{at}", f"f{at}") for at in range(count)]
    grown = draw(st.lists(st.tuples(st.integers(0, 2), WORD), max_size=8)) if count else []
    spelled = [ToolCallDelta(at % count, text) for at, text in grown]
    number = st.integers(0, 99)
    usage = Usage(input_tokens=draw(number), output_tokens=draw(number))
    reason, raw = draw(
        st.sampled_from(
            [
                ("stop", "end_turn"),
                ("length", "max_tokens"),
                ("content_filter", "guardrail_intervened"),
            ]
        )
    )
    end = [ChoiceEnd(reason, raw), UsageReport(usage), MessageEnd(reason, usage, raw)]
    return [MessageStart(), *pieces, *calls, *spelled, *end]


@settings(deadline=None)
@given(answers(), PLACES)
def test_what_is_said_is_heard_however_it_is_cut(events, places):
    got, decoder = heard(*sliced(said(events), places))

    assert by_block(got) == by_block(events)
    assert (decoder.skipped, decoder.error, decoder.done) == (0, None, True)


def frame(kind, **fields):
    return encode(Frame(json.dumps(fields).encode(), event=kind))


USAGE = {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5, "cacheReadInputTokens": 10}
START = frame("messageStart", role="assistant")
TEXT = frame("contentBlockDelta", contentBlockIndex=0, delta={"text": "hello"})
STOP = frame("messageStop", stopReason="end_turn")
METADATA = frame("metadata", usage=USAGE, metrics={"latencyMs": 1})


@pytest.mark.parametrize("ends", [STOP + METADATA, METADATA + STOP])
def test_usage_is_read_past_the_stop_and_in_any_order(ends):
    events, decoder = heard(START + TEXT + ends)

    assert type(events[-1]) is MessageEnd
    assert events[-1].usage.input_tokens == 13
    assert events[-1].usage.cached_input_tokens == 10
    assert decoder.done


def test_a_body_that_ends_after_the_stop_is_whole_without_usage():
    events, _ = heard(START + TEXT + STOP)

    assert events[-1] == MessageEnd("stop", None, "end_turn", early=True)


def test_half_a_frame_or_no_stop_proves_nothing():
    events, decoder = heard(START + TEXT + STOP[:-5])

    assert events[-1] == TextDelta("hello")
    assert not decoder.done


@pytest.mark.parametrize(
    ("kind", "status", "error"),
    [
        ("throttlingException", 429, RateLimited),
        ("serviceUnavailableException", 503, Overloaded),
        ("internalServerException", 500, ServerError),
        ("modelStreamErrorException", 424, ServerError),
        ("validationException", 400, BadRequest),
    ],
)
def test_exceptions_within_the_stream_have_their_class(kind, status, error):
    _, decoder = heard(START + TEXT + frame(f"exception:{kind}", message="no"))

    assert type(decoder.error) is error
    assert (decoder.error.status, decoder.error.code, decoder.error.message) == (status, kind, "no")


def test_unknown_frames_are_kept_and_unreadable_ones_counted():
    events, decoder = heard(START + frame("newThing", a=1) + encode(Frame(b"{", event="metadata")))

    assert events[1] == OtherEvent("newThing", '{"a": 1}', dialect="bedrock")
    assert decoder.skipped == 1


def test_a_request_is_read_back_as_it_was_meant():
    messages = (
        Message("system", (Text("Be brief."),)),
        Message("user", (Text("Weather?"),)),
        Message("assistant", (Text("Let me see."), ToolUse("t1", "weather", '{"city":"Rome"}'))),
        Message("tool", (ToolResult("t1", "sunny"), ToolResult("t2", "gone", is_error=True))),
    )
    request = Request(model="", messages=messages, stream=True, max_tokens=9, stop=("X",))
    read = CODEC.dialect.decode_request(CODEC.dialect.encode_request(request))

    results = (ToolResult("t1", (Text("sunny"),)), ToolResult("t2", (Text("gone"),), is_error=True))
    assert [m.parts for m in read.messages[:3]] == [m.parts for m in messages[:3]]
    assert read.messages[3].parts == results
    assert (read.max_tokens, read.stop) == (9, ("X",))


@pytest.mark.parametrize("name", ["seed", "top_k", "n"])
def test_what_can_not_be_said_is_refused_by_name(name):
    with pytest.raises(LocalProtocolError, match=name):
        CODEC.dialect.encode_request(Request(model="m", messages=ASKED.messages, **{name: 2}))


# boto3, and our client, against the simulator

MODEL = "anthropic.claude-3-haiku-20240307-v1:0"
SCENARIOS = {
    MODEL: Scenario(ttft=0.0, tps=0, tokens=40),
    "cut": Scenario(ttft=0.0, tps=0, tokens=60, faults=(Fault(kind="cut", events=20, times=1),)),
    "us.anthropic.claude-3-cut": Scenario(
        ttft=0.0, tps=0, tokens=60, faults=(Fault(kind="cut", events=20, times=1),)
    ),
    "down": Scenario(faults=(Fault(kind="status", status=503),)),
    "slow": Scenario(ttft=0.0, faults=(Fault(kind="error", events=3, type="rate_limit_error"),)),
    "split": Scenario(ttft=0.0, tps=0, tokens=20, faults=(Fault(kind="split"),)),
    "garble": Scenario(ttft=0.0, tps=0, tokens=20, faults=(Fault(kind="garble", events=5),)),
}
ASK = [{"role": "user", "content": [{"text": "Tell me about cats."}]}]
TOOLS = {
    "tools": [
        {
            "toolSpec": {
                "name": "weather",
                "inputSchema": {
                    "json": {"type": "object", "properties": {"city": {"type": "string"}}}
                },
            }
        }
    ]
}


@pytest.fixture(scope="module")
def url():
    with running(SCENARIOS) as address:
        yield address


@pytest.fixture(scope="module")
def aws(url):
    client = boto3.client(
        "bedrock-runtime",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="id",
        aws_secret_access_key="secret",
        config=Config(retries={"total_max_attempts": 1}),
    )
    yield client
    client.close()


def streamed(aws, model, ask=ASK, **given_):
    with contextlib.closing(
        aws.converse_stream(modelId=model, messages=ask, **given_)["stream"]
    ) as stream:
        return list(stream)


def test_boto3_folds_what_we_stream(aws):
    whole = aws.converse(modelId=MODEL, messages=ASK)
    events = streamed(aws, MODEL)
    deltas = [e["contentBlockDelta"]["delta"]["text"] for e in events if "contentBlockDelta" in e]

    assert "".join(deltas) == whole["output"]["message"]["content"][0]["text"] != ""
    assert events[-1]["metadata"]["usage"]["outputTokens"] == whole["usage"]["outputTokens"] == 40
    assert events[-2]["messageStop"]["stopReason"] == whole["stopReason"] == "end_turn"


def test_boto3_gets_a_tool_call(aws):
    ask = [{"role": "user", "content": [{"text": "the weather in Rome"}]}]
    whole = aws.converse(modelId=MODEL, messages=ask, toolConfig=TOOLS)
    use = whole["output"]["message"]["content"][0]["toolUse"]
    events = streamed(aws, MODEL, ask, toolConfig=TOOLS)
    deltas = [e["contentBlockDelta"]["delta"] for e in events if "contentBlockDelta" in e]

    assert use["name"] == "weather"
    assert json.loads("".join(d["toolUse"]["input"] for d in deltas)) == use["input"]


def test_boto3_raises_what_we_refuse(aws):
    with pytest.raises(ClientError) as down:
        aws.converse(modelId="down", messages=ASK)
    with pytest.raises(EventStreamError) as throttled:
        streamed(aws, "slow")

    assert down.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    assert "throttlingException" in str(throttled.value)


@pytest.fixture
def keyed(url):
    with Client(api_key="k", base_url={"bedrock": url}) as client:
        yield client


def test_our_client_and_boto3_hear_the_same(aws, keyed):
    with keyed.stream(f"bedrock/{MODEL}", "Tell me about cats.") as stream:
        text = "".join(stream.text)
    theirs = aws.converse(modelId=MODEL, messages=ASK)["output"]["message"]["content"][0]["text"]

    assert text == keyed.complete(f"bedrock/{MODEL}", "Tell me about cats.").text == theirs
    assert stream.response.usage.output_tokens == 40


@pytest.mark.parametrize(
    ("model", "how"), [("cut", "prompt"), ("us.anthropic.claude-3-cut", "continue")]
)
def test_a_cut_answer_goes_on(keyed, model, how):
    with keyed.stream(f"bedrock/{model}", "Tell me about cats.") as stream:
        text = "".join(stream.text)

    assert text == keyed.complete(f"bedrock/{model}", "Tell me about cats.").text
    assert [a.how for a in stream.response.attempts] == ["start", how]


@pytest.mark.parametrize("model", ["split", "garble"])
def test_faults_of_the_simulator_make_sense_in_binary(keyed, model):
    with keyed.stream(f"bedrock/{model}", "cats") as stream:
        text = "".join(stream.text)

    assert text
    assert stream.response.usage.output_tokens == 20
    assert stream.response.skipped_events == (model == "garble")


def test_our_async_client_streams_too(url):
    async def ask():
        async with AsyncClient(api_key="k", base_url={"bedrock": url}) as client:
            return await client.complete(f"bedrock/{MODEL}", "cats")

    assert asyncio.run(ask()).end == "complete"


# Signatures


def test_we_sign_as_botocore_does(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    provider = registry.provider("bedrock")
    base = "https://bedrock-runtime.eu-west-1.amazonaws.com"
    request = Request(model=MODEL, messages=ASKED.messages)
    http = provider.http_request(request, "", base)
    theirs = AWSRequest(
        "POST", http.url, data=http.body, headers={"content-type": "application/json"}
    )
    signer = SigV4Auth(Credentials("AKIDEXAMPLE", "secret", "token"), "bedrock", "eu-west-1")
    theirs.context["timestamp"] = http.headers["x-amz-date"]
    theirs.headers["X-Amz-Date"] = http.headers["x-amz-date"]
    theirs.headers["X-Amz-Security-Token"] = "token"
    text = signer.string_to_sign(theirs, signer.canonical_request(theirs))

    assert "%3A0/converse-stream" in http.url
    assert http.headers["authorization"].endswith(signer.signature(text, theirs))
    assert http.headers["x-amz-security-token"] == "token"
    assert "/eu-west-1/bedrock/aws4_request" in http.headers["authorization"]


@pytest.mark.parametrize("variable", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_at_an_address_of_ones_own_the_environment_says_the_region(variable, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_CONFIG_FILE", "nowhere")
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    provider = registry.provider("bedrock")

    with pytest.raises(ConfigurationError, match="AWS_REGION or AWS_DEFAULT_REGION"):
        provider.http_request(ASKED, "", "https://x.example")
    monkeypatch.setenv(variable, "eu-west-3")
    http = provider.http_request(ASKED, "", "https://x.example")

    assert "/eu-west-3/bedrock/aws4_request" in http.headers["authorization"]


def test_a_bearer_key_needs_no_signature():
    http = registry.provider("bedrock").http_request(ASKED, "key", "https://x.example")

    assert http.headers["authorization"] == "Bearer key"
