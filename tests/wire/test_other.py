"""What a dialect carries and we have no word for is kept, and written back by the same dialect.

The official SDKs fold what we write to what they fold of the original.
"""

from pathlib import Path

import anthropic
import httpx2
import msgspec
import openai
import pytest
from test_wire_peers import answering

from unbroken.engine.accumulate import Accumulator
from unbroken.events import (
    CONTENT,
    Boundary,
    ChoiceEnd,
    Citation,
    MessageEnd,
    MessageStart,
    OtherEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    TurnNative,
)
from unbroken.messages import Message, Request, Text
from unbroken.response import Response
from unbroken.wire import anthropic_messages, openai_chat

DATA = Path(__file__).parent.parent / "data/wire"
SEARCH = (DATA / "anthropic-search.sse").read_bytes()
QUESTION = Request(model="m", messages=(Message("user", (Text("hi"),)),))
PROMPT = [{"role": "user", "content": "hi"}]
CODECS = {"openai": openai_chat.CODEC, "anthropic": anthropic_messages.CODEC}


def sse(*chunks):
    return b"".join(b"data: %b\n\n" % msgspec.json.encode(chunk) for chunk in chunks)


def heard(name, body):
    decoder = CODECS[name].decoder(QUESTION)
    events = [*decoder.feed(body), *decoder.eof()]
    assert (decoder.skipped, decoder.error) == (0, None)
    return events


def heard_whole(name, body):
    decoder = CODECS[name].decoder(QUESTION)
    decoder.feed(body)
    return decoder.eof()


def said(name, events):
    writer = CODECS[name].dialect.writer(QUESTION)
    return b"".join(CODECS[name].encode(writer, event) for event in events)


def answer(events):
    """The answer that the events add up to."""
    fold = Accumulator()
    fold.add(events)
    choices = fold.choices(complete=True)
    return Response(id="i", model="m", end="complete", choices=choices, usage=fold.usage)


def said_whole(name, events):
    return msgspec.json.decode(CODECS[name].dialect.encode_response(answer(events)))


def others(events):
    return [(e.name, msgspec.json.decode(e.data)) for e in events if isinstance(e, OtherEvent)]


def chunk(finish=None, index=0, **delta):
    inner = {"index": index, "delta": delta, "finish_reason": finish}
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return {**head, "choices": [inner]}


START, STOP = chunk(role="assistant", content=""), chunk("stop")


def chat(*chunks):
    return sse(START, *chunks, STOP) + b"data: [DONE]\n\n"


# The peers


def their_completion(body):
    with (
        httpx2.Client(transport=answering(body)) as http,
        openai.OpenAI(api_key="k", base_url="https://peer.test/v1", http_client=http) as client,
        client.chat.completions.stream(model="m", messages=PROMPT) as stream,
    ):
        return stream.get_final_completion()


def their_message(body):
    with (
        httpx2.Client(transport=answering(body)) as http,
        anthropic.Anthropic(api_key="k", base_url="https://peer.test", http_client=http) as client,
        client.messages.stream(model="m", max_tokens=9, messages=PROMPT) as stream,
    ):
        return stream.get_final_message()


# Anthropic


def test_what_is_kept_does_not_keep_a_stalled_stream_alive():
    assert OtherEvent not in CONTENT


def test_a_search_on_the_server_is_written_back_as_it_came():
    again = said("anthropic", heard("anthropic", SEARCH))
    theirs, mine = their_message(SEARCH), their_message(again)

    assert [b.type for b in mine.content] == [
        "text",
        "server_tool_use",
        "web_search_tool_result",
        "text",
    ]
    assert [b.to_dict() for b in mine.content] == [b.to_dict() for b in theirs.content]


def test_a_search_in_a_whole_answer_is_written_back_in_its_place():
    theirs = their_message(SEARCH).to_dict()
    body = said_whole("anthropic", heard("anthropic", SEARCH))
    again = said_whole("anthropic", heard_whole("anthropic", msgspec.json.encode(body)))

    assert again == body
    assert body["content"][1:3] == theirs["content"][1:3]
    assert [block["text"] for block in body["content"] if block["type"] == "text"] == [
        "I'll check the weather.",
        "It is 68°F",
    ]
    assert body["content"][3]["citations"][0]["cited_text"] == "68 degrees"


def test_a_whole_answer_is_streamed_with_its_blocks():
    body = said_whole("anthropic", heard("anthropic", SEARCH))
    streamed = said("anthropic", heard_whole("anthropic", msgspec.json.encode(body)))

    assert [b.type for b in their_message(streamed).content] == [b["type"] for b in body["content"]]
    assert their_message(streamed).content[1].input == {"query": "weather NYC"}


