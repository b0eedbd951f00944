"""The official SDKs ask for data and logprobs, and fold them as we do."""

import anthropic
import openai
import pydantic
import pytest

from unbroken import Client
from unbroken.simulator.app import running
from unbroken.structured import output_format

PROMPT = [{"role": "user", "content": "Tell me about the weather in Rome."}]


class Weather(pydantic.BaseModel):
    city: str
    days: list[int]
    wind: float | None = None


@pytest.fixture(scope="module")
def server():
    with running() as url:
        yield url


@pytest.fixture
def ours(server):
    urls = {"openai": f"{server}/v1", "anthropic": server}
    with Client(base_url=urls, api_key="k") as client:
        yield client


@pytest.fixture
def chat(server):
    with openai.OpenAI(base_url=f"{server}/v1", api_key="k", max_retries=0) as client:
        yield client.chat.completions


@pytest.fixture
def messages(server):
    with anthropic.Anthropic(base_url=server, api_key="k", max_retries=0) as client:
        yield client.messages


def mine(client, model):
    form = output_format(Weather)
    response = client.complete(model, PROMPT, response_format=form.response_format)
    return response.text, form.parse(response)


MODEL = "gpt-4o?ttft=0&tps=0"


def test_openai_parses_what_we_parse(chat, ours):
    with chat.stream(model=MODEL, messages=PROMPT, response_format=Weather) as stream:
        theirs = stream.get_final_completion().choices[0].message
    text, found = mine(ours, f"openai/{MODEL}")

    assert theirs.parsed.model_dump().keys() == found.model_dump().keys()
    assert isinstance(theirs.parsed, Weather)
    assert Weather.model_validate_json(text) == found


def test_anthropic_parses_what_we_parse(messages, ours):
    asked = {"model": MODEL, "max_tokens": 999, "messages": PROMPT}
    with messages.stream(**asked, output_format=Weather) as stream:
        theirs = stream.get_final_message()
    whole = messages.parse(**asked, output_format=Weather)
    text, found = mine(ours, f"anthropic/{MODEL}")

    assert isinstance(theirs.parsed_output, Weather)
    assert whole.parsed_output == theirs.parsed_output
    assert Weather.model_validate_json(text) == found


def test_openai_folds_the_logprobs_that_we_fold(chat, ours):
    asked = {"logprobs": True, "top_logprobs": 2}
    with chat.stream(model=MODEL, messages=PROMPT, **asked) as stream:
        theirs = stream.get_final_completion().choices[0]
    whole = chat.create(model=MODEL, messages=PROMPT, **asked).choices[0]
    response = ours.complete(f"openai/{MODEL}", PROMPT, **asked)
    tokens = response.choices[0].logprobs.text

    assert "".join(token.token for token in tokens) == response.text == theirs.message.content
    assert [t.logprob for t in theirs.logprobs.content] == [t.logprob for t in tokens]
    assert [t.logprob for t in whole.logprobs.content] == [t.logprob for t in tokens]
    assert {len(t.top) for t in tokens} == {2}
