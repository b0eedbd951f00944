"""The official SDKs, on real sockets: they accept what we encode and fold it to the same answer."""

import asyncio

import anthropic
import openai
import pytest

from unbroken import Client
from unbroken.simulator.app import running

PROMPT = [{"role": "user", "content": "Tell me about the weather in Rome."}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
CHAT_TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}
MESSAGES_TOOL = {"name": "get_weather", "input_schema": SCHEMA}
FAST = "?ttft=0&tps=0&tokens=40"


@pytest.fixture(scope="module")
def server():
    with running() as url:
        yield url


@pytest.fixture(scope="module")
def chat(server):
    with openai.OpenAI(base_url=f"{server}/v1", api_key="k", max_retries=0) as client:
        yield client.chat.completions


@pytest.fixture(scope="module")
def messages(server):
    with anthropic.Anthropic(base_url=server, api_key="k", max_retries=0) as client:
        yield client.messages


@pytest.fixture
def ours(server):
    urls = {"openai": f"{server}/v1", "anthropic": server}
    with Client(base_url=urls, api_key="k") as client:
        yield client


def test_openai_streams_the_same_text(chat, ours):
    stream = chat.create(model=f"gpt-4o{FAST}", messages=PROMPT, stream=True)
    text = "".join(c.choices[0].delta.content or "" for c in stream if c.choices)

    assert text == ours.complete(f"openai/gpt-4o{FAST}", PROMPT).text != ""


def test_openai_awaits_the_same_text(server, ours):
    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{server}/v1", api_key="k") as client:
            chunks = await client.chat.completions.create(
                model=f"gpt-4o{FAST}", messages=PROMPT, stream=True
            )
            return "".join([c.choices[0].delta.content or "" async for c in chunks])

    assert asyncio.run(ask()) == ours.complete(f"openai/gpt-4o{FAST}", PROMPT).text


def test_openai_folds_tools_and_usage_as_we_do(chat, ours):
    with chat.stream(
        model=f"gpt-4o{FAST}",
        messages=PROMPT,
        tools=[CHAT_TOOL],
        stream_options={"include_usage": True},
    ) as stream:
        theirs = stream.get_final_completion()
    with ours.stream(f"openai/gpt-4o{FAST}", PROMPT, tools=[CHAT_TOOL]) as stream:
        list(stream)
    call = theirs.choices[0].message.tool_calls[0]
    mine = stream.response

    assert theirs.choices[0].finish_reason == mine.finish_reason == "tool_calls"
    assert (call.id, call.function.name) == (mine.tool_calls[0].id, mine.tool_calls[0].name)
    assert call.function.arguments.startswith('{"city":')
    assert theirs.usage.completion_tokens == mine.usage.output_tokens


def test_openai_reads_a_whole_answer_and_choices(chat):
    whole = chat.create(model=f"gpt-4o{FAST}", messages=PROMPT, n=2)

    assert [choice.index for choice in whole.choices] == [0, 1]
    assert whole.choices[0].message.content != whole.choices[1].message.content
    assert whole.usage.prompt_tokens > 0


def test_openai_sees_its_own_errors(chat):
    with pytest.raises(openai.RateLimitError) as caught:
        chat.create(model="m?fault=status:status=429,retry_after=7", messages=PROMPT)
    assert caught.value.response.headers["retry-after"] == "7"
    with pytest.raises(openai.AuthenticationError):
        chat.create(model="m?fault=status:status=401", messages=PROMPT)
    with pytest.raises(openai.APIError, match="simulated failure"):
        list(chat.create(model="m?fault=error:events=2", messages=PROMPT, stream=True))


def test_openai_lists_the_models(server):
    with openai.OpenAI(base_url=f"{server}/v1", api_key="k") as client:
        assert "gpt-4o" in [model.id for model in client.models.list()]


def test_anthropic_streams_the_same_text(messages, ours):
    model = f"claude-3-haiku{FAST}"
    with messages.stream(model=model, max_tokens=999, messages=PROMPT) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    with ours.stream(f"anthropic/{model}", PROMPT, max_tokens=999) as stream:
        mine = "".join(stream.text)

    assert text == mine != ""
    assert final.stop_reason == stream.response.raw_finish_reason == "end_turn"
    assert final.usage.output_tokens == stream.response.usage.output_tokens


def test_anthropic_awaits_the_same_text(server, ours):
    model = f"claude-3-haiku{FAST}"

    async def ask():
        async with anthropic.AsyncAnthropic(base_url=server, api_key="k") as client:
            async with client.messages.stream(
                model=model, max_tokens=999, messages=PROMPT
            ) as stream:
                return "".join([text async for text in stream.text_stream])

    assert asyncio.run(ask()) == ours.complete(f"anthropic/{model}", PROMPT, max_tokens=999).text


def test_anthropic_folds_tools_as_we_do(messages, ours):
    model = f"claude-3-haiku{FAST}"
    with messages.stream(
        model=model, max_tokens=999, messages=PROMPT, tools=[MESSAGES_TOOL]
    ) as stream:
        theirs = stream.get_final_message()
    mine = ours.complete(f"anthropic/{model}", PROMPT, tools=[MESSAGES_TOOL], max_tokens=999)

    assert theirs.stop_reason == "tool_use"
    assert theirs.content[0].input == mine.tool_calls[0].arguments
    assert theirs.content[0].id == mine.tool_calls[0].id


def test_anthropic_reads_thinking_and_a_whole_answer(messages):
    model = f"claude-reason{FAST}"
    with messages.stream(model=model, max_tokens=999, messages=PROMPT) as stream:
        kinds = [block.type for block in stream.get_final_message().content]
    whole = messages.create(model=model, max_tokens=999, messages=PROMPT)

    assert kinds == ["thinking", "text"]
    assert [block.type for block in whole.content] == ["thinking", "text"]


def test_anthropic_sees_its_own_errors(messages):
    ask = {"max_tokens": 9, "messages": PROMPT}
    with pytest.raises(anthropic.RateLimitError):
        messages.create(model="m?fault=status:status=429", **ask)
    with pytest.raises(anthropic.APIStatusError, match="simulated failure"):
        list(messages.create(model="m?fault=error:events=2", stream=True, **ask))
