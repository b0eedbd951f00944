"""The shapes that servers compatible with OpenAI chat give an answer, streamed and whole."""

import msgspec
import pytest
from test_other import (
    answer,
    chat,
    chunk,
    heard,
    heard_whole,
    said,
    said_whole,
    sse,
    their_completion,
)

from unbroken.errors import (
    BadRequest,
    LocalProtocolError,
    Overloaded,
    RateLimited,
    ServerError,
)
from unbroken.events import (
    CONTENT,
    ChoiceEnd,
    Logprobs,
    MessageEnd,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    ToolCallStart,
)
from unbroken.messages import Message, Request, Text
from unbroken.response import ChoiceLogprobs, ToolCall
from unbroken.wire import anthropic_messages, openai_chat


def whole(*choices, **more):
    """The events of a whole answer."""
    made = [{"index": at, **choice} for at, choice in enumerate(choices)]
    return heard_whole(
        "openai", msgspec.json.encode({"id": "i", "model": "m", **more} | {"choices": made})
    )


def message(finish="stop", **said):
    return {"message": {"role": "assistant", **said}, "finish_reason": finish}


def failed(body, *, streamed):
    """The error that a body is."""
    decoder = openai_chat.CODEC.decoder(Request(model="m", messages=()))
    decoder.feed(sse(body) if streamed else msgspec.json.encode(body))
    decoder.eof()
    return decoder.error


both = pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])

# Content


def test_a_whole_content_of_parts_is_taken_apart():
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
    events = whole(message(content=[thought, {"type": "text", "text": "Hi"}]))

    assert events[1:3] == [ReasoningDelta("Hm."), TextDelta("Hi")]
    assert isinstance(events[-1], MessageEnd)


def test_choices_grow_apart():
    pieces = [chunk(content="a"), chunk(index=1, content="x"), chunk(content="b")]
    ends = [chunk("stop"), chunk("length", index=1)]
    request = Request(model="m", messages=(), n=2)
    decoder = openai_chat.CODEC.decoder(request)
    events = decoder.feed(sse(*pieces, *ends) + b"data: [DONE]\n\n")

    first, second = answer(events).choices
    assert (first.text, first.finish_reason) == ("ab", "stop")
    assert (second.text, second.finish_reason) == ("x", "length")


def test_whole_choices_stand_apart():
    calls = [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]
    events = whole(message(content="a"), message("tool_calls", tool_calls=calls))

    assert [c.text for c in answer(events).choices] == ["a", ""]
    assert answer(events).choices[1].tool_calls == (ToolCall("c", "f", {}),)


def test_a_whole_answer_with_one_choice_cut_off_is_not_complete():
    events = whole(message(content="a"), message(None, content="b"))

    assert not any(isinstance(event, MessageEnd) for event in events)


# Calls


def called(*calls, finish="tool_calls"):
    """The calls of an answer whose one chunk holds them all."""
    return answer(heard("openai", sse(chunk(tool_calls=[*calls]), chunk(finish)))).tool_calls


def function(name, arguments, **more):
    return {"function": {"name": name, "arguments": arguments}, **more}


def test_parallel_calls_whole_in_one_chunk_without_index():
    assert called(function("f", '{"a":1}'), function("f", '{"a":2}'), function("g", "")) == (
        ToolCall("call_0", "f", {"a": 1}),
        ToolCall("call_1", "f", {"a": 2}),
        ToolCall("call_2", "g", {}),
    )


@pytest.mark.parametrize("nothing", [None, "", "{}", {}])
def test_empty_arguments_are_an_empty_object(nothing):
    assert called(function("f", nothing, id="x", index=0)) == (ToolCall("x", "f", {}),)
    assert answer(
        whole(message("tool_calls", tool_calls=[function("f", nothing, id="x")]))
    ).tool_calls == (ToolCall("x", "f", {}),)


def test_the_call_of_old_is_a_call():
    streamed = heard(
        "openai",
        sse(
            chunk(function_call={"name": "f", "arguments": ""}),
            chunk(function_call={"arguments": '{"a"'}),
            chunk(function_call={"arguments": ":1}"}),
            chunk("function_call"),
        ),
    )
    at_once = whole(message("function_call", function_call={"name": "f", "arguments": '{"a":1}'}))

    assert ToolCallStart(0, "call_0", "f") in streamed
    assert answer(streamed).tool_calls == answer(at_once).tool_calls
    assert answer(at_once).tool_calls == (ToolCall("call_0", "f", {"a": 1}),)
    assert answer(at_once).raw_finish_reason == "function_call"


# Errors

