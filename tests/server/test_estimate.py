"""What an answer is charged where its provider reports no usage, or none that can be true."""

import asyncio

import msgspec
import pytest

from unbroken import AsyncClient
from unbroken.errors import UnbrokenError
from unbroken.events import Usage
from unbroken.messages import Image, Message, Request, Text, messages_from
from unbroken.metrics.prices import quote
from unbroken.metrics.timing import StreamMetrics
from unbroken.server.estimate import MAX_OUTPUT, cost_of, usage_of
from unbroken.simulator.scenario import Fault, Scenario
from unbroken.simulator.transport import AsyncSimulatorTransport

ASKED = Request(model="m", messages=messages_from("Tell me about cats. " * 20))
SLOW = Scenario(ttft=0.1, tps=50, tokens=100)


def answered(model, scenario=SLOW, stop=None):
    """The answer, or as far as it had come when `stop` characters were there."""

    async def main():
        client = AsyncClient(api_key="k", transport=AsyncSimulatorTransport({"*": scenario}))
        async with client, client.stream(model, ASKED) as stream:
            try:
                async for _ in stream:
                    if stop is not None and len(stream.response.text) >= stop:
                        await stream.abort()
            except UnbrokenError:
                assert stop is None
        return stream.response

    return asyncio.run(main())


def test_a_stopped_answer_is_priced_by_the_length_of_its_texts():
    response = answered("openai/gpt-4o", stop=100)
    usage = charged(ASKED, response)

    assert (response.end, response.usage) == ("cancelled", None)
    assert usage.source == "estimated"
    assert 100 <= usage.input_tokens < 120
    assert usage.output_tokens == -(-len(response.text.encode()) // 4) >= 25
    assert cost_of(ASKED, response, usage) == quote("openai", "gpt-4o", usage) > 0


def test_what_was_reported_early_is_never_made_less():
    response = answered("anthropic/claude-sonnet-4-5", stop=100)
    usage = charged(ASKED, response)

    assert response.usage.source == "partial"
    assert usage.input_tokens >= response.usage.input_tokens > 0
    assert usage.output_tokens >= 25 > response.usage.output_tokens
    assert cost_of(ASKED, response, usage) > response.cost


def test_one_token_that_was_reported_at_the_start_is_not_believed():
    stopped = answered("anthropic/claude-sonnet-4-5", stop=100)
    early = Usage(input_tokens=9000, output_tokens=1, source="partial")
    usage = charged(ASKED, msgspec.structs.replace(stopped, usage=early))

    assert (usage.input_tokens, usage.source) == (9000, "estimated")
    assert usage.output_tokens >= 25


def test_an_answer_that_broke_off_counts_as_far_as_it_came():
    stopped = answered("openai/gpt-4o", stop=100)
    broken = msgspec.structs.replace(stopped, end="failed")

    assert charged(ASKED, broken) == charged(ASKED, stopped)


def test_a_whole_answer_counts_as_reported():
    response = answered("openai/gpt-4o")

    assert charged(ASKED, response) is response.usage
    assert cost_of(ASKED, response, response.usage) == response.cost > 0


def test_a_refused_request_used_nothing():
    refusal = Scenario(faults=(Fault(kind="status", status=401),))

    assert charged(ASKED, answered("openai/gpt-4o", refusal)) is None


def test_where_no_price_is_known_there_is_none():
    response = answered("sim/m", stop=100)

    assert cost_of(ASKED, response, charged(ASKED, response)) is None


def test_whoever_stops_before_the_first_word_has_still_asked():
    response = answered("openai/gpt-4o", stop=0)

    assert charged(ASKED, response).input_tokens >= 100


def test_the_bytes_of_an_image_are_no_words():
    image = Image("data:image/png;base64," + "A" * 1_000_000)
    asked = Request(model="m", messages=(Message("user", (Text("What is this?"), image)),))

    assert 1000 < charged(asked, answered("openai/gpt-4o", stop=10)).input_tokens < 1100


def charged(request, response, metrics=StreamMetrics()):
    return usage_of(request, response, metrics)


def reporting(response, **fields):
    """The answer, if its provider had reported that."""
    usage = Usage(**{"input_tokens": 120, "output_tokens": 100, **fields})
    attempts = tuple(msgspec.structs.replace(a, usage=usage) for a in response.attempts)
    return msgspec.structs.replace(response, usage=usage, attempts=attempts)


@pytest.mark.parametrize("field", ["input_tokens", "output_tokens", "cached_input_tokens"])
@pytest.mark.parametrize("tokens", [-1, -(10**6), 2**62])
def test_numbers_that_cannot_be_true_are_estimated_and_logged(caplog, field, tokens):
    caplog.set_level("INFO", "unbroken.server")
    response = reporting(answered("openai/gpt-4o"), **{field: tokens})
    usage = charged(ASKED, response)

    assert usage.source == "estimated"
    assert 100 <= usage.input_tokens <= 120
    assert 50 <= usage.output_tokens <= 200
    assert usage.cached_input_tokens == 0
    assert 0 < cost_of(ASKED, response, usage) < 0.01
    assert caplog.records[0].fields[field] == tokens


def test_an_answer_with_text_that_reports_zero_tokens_is_estimated():
    usage = charged(ASKED, reporting(answered("openai/gpt-4o"), input_tokens=0, output_tokens=0))

    assert usage.source == "estimated"
    assert usage.input_tokens >= 100
    assert usage.output_tokens >= 50


@pytest.mark.parametrize(
    ("request_", "tokens"),
    [
        (msgspec.structs.replace(ASKED, reasoning_effort="high"), 600),
        (msgspec.structs.replace(ASKED, reasoning_effort="high", max_tokens=200), 200),
        (msgspec.structs.replace(ASKED, extra={"thinking": {"type": "enabled"}}), 600),
        (msgspec.structs.replace(ASKED, reasoning_effort="none"), 0),
        (ASKED, 0),
    ],
)
def test_hidden_reasoning_is_estimated_by_its_time(request_, tokens):
    """An answer that is stopped while the model still thinks has cost more than its question."""
    stopped = answered("openai/gpt-4o", stop=0)

    assert 0 <= charged(request_, stopped, StreamMetrics(duration=12.0)).output_tokens - tokens <= 1


def test_a_report_within_the_bounds_is_believed():
    response = reporting(answered("openai/gpt-4o"), output_tokens=MAX_OUTPUT)

    assert charged(ASKED, response) is response.usage
