"""The official SDKs fold the same bytes to the same answer as we do, without a socket between.

Each SDK reads from a transport of its own HTTP library that answers with given bytes, in pieces:
golden ones, and what our encoders write of drawn answers.
"""

import asyncio
from pathlib import Path

import anthropic
import httpx2
import msgspec
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unbroken.engine.accumulate import Accumulator
from unbroken.events import (
    ChoiceEnd,
    MessageEnd,
    MessageStart,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
)
from unbroken.messages import Message, Request, Text
from unbroken.wire import anthropic_messages, openai_chat

DATA = Path(__file__).parent.parent / "data/wire"
GOLDEN = {path.stem: path.read_bytes() for path in sorted(DATA.glob("*.sse"))}
QUESTION = Request(model="m", messages=(Message("user", (Text("hi"),)),))
PROMPT = [{"role": "user", "content": "hi"}]
CODECS = {"openai": openai_chat.CODEC, "anthropic": anthropic_messages.CODEC}
PIECE = 700
calm = settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


class Pieces(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body that comes in pieces, for either kind of client."""

    def __init__(self, body):
        self.pieces = [body[at : at + PIECE] for at in range(0, len(body), PIECE)]

    def __iter__(self):
        yield from self.pieces

    async def __aiter__(self):
        for piece in self.pieces:
            yield piece


def answering(body):
    """A transport whose every answer is `body`."""
    headers = {"content-type": "text/event-stream"}
    return httpx2.MockTransport(
        lambda request: httpx2.Response(200, headers=headers, stream=Pieces(body))
    )


# Their answers, as (text, reasoning, calls, reason, output tokens)


def openai_sync(body):
    with (
        httpx2.Client(transport=answering(body)) as http,
        openai.OpenAI(api_key="k", base_url="https://peer.test/v1", http_client=http) as client,
        client.chat.completions.stream(model="m", messages=PROMPT) as stream,
    ):
        return of_completion(stream.get_final_completion())


def openai_async(body):
    async def ask():
        async with (
            httpx2.AsyncClient(transport=answering(body)) as http,
            openai.AsyncOpenAI(api_key="k", base_url="https://peer.test/v1", http_client=http) as c,
            c.chat.completions.stream(model="m", messages=PROMPT) as stream,
        ):
            return of_completion(await stream.get_final_completion())

    return asyncio.run(ask())


def of_completion(completion):
    choice = completion.choices[0]
    message = choice.message
    calls = [(c.id, c.function.name, c.function.arguments) for c in message.tool_calls or ()]
    tokens = completion.usage.completion_tokens
    return (message.content or "", calls, choice.finish_reason, tokens)


def anthropic_sync(body):
    with (
        httpx2.Client(transport=answering(body)) as http,
        anthropic.Anthropic(api_key="k", base_url="https://peer.test", http_client=http) as client,
        client.messages.stream(model="m", max_tokens=9, messages=PROMPT) as stream,
    ):
        return of_message(stream.get_final_message())


def anthropic_async(body):
    async def ask():
        async with (
            httpx2.AsyncClient(transport=answering(body)) as http,
            anthropic.AsyncAnthropic(
                api_key="k", base_url="https://peer.test", http_client=http
            ) as c,
            c.messages.stream(model="m", max_tokens=9, messages=PROMPT) as stream,
        ):
            return of_message(await stream.get_final_message())

    return asyncio.run(ask())


def of_message(message):
    def joined(kind, field):
        return "".join(getattr(b, field) for b in message.content if b.type == kind)

    calls = [(b.id, b.name, b.input) for b in message.content if b.type == "tool_use"]
    usage = message.usage
    cached = (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
    said = joined("text", "text"), joined("thinking", "thinking")
    counts = usage.input_tokens + cached, usage.output_tokens
    return (*said, calls, message.stop_reason, counts)


THEIRS = {
    "openai": {"sync": openai_sync, "async": openai_async},
    "anthropic": {"sync": anthropic_sync, "async": anthropic_async},
}


# Our answers, in the same shape


def folded(name, body):
    decoder = CODECS[name].decoder(QUESTION)
    fold = Accumulator()
    fold.add([*decoder.feed(body), *decoder.eof()])
    return fold, fold.choices(complete=True)[0]


def ours(name, body):
    fold, choice = folded(name, body)
    if name == "anthropic":
        calls = [(c.id, c.name, c.arguments) for c in choice.tool_calls]
        counts = fold.usage.input_tokens, fold.usage.output_tokens
        return (choice.text, choice.reasoning, calls, choice.raw_finish_reason, counts)
    calls = [(c.id, c.name, as_json(c.arguments)) for c in choice.tool_calls]
    return (choice.text, calls, choice.raw_finish_reason, fold.usage.output_tokens)


def as_json(value):
    return msgspec.json.encode(value).decode()


def same_spacing(answer):
    """The calls' arguments in one spelling: spaces between the tokens of JSON say nothing."""
    text, calls, *rest = answer
    spelled = [(id, name, as_json(msgspec.json.decode(args or "{}"))) for id, name, args in calls]
    return (text, spelled, *rest)


def agree(name, mode, body):
    theirs, mine = THEIRS[name][mode](body), ours(name, body)
    return theirs == mine if name == "anthropic" else same_spacing(theirs) == same_spacing(mine)


both_modes = pytest.mark.parametrize("mode", ["sync", "async"])

# Ollama gives every call the index 0; Azure sends a delta that is null. The tests below say what
# becomes of that.
ODD = ("openai-ollama", "openai-azure")


@both_modes
@pytest.mark.parametrize("name", [name for name in GOLDEN if name not in ODD])
def test_they_fold_golden_bytes_as_we_do(name, mode):
    assert agree(name.split("-")[0], mode, GOLDEN[name])


def test_they_glue_calls_at_one_index_together_and_we_do_not():
    _, calls, *_ = openai_sync(GOLDEN["openai-ollama"])
    _, choice = folded("openai", GOLDEN["openai-ollama"])

    assert len(calls) == 1
    assert [call.arguments for call in choice.tool_calls] == [{"city": "Rome"}, {"city": "Oslo"}]


def test_a_null_delta_of_azure_is_nothing():
    _, choice = folded("openai", GOLDEN["openai-azure"])

    assert choice.text == "The capital is Paris."
    assert openai_sync(GOLDEN["openai-azure"])[0] == choice.text


# What we write

WORDS = st.text(min_size=1, max_size=8)
ARGUMENTS = st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=6), max_size=3)
PIECES = st.lists(
    st.one_of(
        WORDS.map(TextDelta),
        WORDS.map(ReasoningDelta),
        st.tuples(ARGUMENTS, st.integers(0, 30)),
    ),
    max_size=8,
)


