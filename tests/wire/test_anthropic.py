"""The Anthropic messages dialect, rule by rule."""

from pathlib import Path

import msgspec
import pytest

from unbroken.errors import (
    BadRequest,
    LocalProtocolError,
    Overloaded,
    ProviderError,
    RateLimited,
    RemoteProtocolError,
    ServerError,
)
from unbroken.events import (
    Boundary,
    ChoiceEnd,
    Citation,
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
from unbroken.messages import (
    Image,
    Message,
    Reasoning,
    Request,
    Text,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
)
from unbroken.response import Choice, Response, ToolCall
from unbroken.wire.anthropic_messages.dialect import CODEC, AnthropicMessages

DATA = Path(__file__).parent.parent / "data/wire"
QUESTION = (Message("user", (Text("hi"),)),)


def body(messages=QUESTION, **given):
    request = Request(model="m", messages=messages, **given)
    return msgspec.json.decode(CODEC.dialect.encode_request(request))


def turns(*messages):
    return body(messages)["messages"]


def read(*events):
    """What a stream of these JSON values says, and how many of them could not be read."""
    decoder = CODEC.decoder(Request(model="m", messages=()))
    wire = b"".join(b"data: %b\n\n" % msgspec.json.encode(event) for event in events)
    return decoder.feed(wire), decoder


def content(events):
    """The events without the boundaries of blocks."""
    return [event for event in events if not isinstance(event, Boundary)]


def said(*events):
    return content(read(*events)[0])


def golden(name):
    decoder = CODEC.decoder(Request(model="m", messages=()))
    return decoder.feed((DATA / name).read_bytes())


def written(*events):
    """The JSON of the frames that say these events."""
    writer = CODEC.dialect.writer(Request(model="m", messages=()))
    frames = [frame for event in events for frame in writer.write(event)]
    assert all(msgspec.json.decode(frame.data)["type"] == frame.event for frame in frames)
    return [msgspec.json.decode(frame.data) for frame in frames]


def shape(frames):
    """Type and block index of each frame: the grammar of a stream."""
    return [(frame["type"].removeprefix("content_block_"), frame.get("index")) for frame in frames]


def start(index, **block):
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index, type, **more):
    return {"type": "content_block_delta", "index": index, "delta": {"type": type, **more}}


def ending(reason="end_turn", **usage):
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage}


def kept(name, frame):
    return OtherEvent(name, msgspec.json.encode(frame).decode(), dialect="anthropic_messages")


STOP = {"type": "message_stop"}


# Requests, outwards


def test_the_smallest_request():
    assert body() == {
        "model": "m",
        "max_tokens": 16_384,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "stream": True,
    }


def test_the_default_of_max_tokens_is_a_field():
    request = Request(model="m", messages=QUESTION)

    sent = msgspec.json.decode(AnthropicMessages(default_max_tokens=99).encode_request(request))

    assert sent["max_tokens"] == 99
    assert body(max_tokens=7)["max_tokens"] == 7


def test_stream_is_only_said_when_wanted():
    assert "stream" not in body(stream=False)


def test_system_messages_become_the_top_level_system():
    system = (Message("system", (Text("be brief"),)), Message("system", (Text("be kind"),)))

    sent = body((*system, *QUESTION))

    assert sent["system"] == [{"type": "text", "text": t} for t in ("be brief", "be kind")]
    assert len(sent["messages"]) == 1


