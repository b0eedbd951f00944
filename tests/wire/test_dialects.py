"""Both dialects, both ways: what holds for each of them."""

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.errors import BadRequest, LocalProtocolError, RemoteProtocolError, ServerError
from unbroken.events import (
    Boundary,
    ChoiceEnd,
    MessageEnd,
    MessageStart,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
    UsageReport,
)
from unbroken.messages import Image, Message, Request, Text, Tool, ToolChoice, ToolResult, ToolUse
from unbroken.response import Choice, Response, ToolCall
from unbroken.wire import anthropic_messages, openai_chat
from unbroken.wire.codec import Frame

CODECS = {"openai": openai_chat.CODEC, "anthropic": anthropic_messages.CODEC}
RAW = {"openai": "stop", "anthropic": "end_turn"}
each_codec = pytest.mark.parametrize("name", CODECS)
QUESTION = Request(model="m", messages=(Message("user", (Text("hi"),)),))

PIECES = st.one_of(
    st.text(min_size=1).map(TextDelta),
    st.text(min_size=1).map(ReasoningDelta),
    st.text(min_size=1).map(lambda text: ("call", text)),
)


def stream_of(pieces, raw):
    """A whole answer from drawn pieces; a call is followed by its arguments."""
    events = [MessageStart("id-1", "m")]
    calls = 0
    for piece in pieces:
        if isinstance(piece, tuple):
            events.append(ToolCallStart(calls, f"c{calls}", "f"))
            events.append(ToolCallDelta(calls, piece[1]))
            calls += 1
        else:
            events.append(piece)
    usage = Usage(input_tokens=3, output_tokens=5)
    return [*events, ChoiceEnd("stop", raw), UsageReport(usage), MessageEnd("stop", usage, raw)]


def encoded(codec, events):
    writer = codec.dialect.writer(QUESTION)
    return b"".join(codec.encode(writer, event) for event in events)


def decoded(codec, *reads):
    decoder = codec.decoder(QUESTION)
    events = [event for read in reads for event in decoder.feed(read)]
    return events + ([] if decoder.done else decoder.eof())


def content(events):
    """What a reader sees, whatever the dialect says besides."""
    return [e for e in events if not isinstance(e, UsageReport | Boundary)]


@each_codec
@given(pieces=st.lists(PIECES, max_size=12))
def test_what_is_encoded_is_decoded_again(name, pieces):
    events = stream_of(pieces, RAW[name])

    assert content(decoded(CODECS[name], encoded(CODECS[name], events))) == content(events)


@each_codec
@given(pieces=st.lists(PIECES, max_size=8), size=st.integers(1, 40))
def test_any_slicing_gives_the_same_events(name, pieces, size):
    wire = encoded(CODECS[name], stream_of(pieces, RAW[name]))
    reads = [wire[at : at + size] for at in range(0, len(wire), size)]

    assert decoded(CODECS[name], *reads) == decoded(CODECS[name], wire)


SHORT = st.text(max_size=3)  # too short for a word of tool calls


@each_codec
@given(garbage=st.lists(st.binary(max_size=60)))
def test_garbage_raises_nothing_but_a_remote_protocol_error(name, garbage):
    with contextlib.suppress(RemoteProtocolError):
        decoded(CODECS[name], *garbage)


@each_codec
@given(garbage=st.recursive(st.none() | st.integers() | SHORT, st.lists, max_leaves=5))
def test_json_of_the_wrong_shape_is_skipped_and_counted(name, garbage):
    decoder = CODECS[name].decoder(QUESTION)

    assert decoder.feed(b"data: %b\n\n" % msgspec.json.encode(garbage)) == []
    assert decoder.skipped == 1


@each_codec
@given(at=st.integers(0, 9))
def test_one_malformed_event_is_skipped_in_place(name, at):
    codec = CODECS[name]
    events = stream_of([TextDelta(f"w{n}") for n in range(9)], RAW[name])
    reads = [encoded(codec, events)] if at == 0 else []
    writer = codec.dialect.writer(QUESTION)
    wire = [codec.encode(writer, event) for event in events]
    decoder = codec.decoder(QUESTION)

    got = decoder.feed(b"".join([*wire[: at + 1], b'data: {"bro\n\n', *wire[at + 1 :]]))

    assert content(got) == content(events)
    assert decoder.skipped == 1
    assert reads == [] or content(decoded(codec, *reads)) == content(events)


@each_codec
def test_a_whole_answer_is_the_same_both_ways(name):
    codec = CODECS[name]
    call = ToolCall("c0", "f", {"a": [1, "é"]})
    choice = Choice(text="hi", tool_calls=(call,), finish_reason="tool_calls")
    usage = Usage(input_tokens=7, output_tokens=2)
    body = codec.dialect.encode_response(
        Response(id="x", model="m", choices=(choice,), usage=usage, end="complete")
    )
    decoder = codec.decoder(QUESTION)

    assert decoder.feed(body) == []
    events = decoder.eof()

    assert TextDelta("hi") in events
    assert ToolCallStart(0, "c0", "f") in events
    assert isinstance(events[-1], MessageEnd)
    assert events[-1].usage == usage


