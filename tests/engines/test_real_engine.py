"""Against llama.cpp's own server, with a random model made on the spot.

What is said is nonsense, but each character is one token and at temperature 0 it is always the
same, so that answers can be compared to the last character, and their tokens be counted.
"""

import asyncio
import random
import time

import msgspec
import pytest

from unbroken import (
    AsyncClient,
    AuthenticationFailed,
    Client,
    ContextTooLong,
    Conversation,
    RecoveryPolicy,
)

pytestmark = pytest.mark.slow

KEY = "tiny-key"
MODEL = "llamacpp/tiny"
PATIENT = RecoveryPolicy(attempts=100, backoff=0)
LONG = "hello"  # its answer is some hundred characters


def where(url):
    """The base URL of each provider that this server can play."""
    alike = ("llamacpp", "compatible", "openai", "openai-responses", "vllm")
    return {name: f"{url}/v1" for name in alike} | {"anthropic": url}


@pytest.fixture
def client(engine):
    with Client(base_url=where(engine.url), api_key=KEY) as client:
        yield client


def blocking(url, model, prompt, **parameters):
    with Client(base_url=where(url), api_key=KEY) as client:
        with client.stream(model, prompt, temperature=0, **parameters) as stream:
            pieces = list(stream.text)
    return pieces, stream.response


def awaiting(url, model, prompt, **parameters):
    async def run():
        async with AsyncClient(base_url=where(url), api_key=KEY) as client:
            async with client.stream(model, prompt, temperature=0, **parameters) as stream:
                pieces = [piece async for piece in stream.text]
        return pieces, stream.response

    return asyncio.run(run())


both = pytest.mark.parametrize("ask", [blocking, awaiting])


@pytest.fixture
def uncut(engine):
    """The answer to a prompt, by a road that holds."""
    return lambda prompt=LONG, **more: blocking(engine.url, MODEL, prompt, **more)[1]


@both
def test_it_streams_with_usage_and_a_finish_reason(engine, ask):
    pieces, response = ask(engine.url, MODEL, "hello")

    assert len(pieces) > 10
    assert "".join(pieces) == response.text
    assert (response.end, response.finish_reason) == ("complete", "stop")
    assert response.usage.output_tokens == len(response.text) + 1  # the end is a token too
    assert response.usage.source == "reported"
    assert response.model == "tiny"


@both
def test_a_limit_of_tokens_is_kept(engine, ask):
    _, response = ask(engine.url, MODEL, LONG, max_tokens=7)

    assert (len(response.text), response.finish_reason) == (7, "length")
    assert response.usage.output_tokens == 7


def test_a_stop_sequence_ends_the_answer_before_it(engine, uncut):
    whole = uncut().text
    stop = whole[20:23]

    assert blocking(engine.url, MODEL, LONG, stop=stop)[1].text == whole[: whole.index(stop)]


@pytest.mark.parametrize(
    "model", ["openai/tiny", "compatible/tiny", "anthropic/tiny", "openai-responses/tiny"]
)
def test_other_dialects_tell_the_same_answer(engine, uncut, model):
    expected, (_, response) = uncut(), blocking(engine.url, model, LONG)

    assert response.text == expected.text
    assert response.finish_reason == "stop"
    assert response.usage.input_tokens == expected.usage.input_tokens
    assert response.usage.output_tokens == expected.usage.output_tokens


def test_an_answer_in_one_piece_is_the_same(client, uncut):
    assert client.complete(MODEL, LONG, temperature=0).text == uncut().text


# A road that breaks

CUTS = [100, 700, 5_000, 100_000]  # in the headers, in an event, later


@both
@pytest.mark.parametrize("how", ["reset", "close"])
@pytest.mark.parametrize("cut", CUTS)
def test_a_cut_answer_is_continued_to_the_last_character(road, engine, uncut, ask, cut, how):
    broken = road(engine, [cut], how)
    pieces, response = ask(broken.url, MODEL, LONG, recovery=PATIENT)

    assert broken.cut == 1
    assert "".join(pieces) == response.text == uncut().text
    assert [attempt.how for attempt in response.attempts] == [
        "start",
        "start" if cut == 100 else "continue",
    ]


@both
def test_an_answer_that_is_cut_again_and_again_is_whole(road, engine, uncut, ask):
    dice = random.Random(3)
    for _ in range(10):
        broken = road(engine, [dice.randint(1, 6_000) for _ in range(8)])
        pieces, response = ask(broken.url, MODEL, LONG, recovery=PATIENT)

        assert broken.cut > 2
        assert "".join(pieces) == uncut().text
        assert response.end == "complete"


@pytest.mark.parametrize("model", ["compatible/tiny", "openai/tiny"])
def test_where_nothing_can_be_continued_the_answer_is_asked_again(road, engine, uncut, model):
    broken = road(engine, [5_000, 9_000])
    pieces, response = blocking(broken.url, model, LONG, recovery=PATIENT)

    assert "".join(pieces) == uncut().text
    assert [attempt.how for attempt in response.attempts] == ["start", "replay", "replay"]