def test_adjacent_tool_results_share_one_user_turn():
    calls = Message("assistant", (ToolUse("a", "f", '{"x":1}'), ToolUse("b", "g", "")))
    results = (
        Message("tool", (ToolResult("a", "1"),)),
        Message("tool", (ToolResult("b", "2"),)),
    )

    sent = turns(*QUESTION, calls, *results)

    assert [turn["role"] for turn in sent] == ["user", "assistant", "user"]
    assert sent[1]["content"] == [
        {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
        {"type": "tool_use", "id": "b", "name": "g", "input": {}},
    ]
    assert [block["tool_use_id"] for block in sent[2]["content"]] == ["a", "b"]


def test_turns_of_one_role_are_merged():
    sent = turns(*QUESTION, Message("user", (Text("there"),)))

    assert [block["text"] for block in sent[0]["content"]] == ["hi", "there"]


def test_images_are_sources():
    parts = (Image("data:image/png;base64,AAAA"), Image("https://example.org/a.png"))

    sources = [block["source"] for block in turns(Message("user", parts))[0]["content"]]

    assert sources == [
        {"type": "base64", "media_type": "image/png", "data": "AAAA"},
        {"type": "url", "url": "https://example.org/a.png"},
    ]


def test_only_signed_thoughts_are_sent_back():
    thoughts = (Reasoning("signed", "proof"), Reasoning("unsigned"), Text("so"))

    sent = turns(*QUESTION, Message("assistant", thoughts))

    assert sent[1]["content"] == [
        {"type": "thinking", "thinking": "signed", "signature": "proof"},
        {"type": "text", "text": "so"},
    ]


def test_empty_text_is_never_sent():
    empty = Message("assistant", (Text(""),))

    assert turns(*QUESTION, empty, *QUESTION) == turns(*QUESTION, *QUESTION)


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"stop": ("END",)}, {"stop_sequences": ["END"]}),
        ({"temperature": 0.5}, {"temperature": 0.5}),
        ({"top_p": 0.5}, {"top_p": 0.5}),
        ({"top_k": 5}, {"top_k": 5}),
        ({"user": "u"}, {"metadata": {"user_id": "u"}}),
        ({"reasoning_effort": "low"}, {"output_config": {"effort": "low"}}),
        ({"tool_choice": ToolChoice("required")}, {"tool_choice": {"type": "any"}}),
        ({"tool_choice": ToolChoice("none")}, {"tool_choice": {"type": "none"}}),
        ({"tool_choice": ToolChoice("tool", "f")}, {"tool_choice": {"type": "tool", "name": "f"}}),
        ({"n": 1}, {}),
        ({"extra": {"thinking": {"type": "enabled"}}}, {"thinking": {"type": "enabled"}}),
        ({"extra": {"max_tokens": 6}}, {"max_tokens": 6}),
    ],
)
def test_a_parameter_in_the_words_of_the_dialect(given, sent):
    assert body(**given) == body() | sent


def test_what_the_request_says_can_not_be_replaced_beside_it():
    with pytest.raises(LocalProtocolError, match="extra can't replace 'max_tokens'"):
        body(max_tokens=5, extra={"max_tokens": 6})


def test_one_call_at_a_time_is_a_field_of_the_tool_choice():
    tools = (Tool("f", "does f", {"type": "object"}, strict=True), Tool("g"))

    sent = body(tools=tools, parallel_tool_calls=False)

    assert sent["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    assert sent["tools"] == [
        {"name": "f", "description": "does f", "strict": True, "input_schema": {"type": "object"}},
        {"name": "g", "input_schema": {"type": "object", "properties": {}}},
    ]


def test_a_schema_for_the_answer_goes_into_output_config():
    schema = {"type": "object", "properties": {}}
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}

    assert body(response_format=wanted)["output_config"] == {
        "format": {"type": "json_schema", "schema": {**schema, "additionalProperties": False}}
    }


def test_what_the_schema_of_an_answer_may_not_say_goes_into_its_description():
    bounded = {"type": "integer", "description": "How many", "minimum": 1, "maximum": 9}
    either = {"oneOf": [{"type": "string", "maxLength": 3}, {"type": "null"}], "discriminator": {}}
    many = {"type": "array", "items": bounded, "minItems": 2}
    schema = {"type": "object", "properties": {"a": bounded, "b": either, "c": many}}
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    told = {"type": "integer", "description": "How many (maximum: 9, minimum: 1)"}

    assert body(response_format=wanted)["output_config"]["format"]["schema"] == {
        "type": "object",
        "properties": {
            "a": told,
            "b": {"anyOf": [{"type": "string", "description": "(maxLength: 3)"}, {"type": "null"}]},
            "c": {"type": "array", "items": told, "description": "(minItems: 2)"},
        },
        "additionalProperties": False,
    }