def test_an_event_of_the_future_is_written_back():
    new = {"type": "of_the_future", "weather": "fine"}
    body = SEARCH.replace(b"event: ping", b"event: of_the_future").replace(
        b'{"type":"ping"}', msgspec.json.encode(new)
    )
    again = said("anthropic", heard("anthropic", body))

    assert b'event: of_the_future\ndata: {"type":"of_the_future","weather":"fine"}\n\n' in again
    assert len(their_message(again).content) == 4


def test_a_block_that_grows_in_new_ways_is_folded():
    events = [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "new", "a": "x"}},
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "new_delta", "a": "y", "b": 1},
        },
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "new_delta", "a": "z", "b": 2},
        },
    ]

    body = said_whole("anthropic", heard("anthropic", sse(*events)))

    assert body["content"] == [{"type": "new", "a": "xyz", "b": 2}]


def test_a_piece_of_a_block_that_never_started_is_not_written():
    events = heard("anthropic", sse({"type": "content_block_delta", "delta": {"type": "new"}}))

    assert said("anthropic", events) == b""
    assert said_whole("anthropic", events)["content"] == []


def test_an_input_cut_short_is_left_out():
    events = [e for e in heard("anthropic", SEARCH) if not isinstance(e, Boundary)]  # an old log
    cut = [e for e in events if not (isinstance(e, OtherEvent) and "query" in e.data)]
    broken = OtherEvent(
        "input_json_delta",
        '{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\\"q"}}',
        dialect="anthropic_messages",
    )

    body = said_whole("anthropic", [*cut, broken])

    assert body["content"][1]["input"] == {}


# OpenAI chat

DETAIL = {"type": "reasoning.text", "format": "f1", "index": 0}


def test_unknown_fields_of_a_delta_are_kept_beside_the_known():
    body = chat(
        chunk(reasoning="Hm", reasoning_details=[{**DETAIL, "text": "Hm"}]),
        chunk(reasoning=".", reasoning_details=[{**DETAIL, "text": ".", "signature": "s"}]),
        chunk(content="Hi", images=None, executed_tools=[]),
    )
    events = heard("openai", body)

    assert [name for name, _ in others(events)] == ["reasoning_details"] * 2
    assert answer(events).reasoning == "Hm."
    assert said_whole("openai", events)["choices"][0]["message"]["reasoning_details"] == [
        {**DETAIL, "text": "Hm.", "signature": "s"}
    ]


def test_the_sdk_folds_what_we_write_back_as_it_does_the_original():
    body = chat(
        chunk(reasoning_details=[{**DETAIL, "text": "Hm"}]),
        chunk(reasoning_details=[{**DETAIL, "text": "."}]),
        chunk(audio={"id": "a1", "data": "QUJD", "transcript": "a"}),
        chunk(audio={"data": "REVG", "transcript": "b"}),
        chunk(content="Hi", images=[{"index": 0, "url": "data:"}]),
    )
    theirs = their_completion(body).choices[0].message
    mine = their_completion(said("openai", heard("openai", body))).choices[0].message

    assert mine.to_dict() == theirs.to_dict()
    assert mine.audio.transcript == "ab"


def test_audio_after_the_finish_reason_is_no_second_end():
    late = chunk(audio={"expires_at": 7})
    events = heard("openai", sse(START, chunk(content="a"), STOP, late) + b"data: [DONE]\n\n")

    assert [type(e) for e in events[1:]] == [
        TextDelta,
        ChoiceEnd,
        OtherEvent,
        TurnNative,
        MessageEnd,
    ]


def test_a_chunk_without_choices_is_kept_and_written_back():
    moderation = {**chunk(), "choices": [], "moderation": {"input": {"flagged": False}}}
    events = heard("openai", chat(chunk(content="a"), moderation))

    assert others(events) == [("moderation", moderation)]
    assert their_completion(said("openai", events)).choices[0].message.content == "a"
    assert said_whole("openai", events)["moderation"] == moderation["moderation"]


def test_what_is_said_before_the_start_is_told_after_it():
    azure = {"id": "", "model": "", "choices": [], "prompt_filter_results": [{"index": 0}]}
    events = heard("openai", sse(azure) + chat(chunk(content="a")))

    assert [type(event) for event in events[:3]] == [MessageStart, OtherEvent, TextDelta]


@pytest.mark.parametrize(
    "quiet",
    [{"choices": []}, {"choices": [], "service_tier": "flex"}, {"type": "ping"}, {"x": None}],
)
def test_a_chunk_that_says_nothing_is_nothing(quiet):
    assert others(heard("openai", chat(quiet, chunk(content="a")))) == []


def test_an_event_with_a_name_of_its_own_is_kept():
    named = b'event: tool.progress\ndata: {"done": 0.5}\n\n'

    assert others(heard("openai", sse(START) + named)) == [("tool.progress", {"done": 0.5})]


