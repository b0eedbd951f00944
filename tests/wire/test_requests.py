"""Requests as strangers write them: each is a question of the right types, or refused by name."""

import contextlib
from copy import deepcopy

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unbroken.errors import BadRequest, LocalProtocolError
from unbroken.messages import Request, ToolResult, validate
from unbroken.simulator.player import play
from unbroken.simulator.scenario import Scenario
from unbroken.simulator.steps import End
from unbroken.wire import anthropic_messages, bedrock_converse, openai_chat, openai_responses

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": ["string", "null"], "enum": ["Bern", None]},
        "mail": {"type": "string", "format": "email", "minLength": 9, "maxLength": 40},
        "high": {"type": "number", "minimum": 0, "exclusiveMaximum": 9},
        "many": {"type": "integer", "exclusiveMinimum": 1, "maximum": 7},
        "days": {
            "type": "array",
            "items": {"anyOf": [{"type": "integer"}, {"$ref": "#/$defs/d"}]},
            "minItems": 1,
            "maxItems": 3,
        },
    },
    "$defs": {"d": {"type": "string"}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
PIXEL = "data:image/png;base64,aGk="
CHAT = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "Be short."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "hi"},
                {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "c", "content": "warm"},
    ],
    "stream": True,
    "stream_options": {"include_usage": True},
    "max_tokens": 9,
    "max_completion_tokens": 9,
    "temperature": 0.5,
    "top_p": 0.5,
    "stop": ["x"],
    "seed": 1,
    "n": 2,
    "tools": [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA}}
    ],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "o", "schema": SCHEMA, "strict": True},
    },
    "logprobs": True,
    "top_logprobs": 2,
    "user": "ann",
    "metadata": {"a": "b"},
}
RESPONSES = {
    "model": "m",
    "instructions": "Be short.",
    "input": [
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "hi"},
                {"type": "input_image", "image_url": PIXEL, "detail": "low"},
            ],
        },
        {"role": "user", "content": "hi"},
        {"type": "reasoning", "id": "r", "summary": []},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "warm"},
    ],
    "stream": True,
    "max_output_tokens": 9,
    "temperature": 0.5,
    "top_p": 0.5,
    "tools": [{"type": "function", "name": "f", "parameters": SCHEMA, "strict": True}],
    "tool_choice": {"type": "function", "name": "f"},
    "text": {"format": {"type": "json_schema", "name": "o", "schema": SCHEMA}},
    "reasoning": {"effort": "low"},
    "metadata": {"a": "b"},
}
ANTHROPIC = {
    "model": "m",
    "system": [{"type": "text", "text": "Be short."}],
    "max_tokens": 9,
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "hi"},
                {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "w"}]},
    ],
    "stream": True,
    "temperature": 0.5,
    "top_p": 0.5,
    "top_k": 5,
    "stop_sequences": ["x"],
    "tools": [{"name": "f", "description": "d", "input_schema": SCHEMA}],
    "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
    "metadata": {"user_id": "ann"},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
}
CONVERSE = {
    "system": [{"text": "Be short."}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"text": "hi"},
                {"image": {"format": "png", "source": {"bytes": "aGk="}}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "s"}}},
                {"toolUse": {"toolUseId": "c", "name": "f", "input": {"a": 1}}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"toolResult": {"toolUseId": "c", "content": [{"text": "w"}, {"json": {"a": 1}}]}}
            ],
        },
    ],
    "inferenceConfig": {"maxTokens": 9, "temperature": 0.5, "topP": 0.5, "stopSequences": ["x"]},
    "toolConfig": {
        "tools": [{"toolSpec": {"name": "f", "description": "d", "inputSchema": {"json": SCHEMA}}}],
        "toolChoice": {"tool": {"name": "f"}},
    },
    "additionalModelRequestFields": {"top_k": 5},
}
DIALECTS = {
    "chat": (openai_chat.CODEC, CHAT),
    "responses": (openai_responses.CODEC, RESPONSES),
    "anthropic": (anthropic_messages.CODEC, ANTHROPIC),
    "converse": (bedrock_converse.CODEC, CONVERSE),
}
PLAYED = (openai_chat.CODEC, Scenario(tokens=3), 1)
each_dialect = pytest.mark.parametrize("name", DIALECTS)


def places(value, at=()):
    """The way to every value within a value."""
    inner = value.items() if isinstance(value, dict) else ()
    inner = enumerate(value) if isinstance(value, list) else inner
    return [at, *(place for key, one in inner for place in places(one, (*at, key)))]