@pytest.mark.parametrize("free", [{}, {"properties": {}, "additionalProperties": True}])
def test_an_answer_with_free_keys_is_refused_by_name(free):
    wanted = {
        "type": "json_schema",
        "json_schema": {"name": "n", "schema": {"type": "object"} | free},
    }

    with pytest.raises(LocalProtocolError, match="free keys"):
        body(response_format=wanted)


@pytest.mark.parametrize("place", ["output_config", "output_format"])
def test_the_format_of_the_answer_is_understood(place):
    wanted = {"type": "json_schema", "schema": {"type": "object", "properties": {}}}
    given = {"output_config": {"format": wanted, "effort": "low"}, "output_format": wanted}
    request = asked(**{place: given[place]})

    assert request.response_format["json_schema"]["schema"] == wanted["schema"]
    assert request.reasoning_effort == ("low" if place == "output_config" else None)
    assert request.extra == {}


def test_who_asks_is_understood():
    request = asked(metadata={"user_id": "u"})

    assert (request.user, request.metadata, request.extra) == ("u", None, {})


@pytest.mark.parametrize(
    "more",
    [
        {"metadata": {"user_id": "u", "team": "t"}},
        {"output_config": {"effort": "low", "task_budget": {"tokens": 9}}},
        {"service_tier": "auto"},
    ],
)
def test_what_we_have_no_word_for_in_a_request_travels_on_whole(more):
    sent = msgspec.json.decode(CODEC.dialect.encode_request(asked(**more)))

    assert {name: sent[name] for name in more} == more


@pytest.mark.parametrize(
    "given",
    [
        {"n": 2},
        {"seed": 1},
        {"logprobs": True},
        {"top_logprobs": 2},
        {"frequency_penalty": 0.5},
        {"presence_penalty": 0.5},
        {"response_format": {"type": "json_object"}},
    ],
)
def test_what_cannot_be_said_is_refused_by_name(given):
    with pytest.raises(LocalProtocolError, match=next(iter(given))):
        body(**given)


def test_arguments_that_are_no_json_are_refused():
    with pytest.raises(LocalProtocolError, match="no JSON"):
        turns(Message("assistant", (ToolUse("a", "f", "{"),)))


# Requests, inwards


def asked(**fields):
    whole = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    return CODEC.dialect.decode_request(msgspec.json.encode(whole | fields))


def test_a_request_is_read():
    request = asked(system=[{"type": "text", "text": "be brief"}], stop_sequences=["END"])

    assert [m.parts for m in request.messages] == [(Text("be brief"),), QUESTION[0].parts]
    assert (request.max_tokens, request.stop, request.stream) == (5, ("END",), False)


def test_unknown_fields_travel_on_in_the_native():
    assert asked(service_tier="auto").native.data["service_tier"] == "auto"
    assert asked(service_tier="auto").extra == {}


def test_a_turn_with_results_stays_one_message():
    result = {"type": "tool_result", "tool_use_id": "a", "content": "42"}
    content = [result, {"type": "text", "text": "go on"}]

    request = asked(messages=[{"role": "user", "content": content}])

    (message,) = request.messages
    assert message.parts == (ToolResult("a", "42"), Text("go on"))
    assert message.native_of("anthropic_messages") == {"role": "user", "content": content}


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"messages": [{"role": "user", "content": 5}]}, r"messages\[0\].content"),
        ({"messages": [{"role": "king", "content": "x"}]}, "king"),
        ({"tool_choice": {"type": "some"}}, "tool_choice"),
    ],
)
def test_a_wrong_request_names_the_place(fields, place):
    with pytest.raises(BadRequest, match=place):
        asked(**fields)


# Streams, inwards


