"""The blocks of an answer keep their order, and the turn that is sent back is the one that came."""

import json

import msgspec
import pytest

from unbroken.engine.accumulate import Accumulator
from unbroken.events import (
    BlockEnd,
    BlockStart,
    ChoiceEnd,
    Event,
    MessageStart,
    ReasoningDelta,
    Resumed,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    TurnNative,
)
from unbroken.messages import Message, Reasoning, Request, Text, ToolUse
from unbroken.parts import Native
from unbroken.response import Response
from unbroken.wire import anthropic_messages, bedrock_converse, openai_responses

QUESTION = Request(model="m", messages=())


def turn(*events, complete=True):
    fold = Accumulator()
    fold.add(list(events))
    return fold.choices(complete=complete)[0].message


def test_without_boundaries_a_block_begins_where_the_kind_changes():
    message = turn(
        ReasoningDelta("a"),
        ReasoningDelta("", signature="1"),
        ReasoningDelta("b", signature="2"),
        TextDelta("x"),
        ToolCallStart(0, "c", "f"),
        TextDelta("y"),
        ToolCallDelta(0, "{}"),
        ChoiceEnd("tool_calls"),
    )

    assert message == Message(
        "assistant",
        (
            Reasoning("a", "1"),
            Reasoning("b", "2"),
            Text("x"),
            ToolUse("c", "f", "{}"),
            Text("y"),
        ),
    )


def test_boundaries_keep_equal_kinds_apart():
    blocks = [
        [BlockStart(at, "text"), TextDelta(text), BlockEnd(at)] for at, text in enumerate("ab")
    ]

    assert turn(*blocks[0], *blocks[1]).parts == (Text("a"), Text("b"))


def test_an_old_log_is_still_read():
    record = json.dumps(
        [
            {"type": "message_start", "id": "i", "model": "m"},
            {"type": "reasoning_delta", "text": "hm", "choice": 0, "signature": "s"},
            {"type": "tool_call_start", "index": 0, "id": "c", "name": "f", "choice": 0},
            {"type": "choice_end", "finish_reason": "stop", "raw": "", "choice": 0},
        ]
    )
    events = msgspec.json.decode(record, type=list[Event])

    assert turn(*events).parts == (Reasoning("hm", "s"), ToolUse("c", "f", "{}"))


def test_a_call_that_is_not_whole_is_no_part_of_the_turn():
    message = turn(TextDelta("x"), ToolCallStart(0, "c", "f"), ToolCallDelta(0, '{"a'))

    assert message == Message("assistant", (Text("x"),))


def test_no_call_of_an_unknown_end_can_be_executed():
    fold = Accumulator()
    fold.add(
        [ToolCallStart(0, "c", "f"), ToolCallDelta(0, "{}"), ChoiceEnd("error", "?", known=False)]
    )
    choice = fold.choices(complete=True)[0]

    assert (choice.tool_calls, len(choice.partial_tool_calls)) == ((), 1)
    assert choice.message.parts == ()


def test_what_two_attempts_wrote_has_no_json_of_its_own():
    native = BlockEnd(0, '{"type":"text","text":"\\u0000text"}', "anthropic_messages")
    begun = [BlockStart(0, "text"), TextDelta("a")]

    assert turn(*begun, native).native is not None
    assert turn(*begun, Resumed(2, "continue", ""), TextDelta("b"), native).native is None


def test_the_turn_of_a_dialect_without_blocks():
    native = TurnNative('{"role":"assistant","content":"\\u0000text","x":1}', "openai_chat")

    assert turn(TextDelta('"a"'), native).native == Native(
        "openai_chat", {"role": "assistant", "content": '"a"', "x": 1}
    )


