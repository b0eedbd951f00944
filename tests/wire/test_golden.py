"""Golden bytes in the shape the providers document, written by hand: the third point.

Our encoder and decoder share our misunderstandings. These bytes come from neither, and the
official SDKs fold them to the same answer as we do.
"""

from pathlib import Path

import anthropic
import openai
import pytest

from unbroken import Client
from unbroken.messages import Request
from unbroken.simulator.app import running
from unbroken.simulator.scenario import Scenario
from unbroken.wire import anthropic_messages, openai_chat

FILES = sorted((Path(__file__).parent.parent / "data/wire").glob("*.sse"))
GOLDEN = {path.stem: path.read_bytes() for path in FILES}
CODECS = {"openai": openai_chat.CODEC, "anthropic": anthropic_messages.CODEC}
PROMPT = [{"role": "user", "content": "hi"}]
each_file = pytest.mark.parametrize("name", GOLDEN)


@pytest.fixture(scope="module")
def server():
    with running({name: Scenario(ttft=0, body=body) for name, body in GOLDEN.items()}) as url:
        yield url


@pytest.fixture
def ours(server):
    def ask(name):
        urls = {"openai": f"{server}/v1", "anthropic": server}
        with Client(base_url=urls, api_key="k") as client:
            with client.stream(f"{name.split('-')[0]}/{name}", "hi") as stream:
                list(stream)
        return stream.response

    return ask


@each_file
@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000])
def test_any_slicing_gives_the_same_events(name, size):
    def events(*reads):
        decoder = CODECS[name.split("-")[0]].decoder(Request(model="m", messages=()))
        return [event for read in reads for event in decoder.feed(read)]

    body = GOLDEN[name]

    assert events(*(body[at : at + size] for at in range(0, len(body), size))) == events(body) != []


@each_file
def test_golden_bytes_are_a_complete_answer(name, ours):
    response = ours(name)

    assert response.end == "complete"
    assert response.skipped_events == 0
    assert response.usage.source == "reported"


@pytest.mark.parametrize("name", ["openai-text", "openai-tools"])
def test_openai_folds_them_as_we_do(name, server, ours):
    client = openai.OpenAI(base_url=f"{server}/v1", api_key="k")
    options = {"include_usage": True}
    with client.chat.completions.stream(model=name, messages=PROMPT, stream_options=options) as s:
        theirs = s.get_final_completion()
    mine, message = ours(name), theirs.choices[0].message

    assert (message.content or "") == mine.text
    assert theirs.choices[0].finish_reason == mine.finish_reason
    assert [(c.id, c.function.name) for c in message.tool_calls or ()] == [
        (c.id, c.name) for c in mine.tool_calls
    ]
    assert theirs.usage.completion_tokens == mine.usage.output_tokens == 10
    client.close()


@pytest.mark.parametrize("name", ["anthropic-text", "anthropic-tools", "anthropic-thinking"])
def test_anthropic_folds_them_as_we_do(name, server, ours):
    client = anthropic.Anthropic(base_url=server, api_key="k")
    with client.messages.stream(model=name, max_tokens=9, messages=PROMPT) as stream:
        theirs = stream.get_final_message()
    mine = ours(name)
    blocks = {
        kind: [b for b in theirs.content if b.type == kind]
        for kind in ("text", "tool_use", "thinking")
    }

    assert "".join(block.text for block in blocks["text"]) == mine.text
    assert [(b.id, b.name, b.input) for b in blocks["tool_use"]] == [
        (c.id, c.name, c.arguments) for c in mine.tool_calls
    ]
    assert "".join(block.thinking for block in blocks["thinking"]) == mine.reasoning
    assert theirs.stop_reason == mine.raw_finish_reason
    assert theirs.usage.output_tokens == mine.usage.output_tokens
    client.close()


def test_cached_tokens_are_part_of_the_input(ours):
    usage = ours("anthropic-text").usage

    assert (usage.input_tokens, usage.cached_input_tokens, usage.cache_write_tokens) == (
        130,
        100,
        5,
    )


def test_a_signature_is_kept_for_the_next_turn(ours):
    assert ours("anthropic-thinking").choices[0].reasoning_signature.startswith("EqQB")