def test_citations_and_searches_are_kept():
    events = golden("anthropic-search.sse")
    cited = [msgspec.json.decode(e.data) for e in events if isinstance(e, Citation)]
    others = [e.name for e in events if isinstance(e, OtherEvent)]

    assert [citation["cited_text"] for citation in cited] == ["68 degrees"]
    assert [o for o in others if o != "input_json_delta"] == [
        "server_tool_use",
        "web_search_tool_result",
    ]


def test_the_start_has_only_a_partial_count():
    usage = {"input_tokens": 5, "cache_read_input_tokens": 3, "output_tokens": 1}

    events = said({"type": "message_start", "message": {"id": "i", "model": "m", "usage": usage}})

    partial = Usage(input_tokens=8, cached_input_tokens=3, source="partial")
    assert events == [MessageStart("i", "m"), UsageReport(partial)]


def test_what_a_later_count_leaves_out_keeps_its_value():
    first = {"input_tokens": 5, "cache_creation_input_tokens": 2, "output_tokens": 1}
    details = {"output_tokens_details": {"thinking_tokens": 4}}

    events = said(
        {"type": "message_start", "message": {"usage": first}},
        ending(output_tokens=9, **details),
        STOP,
    )

    assert events[-1].usage == Usage(
        input_tokens=7, output_tokens=9, cache_write_tokens=2, reasoning_tokens=4
    )


def test_a_count_that_never_came_at_the_end_stays_partial():
    first = {"type": "message_start", "message": {"usage": {"input_tokens": 5}}}
    last = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}

    assert said(first, last, STOP)[-1].usage == Usage(input_tokens=5, source="partial")


def test_text_in_the_start_of_a_block_is_text():
    assert said(start(0, type="text", text="Hi")) == [TextDelta("Hi")]


def test_a_whole_input_at_the_start_is_the_arguments():
    block = {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}}

    made = said(start(0, **block), {"type": "content_block_stop", "index": 0})

    assert made == [ToolCallStart(0, "a", "f"), ToolCallDelta(0, '{"x":1}')]


def test_empty_deltas_say_nothing():
    block = start(0, type="tool_use", id="a", name="f", input={})

    events = said(block, delta(0, "input_json_delta", partial_json=""), delta(1, "text_delta"))

    assert events == [ToolCallStart(0, "a", "f")]


def test_calls_at_one_block_index_are_told_apart():
    calls = [start(0, type="tool_use", id=name, name=name) for name in "abc"]
    grown = [delta(0, "input_json_delta", partial_json=text) for text in ('"a"', '"b"', '"c"')]

    events = said(*(frame for pair in zip(calls, grown, strict=True) for frame in pair))

    assert [e.index for e in events] == [0, 0, 1, 1, 2, 2]


def test_a_thought_and_its_proof():
    events = said(
        delta(0, "thinking_delta", thinking="hm"), delta(0, "signature_delta", signature="s")
    )

    assert events == [ReasoningDelta("hm"), ReasoningDelta("", signature="s")]


@pytest.mark.parametrize("kind", ["server_tool_use", "of_the_future"])
def test_a_block_without_a_word_of_ours_is_kept(kind):
    block = start(0, type=kind, data="xyz")

    assert said(block) == [kept(kind, block)]


def test_a_delta_without_a_word_of_ours_is_kept():
    new = delta(0, "compaction_delta", content="...")

    assert said(new) == [kept("compaction_delta", new)]


def test_an_event_without_a_word_of_ours_is_kept():
    new = {"type": "of_the_future", "index": 3, "weather": "fine"}

    assert said(new) == [kept("of_the_future", new)]


@pytest.mark.parametrize("kind", ["ping", "content_block_stop"])
def test_events_without_content_are_passed_over(kind):
    events, decoder = read({"type": kind})

    assert (events, decoder.skipped) == ([], 0)