def test_a_cut_does_not_make_an_answer_longer_than_its_limit(road, engine, uncut):
    pieces, response = blocking(
        road(engine, [5_000]).url, MODEL, LONG, recovery=PATIENT, max_tokens=300
    )

    assert "".join(pieces) == uncut(max_tokens=300).text
    assert response.finish_reason == "length"


def test_leaving_stops_the_engine_at_once(client, engine):
    before = engine.log.read_text().count("cancel task")
    endless = {"ignore_eos": True}
    with client.stream(MODEL, "hello", max_tokens=4000, extra=endless) as stream:
        next(stream.text)

    ends = time.monotonic() + 60
    while engine.log.read_text().count("cancel task") == before:
        assert time.monotonic() < ends
        time.sleep(0.05)
    assert stream.response.end == "cancelled"


# What this server does with a message of the assistant at the end: docs/reference/wire-formats.md

BEGUN = 12


def begun(text):
    begin = {"role": "assistant", "content": text[:BEGUN]}
    return [{"role": "user", "content": LONG}, begin]


@pytest.mark.parametrize("model", [MODEL, "vllm/tiny"])
def test_told_to_with_two_fields_a_stream_says_only_the_rest(engine, uncut, model):
    whole = uncut().text

    assert blocking(engine.url, model, begun(whole))[1].text == whole[BEGUN:]


def test_in_one_piece_or_without_the_two_fields_it_says_the_beginning_too(engine, client, uncut):
    whole = uncut().text

    assert client.complete(MODEL, begun(whole), temperature=0).text == whole
    assert blocking(engine.url, "compatible/tiny", begun(whole))[1].text == whole


# What is asked besides


def test_a_schema_is_kept_to(client):
    properties = {"city": {"enum": ["oslo", "rome"]}, "warm": {"type": "boolean"}}
    schema = {"type": "object", "properties": properties, "required": ["city", "warm"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "weather", "schema": schema}}
    found = msgspec.json.decode(client.complete(MODEL, LONG, response_format=wanted).text)

    assert found["city"] in ("oslo", "rome")
    assert isinstance(found["warm"], bool)


def test_logprobs_come_for_each_token(engine):
    asked = {"logprobs": True, "top_logprobs": 2, "max_tokens": 5}
    _, response = blocking(engine.url, MODEL, LONG, **asked)
    likely = response.choices[0].logprobs.text

    assert "".join(one.token for one in likely) == response.text
    assert all(len(one.top) == 2 for one in likely)


def test_too_long_a_prompt_is_told(client):
    with pytest.raises(ContextTooLong, match="4096"):
        client.complete(MODEL, "a b " * 4000)


def test_a_wrong_key_is_told(engine):
    with Client(base_url=where(engine.url), api_key="wrong") as client:
        with pytest.raises(AuthenticationFailed):
            client.complete(MODEL, "hello")


def test_a_conversation_counts_what_the_engine_counted(client):
    chat = Conversation(client, MODEL, system="be brief", max_tokens=30)
    first, second = chat.complete("hello"), chat.complete("and then?")

    assert second.usage.input_tokens > first.usage.input_tokens + 30
    assert chat.tokens == second.usage.input_tokens + second.usage.output_tokens


def test_a_batch_is_answered_in_order(client):
    prompts = ["a" * n for n in range(1, 41)]
    results = client.map(prompts, model=MODEL, max_tokens=20)
    took = [answer.usage.input_tokens for answer in results.responses]

    assert took == [*range(took[0], took[0] + 40)]  # each character is a token


# The server of llama-cpp-python: it tells no usage while it streams, and knows no beginnings


@both
def test_a_stream_without_usage_is_complete_all_the_same(binding, ask):
    _, response = ask(binding.url, "compatible/tiny", LONG)

    assert (response.end, response.finish_reason, response.usage) == ("complete", "stop", None)


@both
@pytest.mark.parametrize("cut", [100, 700, 5_000])
def test_there_a_cut_answer_is_replayed(road, binding, ask, cut):
    expected = blocking(binding.url, "compatible/tiny", LONG)[1].text
    broken = road(binding, [cut])
    pieces, response = ask(broken.url, "compatible/tiny", LONG, recovery=PATIENT)

    assert broken.cut == 1
    assert "".join(pieces) == expected
    assert response.attempts[1].how == ("replay" if cut == 5_000 else "start")


def test_there_a_beginning_is_a_turn_like_any_other(binding):
    with Client(base_url=where(binding.url)) as client:
        for model in ("compatible/tiny", MODEL):
            answer = client.complete(model, begun("abcdefghijkl"), temperature=0, max_tokens=1)
            alone = client.complete(model, LONG, temperature=0, max_tokens=1)

            # the turn's end and the beginning of another one are more than its characters
            assert answer.usage.input_tokens > alone.usage.input_tokens + BEGUN
