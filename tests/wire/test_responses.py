"""OpenAI's Responses API: both ways, by hand, and with the official SDK."""

import asyncio
import contextlib
import json

import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unbroken import AsyncClient, Client
from unbroken.errors import (
    BadRequest,
    ContextTooLong,
    LocalProtocolError,
    QuotaExhausted,
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
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
    UsageReport,
)
from unbroken.messages import Image, Message, Request, Text
from unbroken.simulator.app import running
from unbroken.simulator.scenario import Fault, Scenario
from unbroken.wire.openai_responses.dialect import CODEC

ASKED = Request(model="m", messages=(Message("user", (Text("hi"),)),))
WORD = st.text(min_size=1, max_size=8).filter(lambda text: "\x00" not in text)


def said(events):
    writer = CODEC.dialect.writer(ASKED)
    return b"".join(CODEC.encode(writer, event) for event in events)


def heard(*reads):
    decoder = CODEC.decoder(ASKED)
    events = [event for read in reads for event in decoder.feed(read)]
    return [*events, *decoder.eof()], decoder


def block(kind, number=0, **fields):
    body = {"type": kind, "sequence_number": number, **fields}
    return f"event: {kind}\ndata: {json.dumps(body)}\n\n".encode()


@st.composite
def answers(draw):
    """A whole answer: pieces of text, reasoning and refusals, then calls that grow side by side."""
    kinds = st.sampled_from([TextDelta, ReasoningDelta, RefusalDelta])
    pieces = draw(st.lists(st.builds(lambda kind, text: kind(text), kinds, WORD), max_size=8))
    count = draw(st.integers(0, 3))
    calls = [ToolCallStart(at, f"c{at}", f"f{at}") for at in range(count)]
    grown = draw(st.lists(st.tuples(st.integers(0, 2), WORD), max_size=8)) if count else []
    spelled = [ToolCallDelta(at % count, text) for at, text in grown]
    number = st.integers(1, 99)
    usage = Usage(input_tokens=draw(number), output_tokens=draw(number))
    ends = [("length", "max_output_tokens"), ("content_filter", "content_filter")]
    whole = ("tool_calls" if count else "stop", "completed")
    reason, raw = draw(st.sampled_from([*ends, whole]))
    end = [UsageReport(usage), ChoiceEnd(reason, raw), MessageEnd(reason, usage, raw)]
    return [MessageStart("r1", "m"), *pieces, *calls, *spelled, *end]


@settings(deadline=None)
@given(answers(), st.lists(st.integers(0, 5000), max_size=9))
def test_what_is_said_is_heard_however_it_is_cut(events, places):
    body = said([e for e in events if not isinstance(e, UsageReport)])
    edges = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    got, decoder = heard(*(body[a:b] for a, b in zip(edges, edges[1:], strict=False)))

    got = [e for e in got if not isinstance(e, Boundary) and e != ReasoningDelta("\n\n")]
    assert got == events
    assert (decoder.skipped, decoder.error, decoder.done) == (0, None, True)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_garbage_raises_nothing_but_a_protocol_error(data):
    with contextlib.suppress(RemoteProtocolError):
        heard(b"data: " + data + b"\n\n", data)
    with contextlib.suppress(RemoteProtocolError):
        CODEC.dialect.decode_response(data)
    with pytest.raises(BadRequest):
        CODEC.dialect.decode_request(b"\xff" + data)


CREATED = block("response.created", 0, response={"id": "r1", "model": "m", "status": "in_progress"})

FAILURES = [
    (block("error", 1, code="rate_limit_exceeded", message="slow", param=None), RateLimited),
    (block("error", 1, error={"code": "insufficient_quota", "message": "no"}), QuotaExhausted),
    (block("error", 1, code="server_error", message="x", param={"a": 1}), ServerError),
    (
        block(
            "response.failed",
            1,
            response={
                "status": "failed",
                "error": {"code": "context_length_exceeded", "message": "long"},
            },
        ),
        ContextTooLong,
    ),
]


@pytest.mark.parametrize(("body", "kind"), FAILURES)
def test_a_failure_after_the_200_has_its_class(body, kind):
    events, decoder = heard(CREATED + block("response.output_text.delta", 0, delta="a") + body)

    assert type(decoder.error) is kind
    assert events[0] == MessageStart("r1", "m")


def test_a_stream_that_just_ends_proves_nothing():
    events, decoder = heard(CREATED + block("response.output_text.delta", 1, delta="a"))

    assert events[-1] == TextDelta("a")
    assert not decoder.done


def test_tools_of_the_provider_and_unknown_events_are_kept():
    item = {"type": "web_search_call", "id": "ws1", "status": "completed"}
    body = (
        CREATED
        + block("response.web_search_call.searching", 1, item_id="ws1")
        + block("response.output_item.added", 2, output_index=0, item=item)
        + block("response.output_item.done", 3, output_index=0, item=item)
    )
    events, _ = heard(body)
    kept = [event for event in events if isinstance(event, OtherEvent)]

    assert [event.name for event in kept] == [
        "response.web_search_call.searching",
        "web_search_call",
    ]
    assert json.loads(kept[1].data) == item


def test_a_call_that_comes_whole_is_a_call():
    item = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a":1}'}
    events, _ = heard(CREATED + block("response.output_item.done", 1, output_index=0, item=item))

    assert events[2:-1] == [ToolCallStart(0, "c1", "f"), ToolCallDelta(0, '{"a":1}')]