@pytest.mark.parametrize("kind", ["content_block_start", "content_block_delta"])
def test_a_block_without_its_content_is_malformed(kind):
    events, decoder = read({"type": kind, "index": 0})

    assert (events, decoder.skipped) == ([], 1)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
    ],
)
def test_a_stop_reason_has_our_word_and_its_own(raw, reason):
    events = said(ending(raw, output_tokens=2), STOP)

    assert events[0] == ChoiceEnd(reason, raw)
    assert events[-1] == MessageEnd(reason, Usage(output_tokens=2), raw)


def test_a_stop_without_a_reason_is_no_end():
    events, decoder = read(delta(0, "text_delta", text="Hi"), STOP)

    assert events == [TextDelta("Hi")]
    assert decoder.done


def test_a_reason_without_a_stop_is_no_end_of_the_message():
    events, decoder = read(ending("end_turn"))

    assert events[0] == ChoiceEnd("stop", "end_turn")
    assert decoder.eof() == []
    assert not decoder.done


def test_an_error_ends_the_stream_whatever_follows():
    wrong = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}

    events, decoder = read(delta(0, "text_delta", text="a"), wrong, ending(), STOP)

    assert events == [TextDelta("a")]
    assert isinstance(decoder.error, Overloaded)
    assert not decoder.done


@pytest.mark.parametrize("head", [b"event: error\n", b""])
def test_an_error_may_lack_its_type_or_its_event_line(head):
    decoder = CODEC.decoder(Request(model="m", messages=()))

    decoder.feed(head + b'data: {"error": {"type": "rate_limit_error", "message": "slow"}}\n\n')

    assert isinstance(decoder.error, RateLimited)
    assert decoder.error.message == "slow"


# Streams, outwards


def test_the_whole_grammar_of_a_stream():
    frames = written(
        MessageStart("i", "m"),
        ReasoningDelta("hm"),
        ReasoningDelta("", signature="s"),
        TextDelta("a"),
        RefusalDelta("b"),
        ToolCallStart(0, "c", "f"),
        ToolCallDelta(0, "{}"),
        ChoiceEnd("tool_calls", "tool_use"),
        MessageEnd("tool_calls", Usage(input_tokens=4, output_tokens=2), "tool_use"),
    )

    assert shape(frames) == [
        ("message_start", None),
        *[("start", 0), ("delta", 0), ("delta", 0), ("stop", 0)],
        *[("start", 1), ("delta", 1), ("delta", 1), ("stop", 1)],
        *[("start", 2), ("delta", 2), ("stop", 2)],
        *[("message_delta", None), ("message_stop", None)],
    ]


def test_the_stop_reason_travels_with_the_usage():
    usage = Usage(input_tokens=9, output_tokens=2, cached_input_tokens=3, cache_write_tokens=1)

    last, stop = written(ChoiceEnd("length", "max_tokens"), MessageEnd("length", usage))

    assert last["delta"] == {"stop_reason": "max_tokens", "stop_sequence": None}
    assert last["usage"] == {
        "input_tokens": 5,
        "output_tokens": 2,
        "cache_read_input_tokens": 3,
        "cache_creation_input_tokens": 1,
    }
    assert stop == STOP


def test_a_signature_seals_its_block():
    frames = written(ReasoningDelta("a", signature="s"), ReasoningDelta("b"))

    assert shape(frames) == [
        *[("start", 0), ("delta", 0), ("delta", 0), ("stop", 0)],
        *[("start", 1), ("delta", 1)],
    ]


def test_a_later_block_waits_until_the_call_before_it_is_whole():
    frames = written(
        ToolCallStart(0, "a", "f"),
        ToolCallStart(1, "b", "g"),
        TextDelta("between"),
        ToolCallDelta(0, '{"x"'),
        ToolCallDelta(1, "{}"),
        ToolCallDelta(0, ":1}"),
        ChoiceEnd("tool_calls"),
    )

    assert shape(frames) == [
        *[("start", 0), ("delta", 0), ("delta", 0), ("stop", 0)],
        *[("start", 1), ("delta", 1), ("stop", 1)],
        *[("start", 2), ("delta", 2), ("stop", 2)],
    ]


