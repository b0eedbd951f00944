"""Half an answer can be looked at; it can't be executed."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken import Client, Tool
from unbroken.partial import partial_json, partial_object
from unbroken.response import Choice, GrowingToolCall, PartialToolCall, Response, ToolCall

ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 53), 1 << 53) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


def begins(part, whole):
    """Whether `part` is a beginning of `whole`: nothing in it is ever taken back."""
    match part, whole:
        case dict(), dict():
            return all(k in whole and begins(v, whole[k]) for k, v in part.items())
        case list(), list():
            return len(part) <= len(whole) and all(map(begins, part, whole))
        case str(), str():
            return whole.startswith(part)
        case _ if isinstance(part, int) and isinstance(whole, int):
            return str(whole).startswith(str(part))  # a number may still grow
    return part is whole


@given(value=st.dictionaries(st.text(max_size=3), ANY, max_size=4), at=st.integers(0, 400))
def test_what_is_read_of_a_beginning_is_a_beginning(value, at):
    text = msgspec.json.encode(value).decode()

    assert begins(partial_object(text[:at]), value)
    assert partial_object(text) == value


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("", None),
        ("  ", None),
        ("no JSON", None),
        ("{", {}),
        ('{"a', {}),
        ('{"a": tr', {}),
        ('{"a": "b', {"a": "b"}),
        ('{"a": "b\\', {"a": "b"}),
        ('{"a": "b\\u00', {"a": "b"}),
        ('{"a": "b\\ud83d\\ude', {"a": "b"}),
        ('{"a": [1, {"b": "c', {"a": [1, {"b": "c"}]}),
        ('{"a": 1}', {"a": 1}),
        ('{"a": 1,}', None),
        ('"\ud83d', "?"),
        ("[" * 10_000, None),
    ],
)
def test_what_can_be_read_of_half_a_document(text, read):
    assert partial_json(text) == read


@pytest.mark.parametrize("text", ["", "[1]", "3", "garbage"])
def test_what_is_no_object_is_an_empty_one(text):
    assert partial_object(text) == {}


HALF = PartialToolCall("c0", "get_weather", '{"city": "Ro')


def response(end, *whole):
    choice = Choice(tool_calls=whole, partial_tool_calls=() if whole else (HALF,))
    return Response(choices=(choice,), end=end)


def test_a_call_is_seen_while_it_grows():
    [call] = response(None).tool_calls

    assert (call.id, call.name, call.partial) == ("c0", "get_weather", {"city": "Ro"})
    assert response(None).partial_tool_calls[0].partial == {"city": "Ro"}


def test_a_growing_call_has_no_arguments_to_execute():
    [call] = response(None).tool_calls

    with pytest.raises(AttributeError, match="'get_weather' are still coming"):
        print(call.arguments)
    assert not hasattr(call, "arguments")


@pytest.mark.parametrize("end", ["truncated", "cancelled", "failed"])
def test_a_call_that_was_cut_is_no_call(end):
    assert response(end).tool_calls == ()
    assert response(end).partial_tool_calls == (HALF,)


def test_a_complete_call_has_all_under_both_words():
    [call] = response("complete", ToolCall("c0", "get_weather", {"city": "Rome"})).tool_calls

    assert call.partial == call.arguments == {"city": "Rome"}
    assert type(call) is ToolCall


def test_a_growing_call_is_told_from_a_complete_one():
    assert GrowingToolCall("a", "f", {}, "") != ToolCall("a", "f", {})


CITY = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = Tool("get_weather", "The weather", CITY)


@pytest.mark.parametrize("model", ["openai/gpt-4o", "anthropic/claude-haiku-5-5"])
def test_a_call_grows_before_our_eyes_and_is_executable_only_at_the_end(model, simulator):
    seen = []
    with Client(transport=simulator, api_key="k") as client:
        with client.stream(model, "The weather in Rome?", tools=[TOOL]) as stream:
            for _ in stream:
                if stream.response.end is None:
                    calls = stream.response.tool_calls
                    seen += [(call.partial, hasattr(call, "arguments")) for call in calls]
    [call] = stream.response.tool_calls

    assert {executable for _, executable in seen} == {False}
    assert seen[0][0] == {}
    assert any(0 < len(part.get("city", "")) < len(call.arguments["city"]) for part, _ in seen)
    assert call.partial == call.arguments