def test_only_a_background_answer_can_be_followed_again_and_nothing_is_heard_twice():
    answer = {"id": "r1", "model": "m", "background": True}
    first = block("response.created", 0, response=answer)
    grown = [block("response.output_text.delta", n, delta=f"{n} ") for n in range(1, 6)]
    decoder = CODEC.decoder(ASKED)
    before = decoder.feed(first + b"".join(grown[:3]))
    assert decoder.cursor == {"id": "r1", "sequence": "3"}
    after = decoder.resumed().feed(b"".join(grown[1:]))

    assert "".join(e.text for e in before + after if isinstance(e, TextDelta)) == "1 2 3 4 5 "
    assert heard(CREATED)[1].cursor is None


@pytest.mark.parametrize("name", ["top_k", "seed", "frequency_penalty"])
def test_what_can_not_be_said_is_refused_by_name(name):
    value = ("x",) if name == "stop" else 1
    request = Request(model="m", messages=ASKED.messages, **{name: value})

    with pytest.raises(LocalProtocolError, match=name):
        CODEC.dialect.encode_request(request)


# The official SDK, and our client, against the simulator

SCENARIOS = {
    "cut": Scenario(tokens=60, ttft=0.0, tps=0, faults=(Fault(kind="cut", events=20, times=1),)),
    "down": Scenario(faults=(Fault(kind="status", status=503),)),
    "overloaded": Scenario(faults=(Fault(kind="error", events=3, type="rate_limit_error"),)),
}
WEATHER = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


@pytest.fixture(scope="module")
def url():
    with running(SCENARIOS) as address:
        yield f"{address}/v1"


@pytest.fixture
def sdk(url):
    with openai.OpenAI(api_key="k", base_url=url, max_retries=0) as client:
        yield client.responses


def test_the_sdk_folds_what_we_stream(sdk):
    whole = sdk.create(model="sim/demo", input="Tell me about cats.")
    with sdk.stream(model="sim/demo", input="Tell me about cats.") as stream:
        text = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
        final = stream.get_final_response()

    assert text == final.output_text == whole.output_text != ""
    assert final.status == whole.status
    assert final.usage.output_tokens == whole.usage.output_tokens > 0


def test_the_sdk_gets_a_tool_call(sdk):
    given_ = {"model": "sim/x", "input": "the weather in Rome", "tools": [WEATHER]}
    whole = sdk.create(**given_)
    with sdk.stream(**given_) as stream:
        final = stream.get_final_response()

    assert whole.output[0].name == final.output[0].name == "weather"
    assert json.loads(final.output[0].arguments) == json.loads(whole.output[0].arguments)


def test_the_sdk_raises_what_we_refuse(sdk):
    with pytest.raises(openai.InternalServerError):
        sdk.create(model="down", input="x")
    with pytest.raises(openai.APIError):
        for _ in sdk.create(model="overloaded", input="x", stream=True):
            pass
    with pytest.raises(openai.BadRequestError):
        sdk.create(model="demo", input=[{"role": "king", "content": "x"}])


def test_the_sdk_follows_a_background_answer_again(sdk):
    seen, text, name = 0, "", ""
    for event in sdk.create(model="demo?ttft=0&tps=0", input="cats", background=True, stream=True):
        seen, name = event.sequence_number, name or event.response.id
        text += event.delta if event.type == "response.output_text.delta" else ""
        if event.sequence_number > 9:
            break
    rest = sdk.retrieve(name, stream=True, starting_after=seen)
    text += "".join(e.delta for e in rest if e.type == "response.output_text.delta")

    assert text == sdk.retrieve(name).output_text
    assert sdk.cancel(name).status == "cancelled"


@pytest.mark.parametrize("background", [True, False])
def test_our_client_resumes_a_background_answer_and_continues_any_other(url, background):
    extra = {"extra": {"background": True}} if background else {}
    with Client(api_key="k", base_url=url) as client:
        model = f"openai-responses/cut?seed={int(background)}"  # faults are counted by name
        with client.stream(model, "cats", **extra) as stream:
            text = "".join(stream.text)
        calm = client.complete(model, "cats")

    assert text == calm.text == stream.response.text
    assert [a.how for a in stream.response.attempts] == [
        "start",
        "resume" if background else "prompt",
    ]


def test_our_async_client_streams_too(url):
    async def ask():
        async with AsyncClient(api_key="k", base_url=url) as client:
            async with client.stream("openai-responses/demo?ttft=0&tps=0", "cats") as stream:
                async for _ in stream:
                    pass
            return stream.response

    assert asyncio.run(ask()).end == "complete"


@pytest.mark.parametrize("kind", ["input_text", "input_image"])
def test_what_a_function_gave_is_kept_in_parts(kind):
    part = {"type": kind, **({"text": "42"} if kind == "input_text" else {"image_url": "data:,"})}
    item = {"type": "function_call_output", "call_id": "c", "output": [part]}
    body = json.dumps({"model": "m", "input": [item]}).encode()

    (message,) = CODEC.dialect.decode_request(body).messages
    expected = Text("42") if kind == "input_text" else Image("data:,")
    assert message.parts[0].content == (expected,)
