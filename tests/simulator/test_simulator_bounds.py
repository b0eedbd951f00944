"""Whatever a request asks of the simulator: its answer is bounded, and made as it is read."""

import itertools
import time

import msgspec
import pytest

from unbroken.errors import BadRequest
from unbroken.messages import Message, Request, Text
from unbroken.simulator.fake_json import MAX_CHARACTERS, value
from unbroken.simulator.player import play
from unbroken.simulator.rng import Rng
from unbroken.simulator.scenario import MAX_TOKENS, Scenario, parse
from unbroken.simulator.steps import Send
from unbroken.wire.openai_chat.dialect import CODEC

LONG = {"const": "A" * 100_000}
ENDLESS = {
    "a list of a long constant": {"type": "array", "minItems": 10_000, "items": LONG},
    "lists of lists": {
        "type": "array",
        "minItems": 10_000,
        "items": {"type": "array", "minItems": 10_000, "items": {"type": "string"}},
    },
    "long names": {"type": "object", "properties": {f"{n}" + "k" * 1000: {} for n in range(3000)}},
    "long references": {
        "type": "array",
        "minItems": 10_000,
        "items": {"$ref": "#/" + "a/" * 50_000},
    },
    "all of itself": {
        "type": "object",
        "properties": {f"p{n}": {"$ref": "#"} for n in range(5000)},
    },
    "long strings": {
        "type": "array",
        "minItems": 10_000,
        "items": {"type": "string", "minLength": 10**9},
    },
}


def asked(text="use every tool", **given):
    return Request(model="m", messages=(Message("user", (Text(text),)),), stream=True, **given)


def sent(request, scenario=None):
    """The bytes of a whole answer."""
    steps = play(request, CODEC, scenario or Scenario(), 1)
    return b"".join(step.data for step in steps if isinstance(step, Send))


@pytest.mark.parametrize("schema", ENDLESS.values(), ids=ENDLESS)
def test_a_document_has_a_size_whatever_its_schema(schema):
    made = msgspec.json.encode(value(schema, "value", Rng("1")))

    assert len(made) < 3 * MAX_CHARACTERS


def test_calls_are_bounded_in_number_and_together_in_size():
    tool = {"type": "object", "properties": {"a": ENDLESS["a list of a long constant"]}}
    request = CODEC.dialect.decode_request(
        msgspec.json.encode(
            {
                "model": "m",
                "stream": True,
                "n": 128,
                "messages": [{"role": "user", "content": "use every tool"}],
                "tools": [
                    {"type": "function", "function": {"name": f"tool_{n}", "parameters": tool}}
                    for n in range(40)
                ],
                "tool_choice": "required",
            }
        )
    )

    assert len(sent(request)) < 64 * MAX_CHARACTERS


def test_an_answer_ends_at_the_limit_of_tokens_as_a_models_does():
    answer = sent(asked(n=100), Scenario(tokens=10**30))

    assert answer.count(b'"content"') <= MAX_TOKENS + 100  # the first of each choice is empty
    assert answer.count(b'"finish_reason":"length"') == 100


@pytest.mark.parametrize("tokens", [10, 10**9])
def test_the_first_steps_of_an_answer_cost_the_same_however_long_it_is(tokens):
    begun = time.process_time()

    list(itertools.islice(play(asked(), CODEC, Scenario(tokens=tokens), 1), 10))

    assert time.process_time() - begun < 0.1


@pytest.mark.parametrize("text", ["word " * 2_000_000, "x" * 10_000_000, "9" * 5000 + " sentences"])
def test_a_prompt_of_megabytes_is_answered_from_a_part_of_it(text):
    begun = time.process_time()

    list(itertools.islice(play(asked(text), CODEC, Scenario(), 1), 10))

    assert time.process_time() - begun < 0.5


@pytest.mark.parametrize(
    "query",
    [
        "ttft=nan",
        "ttft=inf",
        "ttft=-1",
        "tokens=-5",
        "fault=stall:seconds=1e300",
        "fault=stall:seconds=nan",
        "fault=status:status=0",
        "fault=cut:bytes=-1",
        "&".join(["fault=split"] * 9),
    ],
)
def test_a_scenario_that_no_clock_can_play_is_refused(query):
    with pytest.raises(BadRequest):
        parse(query)
