"""The OpenAI chat dialect, rule by rule, and what compatible servers make of it."""

from pathlib import Path

import msgspec
import pytest

from unbroken.errors import BadRequest, Overloaded, RemoteProtocolError, ServerError
from unbroken.events import (
    ChoiceEnd,
    MessageEnd,
    MessageStart,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
    UsageReport,
)
from unbroken.messages import Refusal, Request
from unbroken.wire.openai_chat.dialect import CODEC, OpenAIChat, chat_codec

DATA = Path(__file__).parent.parent / "data/wire"
DONE = b"data: [DONE]\n\n"


def read(*chunks, codec=CODEC, n=1):
    """What a stream of these JSON values (or bytes as they are) says, and its decoder."""
    decoder = codec.decoder(Request(model="m", messages=(), n=n))
    lines = (
        c if isinstance(c, bytes) else b"data: %b\n\n" % msgspec.json.encode(c) for c in chunks
    )
    return decoder.feed(b"".join(lines)), decoder


def said(*chunks, n=1):
    """The events after the start."""
    return [e for e in read(*chunks, n=n)[0] if not isinstance(e, MessageStart)]


def golden(name):
    return read((DATA / name).read_bytes())


def chunk(finish=None, index=0, **delta):
    return {"choices": [{"index": index, "delta": delta, "finish_reason": finish}]}


def fragment(arguments="", name=None, **given):
    return {"function": {"arguments": arguments, "name": name}, **given}


def calls(*fragments):
    return said(*(chunk(tool_calls=[fragment]) for fragment in fragments))


def test_what_follows_the_end_is_no_part_of_the_answer():
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}

    events = said(chunk(content="hi"), chunk("stop"), DONE, {"choices": [], "usage": usage}, DONE)

    assert events[2:] == [MessageEnd("stop", None, "stop")]


# Golden bytes of compatible servers


def test_azure_begins_without_a_choice_and_sends_a_null_delta():
    events, decoder = golden("openai-azure.sse")

    assert events[0] == MessageStart("chatcmpl-CECImr5T", "gpt-5-mini-2025-08-07")
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == "The capital is Paris."
    assert events[-1].usage == Usage(input_tokens=14, output_tokens=9, reasoning_tokens=4)
    assert decoder.skipped == 0


def test_vllm_counts_in_every_chunk_and_the_last_count_holds():
    events, _ = golden("openai-vllm.sse")
    counts = [e.usage.output_tokens for e in events if isinstance(e, UsageReport)]

    assert counts == [0, 1, 3, 4, 5, 5]
    assert events[-1] == MessageEnd("stop", Usage(input_tokens=16, output_tokens=5), "stop")


def test_vllm_thinks_and_speaks_in_one_delta():
    events, _ = golden("openai-vllm.sse")

    at = events.index(ReasoningDelta(" hi."))
    assert events[at + 1] == TextDelta("Hi")


def test_deepseek_comments_before_between_and_after_are_nothing():
    events, decoder = golden("openai-deepseek.sse")

    assert [e for e in events if not isinstance(e, UsageReport)] == [
        MessageStart("1f633d8b", "deepseek-reasoner"),
        ReasoningDelta("9.8 is"),
        ReasoningDelta(" larger"),
        TextDelta("9.8"),
        ChoiceEnd("stop", "stop"),
        MessageEnd(
            "stop", Usage(input_tokens=17, output_tokens=10, reasoning_tokens=7), raw="stop"
        ),
    ]
    assert decoder.done


def test_ollama_thinks_in_another_field_and_numbers_no_calls():
    events, _ = golden("openai-ollama.sse")

    assert events[1:7] == [
        ReasoningDelta("Two"),
        ReasoningDelta(" cities"),
        ToolCallStart(0, "call_a1", "get_weather"),
        ToolCallDelta(0, '{"city":"Rome"}'),
        ToolCallStart(1, "call_b2", "get_weather"),
        ToolCallDelta(1, '{"city":"Oslo"}'),
    ]


def test_an_openrouter_error_is_no_end_though_done_follows():
    events, decoder = golden("broken/openai-openrouter.sse")

    assert events[1:] == [TextDelta("Once"), TextDelta(" upon")]
    assert isinstance(decoder.error, ServerError)
    assert (decoder.error.status, decoder.done) == (502, False)


# Ends


def test_done_without_a_finish_reason_is_no_end():
    events, decoder = read(chunk(content="a"), DONE)

    assert events[1:] == [TextDelta("a")]
    assert decoder.done


def test_a_finish_reason_without_done_ends_at_the_end_of_the_body():
    events, decoder = read(chunk(content="a"), chunk("stop"))

    assert events[-1] == ChoiceEnd("stop", "stop")
    assert decoder.eof() == [MessageEnd("stop", None, "stop")]


def test_every_choice_needs_its_finish_reason():
    first, second = chunk("stop"), chunk("length", index=1)

    both = chunk(content="a"), chunk(content="b", index=1)

    assert not isinstance(said(*both, first, DONE, n=2)[-1], MessageEnd)
    assert said(first, second, DONE, n=2)[-1] == MessageEnd("stop", None, "stop")


def test_only_the_first_finish_reason_of_a_choice_counts():
    assert said(chunk("tool_calls"), chunk("stop")) == [ChoiceEnd("tool_calls", "tool_calls")]


