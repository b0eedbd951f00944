"""The Responses API of the gateway: OpenAI's own way back to an answer, for every provider."""

import openai
import pytest
from test_streams import SCENARIOS

from unbroken import AsyncClient
from unbroken.server.gateway import Gateway
from unbroken.simulator.transport import AsyncSimulatorTransport
from unbroken.stores.memory import MemoryStore


@pytest.fixture
def responses(serve):
    transport = AsyncSimulatorTransport(SCENARIOS, real_time=True)
    client = AsyncClient(api_key="k", transport=transport)
    url = serve(Gateway(MemoryStore(), client=client))
    with openai.OpenAI(api_key="k", base_url=f"{url}/v1", max_retries=0) as sdk:
        yield sdk.responses


@pytest.mark.parametrize("model", ["sim/quick", "anthropic/quick", "openai/quick"])
def test_the_sdk_streams_and_folds_any_provider(responses, model):
    with responses.stream(model=model, input="Tell me about cats.") as stream:
        text = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
        final = stream.get_final_response()
    whole = responses.create(model=model, input="Tell me about cats.")

    assert text == final.output_text == whole.output_text != ""
    assert final.usage.output_tokens == whole.usage.output_tokens == 40


@pytest.mark.parametrize("model", ["sim/slow", "anthropic/slow"])
def test_a_background_answer_is_followed_again_after_what_was_seen(responses, model):
    seen, name, text = 0, "", ""
    for event in responses.create(model=model, input="cats", background=True, stream=True):
        seen, name = event.sequence_number, name or event.response.id
        text += event.delta if event.type == "response.output_text.delta" else ""
        if seen > 9:
            break
    rest = responses.retrieve(name, stream=True, starting_after=seen)
    text += "".join(e.delta for e in rest if e.type == "response.output_text.delta")
    whole = responses.retrieve(name)

    assert text == whole.output_text != ""
    assert whole.status == "completed"


def test_a_background_answer_can_be_looked_at_and_cancelled(responses):
    answer = responses.create(model="sim/endless", input="cats", background=True)
    assert answer.status == "in_progress"
    cancelled = responses.cancel(answer.id)

    assert cancelled.status == responses.retrieve(answer.id).status == "cancelled"


def test_what_fails_says_so(responses):
    with pytest.raises(openai.APIError):
        for _ in responses.create(model="openai/down", input="x", stream=True):
            pass
    with pytest.raises(openai.NotFoundError):
        responses.retrieve("ans_none")
    with pytest.raises(openai.NotFoundError):
        responses.create(model="nobody/x", input="x")


@pytest.mark.parametrize("model", ["sim/quick", "sim/endless"])
def test_a_deleted_response_is_gone_whether_it_had_ended_or_not(responses, model):
    made = responses.create(model=model, input="cats", background=True)
    responses.delete(made.id)

    with pytest.raises(openai.NotFoundError):
        responses.retrieve(made.id)
