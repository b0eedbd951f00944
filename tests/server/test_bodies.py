"""Bodies: their size, their structure, and where they are parsed."""

import asyncio
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.errors import BadRequest
from unbroken.server import bodies
from unbroken.server.bodies import MAX_DEPTH, MAX_VALUES, check_structure, parse_request
from unbroken.wire import anthropic_messages, openai_chat, openai_responses

ASK = [{"role": "user", "content": "x"}]


def chat(**given):
    return {"model": "m", "messages": ASK, **given}


def parsed(body, codec=openai_chat.CODEC):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return asyncio.run(parse_request(raw, codec))


TOOL = {"type": "function", "function": {"name": "t", "parameters": {"type": "object"}}}
NESTED = b"[" * 2000 + b"]" * 2000
COMPLEX = {
    "keys": chat(**{f"k{n}": 1 for n in range(MAX_VALUES)}),
    "messages": chat(messages=ASK * 11_000),
    "tools": chat(tools=[TOOL] * 1_100),
    "numbers": chat(logit_bias=[1] * MAX_VALUES),
    "depth": b'{"model":"m","messages":[],"x":' + NESTED + b"}",
    "depth that never closes": b'{"model":"m","x":' + b'{"a":' * 100_000,
    "parts": chat(messages=[{"role": "user", "content": [{"type": "text", "text": "x"}] * 40_000}]),
}


@pytest.mark.parametrize("body", COMPLEX.values(), ids=COMPLEX)
@pytest.mark.parametrize(
    "codec", [openai_chat.CODEC, anthropic_messages.CODEC, openai_responses.CODEC]
)
def test_a_body_of_too_many_values_is_refused_before_it_is_understood(body, codec):
    begun = time.process_time()
    with pytest.raises(BadRequest) as refused:
        parsed(body, codec)

    assert refused.value.status in (400, 413)
    assert time.process_time() - begun < 1


@pytest.mark.parametrize(
    "text",
    ["a, b, c [{" * 100_000, '"' * 100_000, "\\" * 262_130 + '",', "\\" * 3_000_000, "é" * 9],
    ids=["structure", "quotes", "an escape at an edge", "escapes", "short"],
)
def test_what_stands_in_a_string_is_no_structure(text):
    check_structure(json.dumps([text, ["x"] * 200]).encode())

    assert parsed(chat(messages=[{"role": "user", "content": text}])).messages[0].text == text


JSON = st.recursive(
    st.none() | st.integers() | st.text(alphabet='ab"\\[]{},:é'),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet='a"\\,['), inner),
)


@given(JSON, st.integers(1, 40))
def test_values_are_counted_the_same_in_windows_of_any_size(value, window):
    body = json.dumps([value, [0] * 3]).encode()
    whole = b"".join(bodies._without_strings(body))
    cut = b"".join(bodies._without_strings(body, window))

    assert cut == whole
    assert b'"' not in whole


def test_nesting_is_counted_in_levels():
    check_structure(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    check_structure(b"[" + b"[],{}," * 1000 + b"[]]")

    with pytest.raises(BadRequest, match="levels"):
        check_structure(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))


def test_others_have_their_turn_while_a_large_body_is_parsed():
    body = json.dumps(chat(messages=ASK * 9_000)).encode()
    gaps = []

    async def watch():
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            gaps.append(time.perf_counter() - last)
            last = time.perf_counter()

    async def run():
        watching = asyncio.create_task(watch())
        await asyncio.sleep(0.01)
        await asyncio.gather(*(parse_request(body, openai_chat.CODEC) for _ in range(4)))
        watching.cancel()

    asyncio.run(run())

    assert len(gaps) > 10  # in the event loop there would be none
