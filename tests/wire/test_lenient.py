"""A field that isn't needed costs nothing, whatever stands in it; text may come at any stage."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unbroken.engine.accumulate import Accumulator
from unbroken.events import MessageEnd
from unbroken.messages import Request
from unbroken.wire import anthropic_messages, openai_chat, openai_responses

QUESTION = Request(model="m", messages=())
ODD = st.sampled_from([None, False, True, 0, 1.5, "", "x", "3", [], {}, [1], {"a": 1}, [[]]])


def sse(*events):
    return b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events)


def heard(codec, body, places=()):
    edges = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    decoder = codec.decoder(QUESTION)
    events = []
    for begin, end in zip(edges, edges[1:], strict=False):
        if not decoder.done and decoder.error is None and begin < end:
            events += decoder.feed(body[begin:end])
    if not decoder.done and decoder.error is None:
        events += decoder.eof()
    fold = Accumulator()
    fold.add(events)
    return fold.choices(complete=True)[0], events, decoder


def chunk(**choice):
    return {
        "id": "c",
        "object": "x",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, **choice}],
    }


CHAT = [
    chunk(delta={"role": "assistant", "content": "Hel", "refusal": None}, finish_reason=None),
    chunk(delta={"content": "lo", "tool_calls": None}, logprobs=None, finish_reason=None),
    chunk(delta={}, finish_reason="stop"),
    {"id": "c", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}},
]
CLAUDE = [
    {
        "type": "message_start",
        "message": {"id": "m", "model": "c", "content": [], "usage": {"input_tokens": 1}},
    },
    {
        "type": "content_block_start",
        "index": 0,
        "content_block": {"type": "text", "text": "", "citations": None},
    },
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 2},
    },
    {"type": "message_stop"},
]
RESPONSES = [
    {
        "type": "response.created",
        "sequence_number": 0,
        "response": {"id": "r", "model": "m", "usage": None},
    },
    {
        "type": "response.output_text.delta",
        "sequence_number": 1,
        "item_id": "i",
        "logprobs": [],
        "delta": "Hello",
    },
    {
        "type": "response.completed",
        "sequence_number": 2,
        "response": {"id": "r", "status": "completed", "output": [], "usage": {"input_tokens": 1}},
    },
]
NEEDED = {
    "type",
    "choices",
    "delta",
    "content",
    "finish_reason",
    "index",
    "text",
    "stop_reason",
    "content_block",
    "response",
    "error",
    "status",
    "message",
    "refusal",
    "tool_calls",
    "base_resp",
}
STREAMS = {
    "chat": (openai_chat.CODEC, CHAT),
    "anthropic": (anthropic_messages.CODEC, CLAUDE),
    "responses": (openai_responses.CODEC, RESPONSES),
}


def spoiled(value, draw):
    """The same JSON, with odd values in fields that nothing depends on."""
    if isinstance(value, list):
        return [spoiled(item, draw) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: spoiled(inner, draw)
        if name in NEEDED
        else draw(ODD)
        if draw(st.booleans())
        else inner
        for name, inner in value.items()
    }


@pytest.mark.parametrize("name", STREAMS)
@settings(deadline=None, max_examples=150)
@given(data=st.data(), places=st.lists(st.integers(0, 2000), max_size=4))
def test_an_odd_value_in_a_field_that_is_not_needed_costs_nothing(name, data, places):
    codec, stream = STREAMS[name]
    choice, events, decoder = heard(codec, sse(*spoiled(stream, data.draw)), places)

    assert (choice.text, choice.finish_reason) == ("Hello", "stop")
    assert isinstance(events[-1], MessageEnd)
    assert (decoder.error, decoder.skipped) == (None, 0)


PIECES = st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=6)
STAGES = ("deltas", "output_text.done", "output_item.done", "response.completed")


@settings(deadline=None, max_examples=150)
@given(
    pieces=PIECES,
    sent=st.lists(st.booleans(), min_size=4, max_size=4).filter(any),
    cut=st.integers(0, 6),
)
def test_text_at_the_end_is_the_same_as_text_in_deltas(pieces, sent, cut):
    text = "".join(pieces)
    part = {"type": "output_text", "text": text}
    item = {"type": "message", "id": "i", "content": [part]}
    whole = any(sent[1:])
    deltas = pieces[:cut] if whole else pieces  # where the whole follows, deltas may stop anywhere
    place = {"output_index": 0, "content_index": 0}
    events = [{"type": "response.created", "response": {"id": "r"}}]
    events.append({"type": "response.output_item.added", **place, "item": {"type": "message"}})
    if sent[0] or not whole:
        events += [
            {"type": "response.output_text.delta", **place, "delta": piece} for piece in deltas
        ]
    if sent[1]:
        events.append({"type": "response.output_text.done", **place, "text": text})
    if sent[2]:
        events.append({"type": "response.output_item.done", **place, "item": item})
    output = [item] if sent[3] else []
    ended = {"id": "r", "status": "completed", "output": output}
    choice, _, _ = heard(
        openai_responses.CODEC, sse(*events, {"type": "response.completed", "response": ended})
    )

    assert choice.text == text