@each_codec
def test_an_error_in_the_stream_ends_it_with_its_class(name):
    codec = CODECS[name]
    error = ServerError("it broke", status=500)
    frames = codec.dialect.writer(QUESTION).fail(error)
    decoder = codec.decoder(QUESTION)

    decoder.feed(b"".join(map(codec.encode_frame, frames)))

    assert isinstance(decoder.error, ServerError)
    assert decoder.error.message == "it broke"


CONVERSATION = (
    Message("system", (Text("be brief"),)),
    Message("user", (Text("look"), Image("data:image/png;base64,AAAA"))),
    Message("assistant", (Text("let me see"), ToolUse("c0", "f", '{"a":1}'))),
    Message("tool", (ToolResult("c0", "42"),)),
    Message("user", (Text("go on"),)),
)


@each_codec
def test_a_request_is_the_same_both_ways(name):
    dialect = CODECS[name].dialect
    request = Request(
        model="m",
        messages=CONVERSATION,
        max_tokens=9,
        temperature=0.5,
        stop=("END",),
        tools=(Tool("f", "does f", {"type": "object", "properties": {}}),),
        tool_choice=ToolChoice("required"),
        extra={"service_tier": "flex"},
    )

    back = dialect.decode_request(dialect.encode_request(request))

    assert parts(back.messages) == parts(CONVERSATION)
    assert [(t.name, t.description, t.parameters) for t in back.tools] == [
        (t.name, t.description, t.parameters) for t in request.tools
    ]
    for field in ("max_tokens", "temperature", "stop", "tool_choice"):
        assert getattr(back, field) == getattr(request, field)
    assert back.native.data["service_tier"] == "flex"


def parts(messages):
    """All of them; a tool's results stand in the user's turn at Anthropic."""
    return [part for message in messages for part in message.parts]


def test_a_tool_that_failed_is_told_where_there_is_a_word_for_it():
    dialect = CODECS["anthropic"].dialect
    failed = Message("tool", (ToolResult("c0", "no such file", is_error=True),))
    request = Request(model="m", messages=(*CONVERSATION[:3], failed), max_tokens=9)

    read = dialect.decode_request(dialect.encode_request(request))
    assert read.messages[3].parts == failed.parts


@each_codec
@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"{", "malformed|truncated"),
        (b"[]", "object"),
        (b'{"model": 3, "messages": []}', "model"),
        (
            b'{"model": "m", "messages": [{"role": "king", "content": "x"}], "max_tokens": 1}',
            "role|king",
        ),
        (b'{"model": "m", "messages": [{"role": "user"}], "max_tokens": 1}', "content"),
    ],
)
def test_a_wrong_request_is_refused_by_name(name, body, named):
    with pytest.raises(BadRequest, match=f"(?i){named}"):
        CODECS[name].dialect.decode_request(body)


@pytest.mark.parametrize(
    "given", [{"n": 2}, {"seed": 1}, {"logprobs": True}, {"presence_penalty": 1.0}]
)
def test_what_anthropic_cannot_express_is_an_error(given):
    request = msgspec.structs.replace(QUESTION, **given)

    with pytest.raises(LocalProtocolError, match=next(iter(given))):
        anthropic_messages.CODEC.dialect.encode_request(request)


def test_what_openai_cannot_express_is_an_error():
    with pytest.raises(LocalProtocolError, match="top_k"):
        openai_chat.CODEC.dialect.encode_request(msgspec.structs.replace(QUESTION, top_k=4))


def test_anthropic_turns_alternate_and_results_are_the_users():
    body = msgspec.json.decode(
        anthropic_messages.CODEC.dialect.encode_request(Request(model="m", messages=CONVERSATION))
    )

    assert body["system"] == "be brief"
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
    assert [b["type"] for b in body["messages"][2]["content"]] == ["tool_result", "text"]


def test_a_template_never_changes_what_is_read():
    """Chunks alike but for one string take the short way; it must say what the long way says."""
    chunk = '{"id":"1","model":"m","choices":[{"index":%d,"delta":{"content":%s}%s}]}'
    texts = ['"a"', '"\\u00e9"', '"say \\"x\\""', '""', "null", '"b","refusal":"no"']
    frames = [chunk % (at % 2, text, "") for at, text in enumerate(texts * 2)]
    frames.append(chunk % (0, '"z"', ',"finish_reason":"stop"'))
    long_way = [decoded(openai_chat.CODEC, b"data: %b\n\n" % f.encode())[1:] for f in frames]

    reader, short_way = openai_chat.CODEC.dialect.reader(Request(model="", messages=(), n=2)), []
    for frame in frames:
        out = []
        reader.read([Frame(frame.encode())], out)
        short_way.append([e for e in out if not isinstance(e, MessageStart)])

    assert [[e for e in way if not isinstance(e, MessageEnd)] for way in long_way] == short_way