def test_a_call_without_arguments_holds_nothing_back_for_ever():
    frames = written(ToolCallStart(0, "a", "f"), TextDelta("Hi"), ChoiceEnd("tool_calls"))

    assert shape(frames) == [("start", 0), ("stop", 0), ("start", 1), ("delta", 1), ("stop", 1)]


def test_nothing_is_not_written():
    assert written(TextDelta(""), ReasoningDelta(""), ToolCallDelta(5, "{}")) == []


def test_only_the_first_choice_can_be_said():
    assert written(TextDelta("a", choice=1), ChoiceEnd("stop", "", choice=1)) == []


def test_a_failure_is_an_error_event():
    writer = CODEC.dialect.writer(Request(model="m", messages=()))

    (frame,) = writer.fail(Overloaded("busy", status=529))

    assert frame.event == "error"
    assert msgspec.json.decode(frame.data) == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "busy"},
    }


@pytest.mark.parametrize(
    ("status", "type"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (422, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (503, "overloaded_error"),
        (504, "timeout_error"),
        (529, "overloaded_error"),
        (None, "api_error"),
    ],
)
def test_each_status_has_its_type(status, type):
    told = msgspec.json.decode(CODEC.dialect.encode_error(ProviderError("x", status=status)))

    assert told == {"type": "error", "error": {"type": type, "message": "x"}}


# Whole answers


def whole(body):
    return content(CODEC.dialect.decode_response(msgspec.json.encode(body)))


def test_a_whole_answer_says_what_a_stream_says():
    content = [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "Hi", "citations": [{"url": "u"}]},
        {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
    ]
    events = whole({"id": "i", "model": "m", "content": content, "stop_reason": "tool_use"})

    assert events == [
        MessageStart("i", "m"),
        ReasoningDelta("hm", signature="s"),
        TextDelta("Hi"),
        Citation('{"url":"u"}'),
        ToolCallStart(0, "a", "f"),
        ToolCallDelta(0, '{"x":1}'),
        ChoiceEnd("tool_calls", "tool_use"),
        MessageEnd("tool_calls", None, "tool_use"),
    ]


def test_a_block_without_a_word_of_ours_keeps_its_content():
    block = {"type": "of_the_future", "data": "xyz"}

    events = whole({"content": [block]})

    assert events[1] == kept("of_the_future", start(0, **block))


def test_a_whole_answer_without_a_reason_is_not_complete():
    events = whole({"id": "i", "content": [{"type": "text", "text": "Hi"}]})

    assert events == [MessageStart("i", ""), TextDelta("Hi")]


def test_an_error_instead_of_an_answer_is_raised():
    with pytest.raises(ServerError, match="broke"):
        whole({"type": "error", "error": {"type": "api_error", "message": "it broke"}})


@pytest.mark.parametrize("bytes", [b"", b"<html>", b"[]", b'{"id": "\xff"}', b"[" * 100_000])
def test_what_is_no_answer_is_a_protocol_error(bytes):
    with pytest.raises(RemoteProtocolError, match="can't be read"):
        CODEC.dialect.decode_response(bytes)


def test_a_response_written_and_read_again():
    choice = Choice(
        text="Hi",
        reasoning="hm",
        reasoning_signature="s",
        citations=('{"url":"u"}',),
        tool_calls=(ToolCall("a", "f", {"x": 1}),),
        finish_reason="tool_calls",
        raw_finish_reason="tool_calls",
    )
    usage = Usage(input_tokens=4, output_tokens=2, reasoning_tokens=1)

    body = CODEC.dialect.encode_response(
        Response(id="i", model="m", choices=(choice,), usage=usage)
    )
    events = content(CODEC.dialect.decode_response(body))

    assert [type(e) for e in events[2:7]] == [
        ReasoningDelta,
        TextDelta,
        Citation,
        ToolCallStart,
        ToolCallDelta,
    ]
    assert events[-1] == MessageEnd("tool_calls", usage, "tool_use")