def put(body, place, value):
    """A copy with something else at that place."""
    if not place:
        return value
    copy = found = deepcopy(body)
    for key in place[:-1]:
        found = found[key]
    found[place[-1]] = value
    return copy


def decoded(name, body):
    return DIALECTS[name][0].dialect.decode_request(msgspec.json.encode(body))


WORDS = st.sampled_from(
    "type role content text user assistant function message image_url properties tool any "
    "auto object array json_schema".split()
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 200) | st.floats(allow_nan=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=5,
)


@each_dialect
def test_what_is_right_is_read(name):
    request = decoded(name, DIALECTS[name][1])

    assert [tool.parameters for tool in request.tools] == [SCHEMA]
    assert request.max_tokens == 9
    assert {message.role for message in request.messages} >= {"system", "user", "assistant"}
    assert any(isinstance(p, ToolResult) for m in request.messages for p in m.parts)


@each_dialect
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_with_anything_anywhere_it_is_read_or_refused(name, data):
    body = DIALECTS[name][1]
    broken = put(body, data.draw(st.sampled_from(places(body))), data.draw(ANYTHING))

    with contextlib.suppress(BadRequest):
        request = decoded(name, broken)
        assert msgspec.json.decode(msgspec.json.encode(request), type=Request) == request
        assert validate(request) is request
        list(play(request, *PLAYED))
        for codec, _ in DIALECTS.values():
            with contextlib.suppress(LocalProtocolError):
                codec.dialect.encode_request(request)


@pytest.mark.parametrize(
    ("name", "place", "value", "named"),
    [
        ("responses", ("input", 0, "content"), ["hi"], r"input\[0\].content\[0\]"),
        ("responses", ("input", 0, "content"), 1.5, r"input\[0\].content"),
        ("responses", ("input", 0, "role"), ["x"], r"input\[0\].role"),
        ("responses", ("input", 0, "content", 1, "image_url"), 5, r"content\[1\].image_url"),
        ("responses", ("tool_choice",), {"function": "f"}, "tool_choice"),
        ("responses", ("max_output_tokens",), 0, "`max_tokens`"),
        ("chat", ("tool_choice",), {"function": "f"}, "tool_choice"),
        ("chat", ("tools", 0, "function"), "f", r"tools\[0\]"),
        (
            "chat",
            ("tools", 0, "function", "parameters", "properties"),
            5,
            r"tools\[0\].*properties",
        ),
        ("chat", ("response_format", "json_schema"), 5, "response_format.json_schema"),
        ("chat", ("n",), 100_000, "<= 128 - at `n`"),
        ("chat", ("n",), 0, ">= 1 - at `n`"),
        ("chat", ("max_completion_tokens",), -3, "`max_tokens`"),
        ("anthropic", ("tools", 0, "input_schema", "properties"), 5, r"tools\[0\].*properties"),
        ("anthropic", ("messages", 0, "content", 1, "source", "url"), 5, r"content\[1\].url"),
        ("anthropic", ("max_tokens",), 0, "`max_tokens`"),
        ("converse", ("messages", 0, "content", 0, "text"), 5, r"content\[0\].text"),
        ("converse", ("inferenceConfig", "topP"), 1.5, "`top_p`"),
    ],
)
def test_the_place_is_named(name, place, value, named):
    with pytest.raises(BadRequest, match=named):
        decoded(name, put(DIALECTS[name][1], place, value))


ENDLESS = {
    "itself": {"type": "object", "properties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}}},
    "many": {"type": "array", "minItems": 10**12, "items": {"type": "string"}},
    "long": {"type": "string", "minLength": 10**12},
    "unheard of": {"type": "choose"},
}


@pytest.mark.parametrize("schema", ENDLESS.values(), ids=ENDLESS)
def test_a_schema_without_end_is_played_to_an_end(schema):
    format_ = {"type": "json_schema", "json_schema": {"name": "o", "schema": schema}}

    steps = list(play(decoded("chat", {**CHAT, "response_format": format_}), *PLAYED))

    assert isinstance(steps[-1], End)


def test_a_question_that_was_written_down_before_there_were_bounds_can_be_read():
    stored = b'{"model": "m", "messages": [], "n": 0, "max_tokens": -3, "temperature": -1}'

    assert msgspec.json.decode(stored, type=Request).n == 0