def answer_of(pieces, raw):
    """A whole answer; the arguments of a call come in two fragments."""
    events, calls = [MessageStart("id", "m")], 0
    for piece in pieces:
        if not isinstance(piece, tuple):
            events.append(piece)
            continue
        text, at = as_json(piece[0]), piece[1]
        events.append(ToolCallStart(calls, f"id-{calls}", f"f{calls}"))
        events += [ToolCallDelta(calls, part) for part in (text[:at], text[at:]) if part]
        calls += 1
    usage = Usage(input_tokens=30, output_tokens=5, cached_input_tokens=10)
    return [*events, ChoiceEnd("stop", raw), MessageEnd("stop", usage, raw)]


def encoded(name, events):
    writer = CODECS[name].dialect.writer(QUESTION)
    return b"".join(CODECS[name].encode(writer, event) for event in events)


@pytest.mark.parametrize(("name", "raw"), [("openai", "stop"), ("anthropic", "end_turn")])
@both_modes
@calm
@given(pieces=PIECES)
def test_they_fold_what_we_write_as_we_do(name, raw, mode, pieces):
    assert agree(name, mode, encoded(name, answer_of(pieces, raw)))


def test_arguments_in_turns_reach_the_calls_they_belong_to():
    calls = [ToolCallStart(0, "a", "f"), ToolCallStart(1, "b", "g")]
    grown = [
        ToolCallDelta(at, text) for at, text in ((0, '{"x"'), (1, '{"y"'), (0, ":1}"), (1, ":2}"))
    ]
    events = [MessageStart("id", "m"), *calls, *grown, *answer_of([], "end_turn")[1:]]

    _, _, theirs, *_ = anthropic_sync(encoded("anthropic", events))

    assert theirs == [("a", "f", {"x": 1}), ("b", "g", {"y": 2})]


# What breaks


def test_their_error_is_our_error():
    body = (DATA / "broken/anthropic-overloaded.sse").read_bytes()
    decoder = CODECS["anthropic"].decoder(QUESTION)
    decoder.feed(body)

    with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
        anthropic_sync(body)
    assert decoder.error.message == "Overloaded"


def test_the_error_of_a_router_is_an_error_for_both():
    body = (DATA / "broken/openai-openrouter.sse").read_bytes()
    decoder = CODECS["openai"].decoder(QUESTION)
    decoder.feed(body)

    with pytest.raises(openai.APIError, match="Provider disconnected"):
        openai_sync(body)
    assert (decoder.error.status, decoder.error.retryable) == (502, True)