def test_a_part_of_another_kind_is_kept():
    reference = {"type": "reference", "reference_ids": [1]}
    events = heard("openai", chat(chunk(content=[{"type": "text", "text": "a"}, reference])))

    assert others(events) == [("reference", reference)]
    assert said_whole("openai", events)["choices"][0]["message"]["content"] == "a"
    assert their_completion(said("openai", events)).choices[0].message.content == "a"


CUSTOM = {"id": "x", "type": "custom", "custom": {"name": "grep", "input": ""}}


def test_a_tool_of_another_type_is_kept_in_its_place_among_the_calls():
    hosted = {"id": "x", "type": "web_search", "web_search": {"query": "a"}}
    function = {"index": 1, "id": "y", "function": {"name": "f", "arguments": "{}"}}
    events = heard(
        "openai",
        chat(
            chunk(tool_calls=[{"index": 0, **hosted}]),
            chunk(tool_calls=[{"index": 0, "web_search": {"query": "b"}}]),
            chunk(tool_calls=[function]),
        ),
    )
    calls = said_whole("openai", events)["choices"][0]["message"]["tool_calls"]

    assert [e for e in events if isinstance(e, ToolCallStart)] == [ToolCallStart(1, "y", "f")]
    assert [(call["type"], call["id"]) for call in calls] == [
        ("web_search", "x"),
        ("function", "y"),
    ]
    assert calls[0]["web_search"]["query"] == "ab"
    assert others(heard("openai", said("openai", events))) == others(events)


def test_a_custom_tool_is_called_with_text():
    grown = chunk(tool_calls=[{"index": 0, "custom": {"input": "a.*"}}])
    events = heard("openai", chat(chunk(tool_calls=[{"index": 0, **CUSTOM}]), grown))
    call = said_whole("openai", events)["choices"][0]["message"]["tool_calls"][0]

    assert ToolCallStart(0, "x", "grep", custom=True) in events
    assert (call["type"], call["custom"]) == ("custom", {"name": "grep", "input": "a.*"})
    assert heard("openai", said("openai", events)) == events


def test_what_a_call_carries_besides_is_kept_with_it():
    signed = {"google": {"thought_signature": "s"}}
    call = {"index": 0, "id": "y", "function": {"name": "f", "arguments": "{}"}}
    events = heard("openai", chat(chunk(tool_calls=[{**call, "extra_content": signed}])))

    assert ToolCallDelta(0, "{}") in events
    assert said_whole("openai", events)["choices"][0]["message"]["tool_calls"] == [
        {
            "id": "y",
            "type": "function",
            "function": {"name": "f", "arguments": "{}"},
            "extra_content": signed,
        }
    ]
    theirs = their_completion(said("openai", events)).choices[0].message.tool_calls[0]
    assert theirs.to_dict()["extra_content"] == signed


def test_a_whole_answer_keeps_the_same_things():
    message = {
        "role": "assistant",
        "content": "a",
        "reasoning_details": [{**DETAIL, "text": "Hm"}],
        "tool_calls": [CUSTOM],
    }
    inner = {"index": 0, "message": message, "finish_reason": "stop"}
    body = {"id": "i", "model": "m", "choices": [inner], "citations": ["https://example.org"]}
    events = heard_whole("openai", msgspec.json.encode(body))
    again = said_whole("openai", events)

    assert isinstance(events[-1], MessageEnd)
    assert sorted(name for name, _ in others(events)) == ["citations", "reasoning_details"]
    assert again["citations"] == body["citations"]
    assert again["choices"][0]["message"] == {**message, "refusal": None}


ANNOTATION = {"type": "url_citation", "url_citation": {"url": "https://example.org", "title": "t"}}


def test_annotations_are_citations_and_are_written_back_one_by_one():
    events = heard("openai", chat(chunk(content="a"), chunk(annotations=[ANNOTATION, ANNOTATION])))
    cited = [msgspec.json.decode(e.data) for e in events if isinstance(e, Citation)]
    theirs = their_completion(said("openai", events)).choices[0].message

    assert cited == [ANNOTATION, ANNOTATION]
    assert [note.url_citation.url for note in theirs.annotations] == ["https://example.org"] * 2
    assert said_whole("openai", events)["choices"][0]["message"]["annotations"] == cited


@pytest.mark.parametrize(
    ("name", "foreign"), [("openai", "anthropic"), ("anthropic", "openai"), ("openai", "")]
)
def test_nothing_of_another_dialect_is_written(name, foreign):
    dialect = {"openai": "openai_chat", "anthropic": "anthropic_messages"}.get(foreign, "")
    strange = [OtherEvent("new", '{"type":"new","choices":[]}', dialect=dialect)]
    strange.append(Citation('{"url":"u"}' if name == "openai" else '{"url_citation":{}}'))
    events = [MessageStart("i", "m"), *strange]

    assert said(name, events) == said(name, events[:1])
    assert b"new" not in msgspec.json.encode(said_whole(name, strange))