MISTRAL = {
    "object": "error",
    "message": "Rate limit exceeded",
    "type": "rate_limited",
    "param": None,
    "code": "1300",
    "raw_status_code": 429,
}
VLLM = {
    "object": "error",
    "message": "no such thing",
    "type": "BadRequestError",
    "param": None,
    "code": 400,
}
BUSY = {
    "object": "error",
    "message": "busy",
    "type": "invalid_request_error",
    "raw_status_code": 503,
}


@both
@pytest.mark.parametrize(
    ("body", "kind"), [(MISTRAL, RateLimited), (VLLM, BadRequest), (BUSY, Overloaded)]
)
def test_an_object_that_says_it_is_an_error(body, kind, streamed):
    error = failed(body, streamed=streamed)

    assert type(error) is kind
    assert error.message == body["message"]


@both
def test_a_finish_reason_that_is_an_error(streamed):
    half = chunk("error", content="a") if streamed else {"choices": [message("error", content="a")]}
    error = failed(half, streamed=streamed)

    assert isinstance(error, ServerError)
    assert error.code == "error"


@both
def test_a_choice_that_says_why_it_failed(streamed):
    why = {"error": {"code": 429, "message": "too many"}}
    half = chunk("error") if streamed else {"choices": [message("error", content="a")]}
    half["choices"][0] |= why

    assert isinstance(failed(half, streamed=streamed), RateLimited)


# Logprobs

LIKELY = {
    "token": "Hé",
    "logprob": -0.25,
    "bytes": [72, 195, 169],
    "top_logprobs": [{"token": "Ho", "logprob": -1.5, "bytes": None}],
}
TOKEN = TokenLogprob("Hé", -0.25, (72, 195, 169), (TokenLogprob("Ho", -1.5),))


def with_logprobs(tokens=None, refused=None, /, **delta):
    said = chunk(**delta)
    said["choices"][0]["logprobs"] = {"content": tokens, "refusal": refused}
    return said


STREAM = chat(
    with_logprobs([LIKELY], content="Hé"),
    with_logprobs([LIKELY, LIKELY], content="HéHé"),
    with_logprobs(None, [LIKELY], refusal="Hé"),
)


def test_logprobs_stand_beside_the_text():
    events = heard("openai", STREAM)

    assert events[1:] == [
        TextDelta("Hé"),
        Logprobs((TOKEN,)),
        TextDelta("HéHé"),
        Logprobs((TOKEN, TOKEN)),
        events[5],
        Logprobs((TOKEN,), refusal=True),
        ChoiceEnd("stop", "stop"),
        MessageEnd("stop", None, "stop"),
    ]
    assert answer(events).choices[0].logprobs == ChoiceLogprobs((TOKEN,) * 3, (TOKEN,))


def test_logprobs_alone_do_not_keep_a_stalled_stream_alive():
    assert Logprobs not in CONTENT


def test_an_answer_without_logprobs_has_none():
    assert answer(heard("openai", chat(chunk(content="a")))).choices[0].logprobs is None


def test_logprobs_of_a_whole_answer():
    said = message(content="Hé") | {"logprobs": {"content": [LIKELY], "refusal": None}}
    events = whole(said)

    assert answer(events).choices[0].logprobs == ChoiceLogprobs((TOKEN,))
    [token] = said_whole("openai", events)["choices"][0]["logprobs"]["content"]
    assert token == LIKELY


def test_the_sdk_folds_the_logprobs_that_we_write():
    theirs = their_completion(STREAM).choices[0].logprobs
    mine = their_completion(said("openai", heard("openai", STREAM))).choices[0].logprobs

    assert mine.to_dict() == theirs.to_dict()
    assert len(mine.content) == 3


def test_logprobs_in_another_shape_are_kept_as_they_are():
    old = {"tokens": ["a"], "token_logprobs": [-0.5]}
    odd = chunk(content="a")
    odd["choices"][0]["logprobs"] = old
    events = heard("openai", chat(odd))

    assert [e.name for e in events if type(e).__name__ == "OtherEvent"] == ["logprobs"]
    assert b'"token_logprobs":[-0.5]' in said("openai", events)


def test_logprobs_are_asked_for_and_refused_where_there_are_none():
    request = Request(
        model="m",
        messages=(Message("user", (Text("hi"),)),),
        logprobs=True,
        top_logprobs=2,
    )
    body = msgspec.json.decode(openai_chat.CODEC.dialect.encode_request(request))

    assert (body["logprobs"], body["top_logprobs"]) == (True, 2)
    with pytest.raises(LocalProtocolError, match="logprobs"):
        anthropic_messages.CODEC.dialect.encode_request(request)