def test_a_server_known_to_send_no_finish_reason_is_trusted_by_name():
    codec = chat_codec(OpenAIChat(implied_finish=True))

    events, _ = read(chunk(content="a"), DONE, codec=codec)

    assert events[-2:] == [ChoiceEnd("stop", "stop"), MessageEnd("stop", None, "stop")]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("model_length", "length"),
        ("tool_calls", "tool_calls"),
        ("function_call", "tool_calls"),
        ("content_filter", "content_filter"),
    ],
)
def test_a_finish_reason_has_our_word_and_its_own(raw, reason):
    assert said(chunk(raw)) == [ChoiceEnd(reason, raw)]


@pytest.mark.parametrize("raw", ["error", "insufficient_system_resource"])
def test_an_error_as_finish_reason_is_an_error(raw):
    events, decoder = read(chunk(raw, content="a"), DONE)

    assert events[1:] == [TextDelta("a")]
    assert isinstance(decoder.error, ServerError)


@pytest.mark.parametrize("head", [b"event: error\n", b""])
def test_an_error_after_the_200_ends_the_stream(head):
    wrong = head + b'data: {"error": {"message": "busy", "type": "overloaded_error"}}\n\n'

    events, decoder = read(chunk(content="a"), wrong, chunk("stop", content="b"), DONE)

    assert events[1:] == [TextDelta("a")]
    assert isinstance(decoder.error, Overloaded)


# Deltas


@pytest.mark.parametrize("field", ["content", "reasoning", "reasoning_content", "refusal"])
@pytest.mark.parametrize("nothing", [None, ""])
def test_null_and_empty_say_nothing(field, nothing):
    assert said(chunk(**{field: nothing})) == []


def test_a_refusal_is_no_text():
    assert said(chunk(refusal="no")) == [RefusalDelta("no")]


def test_padding_and_unknown_fields_are_passed_over():
    padded = chunk(content="a") | {"obfuscation": "xyz", "moderation": {}}

    assert said(padded, padded) == [TextDelta("a"), TextDelta("a")]


def test_content_as_a_list_of_pieces():
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "h"}, {"text": "m"}]}
    pieces = [thought, {"type": "thinking", "thinking": "!"}, {"type": "text", "text": "a"}]

    assert said(chunk(content=pieces)) == [
        ReasoningDelta("hm"),
        ReasoningDelta("!"),
        TextDelta("a"),
    ]


@pytest.mark.parametrize("thinking", [None, "", [], [{"text": None}], {}])
def test_a_list_of_empty_pieces_says_nothing(thinking):
    assert said(chunk(content=[{"type": "thinking", "thinking": thinking}])) == []


# Calls


def test_a_call_in_fragments_by_index():
    events = calls(
        fragment(name="f", id="a", index=0),
        fragment('{"x"', index=0),
        fragment(":1}", index=0),
    )

    assert events == [
        ToolCallStart(0, "a", "f"),
        ToolCallDelta(0, '{"x"'),
        ToolCallDelta(0, ":1}"),
    ]


def test_fragments_without_an_index_belong_to_the_open_call():
    events = calls(fragment(name="f"), fragment("{}"), fragment("[]", name="g"))

    assert events == [
        ToolCallStart(0, "call_0", "f"),
        ToolCallDelta(0, "{}"),
        ToolCallStart(1, "call_1", "g"),
        ToolCallDelta(1, "[]"),
    ]


def test_an_id_in_every_fragment_opens_one_call():
    events = calls(fragment("{", "f", id="a", index=0), fragment("}", id="a", index=0))

    assert events == [ToolCallStart(0, "a", "f"), ToolCallDelta(0, "{"), ToolCallDelta(0, "}")]


@pytest.mark.parametrize("second", [{"id": "b", "name": "f"}, {"id": None, "name": "g"}])
def test_a_new_id_or_name_at_a_used_index_opens_a_new_call(second):
    events = calls(fragment("{}", "f", id="a", index=0), fragment("[]", index=0, **second))

    assert [e.index for e in events] == [0, 0, 1, 1]


def test_arguments_as_an_object_become_text():
    assert calls(fragment({"x": 1}, "f", id="a"))[1] == ToolCallDelta(0, '{"x":1}')


# Whole answers and requests


def test_a_whole_answer_after_empty_lines():
    message = {"content": "Hi", "reasoning": "hm"}
    body = {"id": "i", "model": "m", "choices": [{"message": message, "finish_reason": "stop"}]}

    events = CODEC.dialect.decode_response(b"\n\n\n" + msgspec.json.encode(body))

    assert events == [
        MessageStart("i", "m"),
        ReasoningDelta("hm"),
        TextDelta("Hi"),
        ChoiceEnd("stop", "stop"),
        MessageEnd("stop", None, "stop"),
    ]


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"id": "\xff"}', b"[" * 100_000])
def test_what_cannot_be_read_is_a_protocol_error_here_and_a_bad_request_there(body):
    with pytest.raises(RemoteProtocolError, match="can't be read"):
        CODEC.dialect.decode_response(body)
    with pytest.raises(BadRequest):
        CODEC.dialect.decode_request(body)


def test_usage_is_only_said_to_those_who_asked():
    events = [MessageStart("i", "m"), ChoiceEnd("stop"), MessageEnd("stop", Usage(input_tokens=1))]
    writer = CODEC.dialect.writer(Request(model="m", messages=(), include_usage=False))

    wire = b"".join(CODEC.encode(writer, event) for event in events)

    assert b"usage" not in wire
    assert wire.endswith(DONE)


def test_a_refusal_of_an_earlier_turn_is_what_the_assistant_said():
    said = {"role": "assistant", "content": None, "refusal": "I can't."}
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}, said]}
    request = CODEC.dialect.decode_request(msgspec.json.encode(body))

    assert request.messages[1].parts == (Refusal("I can't."),)
    assert request.messages[1].native_of("openai_chat") == said
