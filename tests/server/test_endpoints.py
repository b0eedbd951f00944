"""The gateway in the providers' own dialects, with the official SDKs as clients."""

import anthropic
import openai
import pytest

from unbroken import AsyncClient
from unbroken.server.gateway import Gateway
from unbroken.simulator.scenario import Fault, Scenario
from unbroken.simulator.transport import AsyncSimulatorTransport
from unbroken.stores.memory import MemoryStore

SCENARIOS = {
    "down": Scenario(faults=(Fault(kind="status", status=503, message="no room"),)),
    "limited": Scenario(faults=(Fault(kind="status", status=429, retry_after=7.0),)),
    "cut": Scenario(tokens=40, faults=(Fault(kind="cut", events=9, times=1),)),
    "torn": Scenario(tokens=40, faults=(Fault(kind="cut", events=9),)),
}
ASK = [{"role": "user", "content": "Tell me about cats."}]


@pytest.fixture
def gateway(serve):
    transport = AsyncSimulatorTransport(SCENARIOS)
    client = AsyncClient(api_key="k", transport=transport)
    return serve(Gateway(MemoryStore(), client=client))


@pytest.fixture
def chat(gateway):
    with openai.OpenAI(api_key="x", base_url=f"{gateway}/v1", max_retries=0) as client:
        yield client.chat.completions


@pytest.fixture
def messages(gateway):
    with anthropic.Anthropic(api_key="x", base_url=gateway, max_retries=0) as client:
        yield client.messages


@pytest.mark.parametrize("model", ["openai/gpt", "anthropic/claude-haiku-5-5", "sim/demo"])
def test_any_provider_answers_an_openai_client(chat, model):
    whole = chat.create(model=model, messages=ASK)
    chunks = [
        *chat.create(model=model, messages=ASK, stream=True, stream_options={"include_usage": True})
    ]
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)

    assert text == whole.choices[0].message.content != ""
    assert whole.choices[0].finish_reason == "stop"
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens > 0


@pytest.mark.parametrize("model", ["openai/gpt", "anthropic/claude-haiku-5-5", "sim/demo"])
def test_any_provider_answers_an_anthropic_client(messages, model):
    whole = messages.create(model=model, messages=ASK, max_tokens=900)
    with messages.stream(model=model, messages=ASK, max_tokens=900) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()

    assert text == whole.content[0].text == final.content[0].text != ""
    assert final.stop_reason == "end_turn"


def test_a_cut_upstream_is_nobodys_business(chat):
    chunks = [*chat.create(model="openai/cut", messages=ASK, stream=True)]
    calm = chat.create(model="openai/cut", messages=ASK)

    assert (
        "".join(c.choices[0].delta.content or "" for c in chunks) == calm.choices[0].message.content
    )


def test_fallbacks_are_named_in_the_body(chat):
    told = chat.create(model="openai/down", messages=ASK, extra_body={"fallbacks": ["sim/demo"]})

    assert told.choices[0].message.content
    assert told.model == "demo"


def test_an_error_keeps_its_status_and_its_wait(chat, messages):
    with pytest.raises(openai.RateLimitError) as limited:
        chat.create(model="openai/limited", messages=ASK, stream=True)
    with pytest.raises(openai.InternalServerError) as down:
        chat.create(model="openai/down", messages=ASK)
    with pytest.raises(anthropic.APIStatusError) as overloaded:
        messages.create(model="openai/down", messages=ASK, max_tokens=9)

    assert limited.value.response.headers["retry-after"] == "7"
    assert down.value.status_code == overloaded.value.status_code == 503
    assert "no room" in str(down.value)


def test_an_answer_that_breaks_for_good_says_so_in_the_stream(chat):
    with pytest.raises(openai.APIError):
        for _ in chat.create(model="openai/torn", messages=ASK, stream=True):
            pass


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"model": "nobody/x", "messages": ASK}, 404),
        ({"model": "sim/demo", "messages": [{"role": "nobody"}]}, 400),
        ({"model": "sim/demo", "messages": ASK, "temperature": "hot"}, 400),
        ({"model": "sim/demo", "messages": ASK, "fallbacks": "sim/demo"}, 400),
    ],
)
def test_wrong_input_is_told_in_the_dialect(chat, body, status):
    with pytest.raises(openai.APIStatusError) as caught:
        chat._client.post("/chat/completions", body=body, cast_to=object)

    assert caught.value.status_code == status
    assert caught.value.body["message"]