CLAUDE = [
    {"type": "thinking", "thinking": "One", "signature": "A"},
    {"type": "text", "text": "Look", "citations": [{"type": "char_location", "cited_text": "c"}]},
    {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}},
    {"type": "hologram", "depth": [1, 2]},
    {"type": "redacted_thinking", "data": "R"},
    {"type": "thinking", "thinking": "Two", "signature": "B"},
    {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}, "caller": {"type": "direct"}},
    {"type": "text", "text": "between"},
    {"type": "tool_use", "id": "u", "name": "g", "input": {}},
]
CONVERSE = [
    {"reasoningContent": {"reasoningText": {"text": "One", "signature": "A"}}},
    {"text": "Look"},
    {"reasoningContent": {"redactedContent": "Ug=="}},
    {"toolUse": {"toolUseId": "t", "name": "f", "input": {"a": 1}}},
    {"hologram": {"depth": 1}},
]
ITEMS = [
    {
        "type": "reasoning",
        "id": "r",
        "summary": [{"type": "summary_text", "text": "Hm"}],
        "encrypted_content": "E",
    },
    {
        "type": "message",
        "id": "m",
        "role": "assistant",
        "phase": "commentary",
        "content": [{"type": "output_text", "text": "Look", "annotations": []}],
    },
    {"type": "tool_search_call", "id": "s", "arguments": {"query": "x"}},
    {
        "type": "function_call",
        "id": "f",
        "call_id": "t",
        "name": "f",
        "arguments": '{"a":1}',
        "namespace": "n",
    },
    {"type": "custom_tool_call", "id": "c", "call_id": "u", "name": "patch", "input": "*** Begin"},
]
BODIES = {
    "anthropic": (
        anthropic_messages.CODEC,
        {"id": "i", "content": CLAUDE, "stop_reason": "tool_use"},
    ),
    "bedrock": (
        bedrock_converse.CODEC,
        {"output": {"message": {"content": CONVERSE}}, "stopReason": "tool_use"},
    ),
    "responses": (openai_responses.CODEC, {"id": "i", "status": "completed", "output": ITEMS}),
}
TURNS = {
    "anthropic": {"role": "assistant", "content": CLAUDE},
    "bedrock": {"role": "assistant", "content": CONVERSE},
    "responses": ITEMS,
}


@pytest.mark.parametrize("name", BODIES)
def test_the_turn_is_sent_back_as_it_came(name):
    codec, body = BODIES[name]
    whole = turn(*codec.dialect.decode_response(json.dumps(body).encode()))

    assert whole.native.data == TURNS[name]


@pytest.mark.parametrize("name", BODIES)
def test_a_whole_answer_is_written_with_every_block(name):
    codec, body = BODIES[name]
    fold = Accumulator()
    fold.add(codec.dialect.decode_response(json.dumps(body).encode()))
    response = Response(id="i", end="complete", choices=fold.choices(complete=True))
    again = turn(*codec.dialect.decode_response(codec.dialect.encode_response(response)))

    assert again.native.data == TURNS[name]


def frames(block, index):
    start = {**block, **{k: "" for k in ("text", "thinking", "signature") if k in block}}
    grown = [
        {"type": f"{name}_delta", name: block[name]}
        for name in ("thinking", "text", "signature")
        if name in block
    ]
    grown += [{"type": "citations_delta", "citation": c} for c in block.get("citations", ())]
    if "input" in block:
        start["input"] = {}
        grown.append({"type": "input_json_delta", "partial_json": json.dumps(block["input"])})
    start.pop("citations", None)
    yield {"type": "content_block_start", "index": index, "content_block": start}
    for delta in grown:
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}


def test_streamed_and_whole_agree():
    codec = anthropic_messages.CODEC
    events = [{"type": "message_start", "message": {"id": "i"}}]
    events += [frame for at, block in enumerate(CLAUDE) for frame in frames(block, at)]
    events += [
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
        {"type": "message_stop"},
    ]
    body = b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events)
    streamed = codec.decoder(QUESTION).feed(body)
    writer = codec.dialect.writer(QUESTION)
    again = codec.decoder(QUESTION).feed(codec.encode_all(writer, streamed))

    assert streamed[0] == MessageStart("i", "")
    assert turn(*streamed).native.data == {"role": "assistant", "content": CLAUDE}
    assert [p for p in turn(*again).parts if not isinstance(p, Native)] == [
        p for p in turn(*streamed).parts if not isinstance(p, Native)
    ]
