"""Events that can't be read: halves of surrogate pairs, and what may belong to a tool call."""

import pytest

from unbroken import Client, RecoveryPolicy, Tool
from unbroken.errors import RemoteProtocolError, StreamInterrupted
from unbroken.events import MessageEnd, TextDelta
from unbroken.messages import Request, messages_from
from unbroken.simulator.scenario import Scenario
from unbroken.simulator.transport import SimulatorTransport
from unbroken.wire import anthropic_messages, openai_chat, openai_responses

REQUEST = Request(model="m", messages=messages_from("Hi"))
HALVES = [r"a \ud83d", r"\ude00 b"]


def chat(delta, finish="null"):
    choice = '{"index":0,"delta":{' + delta + '},"finish_reason":' + finish + "}"
    return '{"id":"x","model":"m","choices":[' + choice + "]}"


def block(half):
    delta = '{"type":"text_delta","text":"' + half + '"}'
    return '{"type":"content_block_delta","index":0,"delta":' + delta + "}"


def output(number, half):
    kind = '{"type":"response.output_text.delta"'
    return f'{kind},"sequence_number":{number},"delta":"{half}"' + "}"


def sse(*chunks):
    return "".join(f"data: {chunk}\n\n" for chunk in chunks).encode()


BLOCK = '{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}'
TEXTS = {
    "openai": (openai_chat.CODEC, [chat(f'"content":"{half}"') for half in HALVES]),
    "anthropic": (anthropic_messages.CODEC, [BLOCK, *map(block, HALVES)]),
    "responses": (openai_responses.CODEC, [output(*each) for each in enumerate(HALVES)]),
}


@pytest.mark.parametrize("dialect", TEXTS)
def test_half_a_character_costs_that_character_and_no_more(dialect):
    codec, said = TEXTS[dialect]
    decoder = codec.decoder(REQUEST)
    events = decoder.feed(sse(*said))
    text = "".join(event.text for event in events if isinstance(event, TextDelta))

    assert text == "a \ufffd\ufffd b"
    assert decoder.skipped == 0


def call(arguments):
    return chat('"tool_calls":[{"index":0,"function":{"arguments":"' + arguments + '"}}]')


OPENED = chat('"tool_calls":[{"index":0,"id":"c1","function":{"name":"pay","arguments":""}}]')
GARBLED = '{"id":"x","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"argu GAR'
TOLD = chat("", '"tool_calls"')
BODY = (OPENED, call(r"{\"amount\": 1"), GARBLED, call(r"0}"), TOLD, "[DONE]")


def test_a_tool_call_with_a_hole_in_it_is_none():
    decoder = openai_chat.CODEC.decoder(REQUEST)
    events = decoder.feed(sse(*BODY))

    assert isinstance(decoder.error, RemoteProtocolError)
    assert not any(isinstance(event, MessageEnd) for event in events)


@pytest.mark.parametrize("bad", ["keepalive", '{"id": "c1", "cho', '{"content": null, "id', "5"])
def test_what_holds_no_content_is_skipped_and_counted(bad):
    decoder = openai_chat.CODEC.decoder(REQUEST)

    assert decoder.feed(sse(bad, chat('"content":"a"'))) != []
    assert (decoder.skipped, decoder.error) == (1, None)


@pytest.mark.parametrize(
    "bad", ['{"choices":[{"delta":{"con', '{"delta":{"content":"a"', '{"text": "a']
)
@pytest.mark.parametrize("codec", [each[0] for each in TEXTS.values()])
def test_what_may_hold_content_ends_the_attempt(codec, bad):
    decoder = codec.decoder(REQUEST)
    decoder.feed(sse(bad))

    assert isinstance(decoder.error, RemoteProtocolError)


def test_it_is_asked_for_again():
    whole = sse(OPENED, call(r"{\"amount\": 10}"), TOLD, "[DONE]")
    bodies = {"torn": sse(*BODY), "good": whole}
    scenarios = {name: Scenario(ttft=0.0, tps=0, body=body) for name, body in bodies.items()}
    tool = Tool("pay", "Pays.", {"type": "object", "properties": {"amount": {"type": "integer"}}})
    once = RecoveryPolicy(attempts=1)
    with Client(api_key="k", transport=SimulatorTransport(scenarios), recovery=once) as client:
        with pytest.raises(StreamInterrupted, match="can't be read"):
            list(client.stream("openai/torn", "Pay 10.", tools=[tool]))
        stream = client.stream(["openai/torn", "openai/good"], "Pay 10.", tools=[tool])
        list(stream)

    assert [made.arguments for made in stream.response.tool_calls] == [{"amount": 10}]
