"""The clients as people use them."""

import asyncio

import msgspec
import pytest

import unbroken
from unbroken import AsyncClient, Client, Message, RecoveryPolicy, Timeouts, Tool
from unbroken.errors import LocalProtocolError, RateLimited
from unbroken.messages import Text
from unbroken.simulator.transport import AsyncSimulatorTransport, SimulatorTransport


def test_the_conveniences_use_one_shared_client():
    with unbroken.stream("sim/demo?ttft=0&tps=0&tokens=9", "cats") as stream:
        streamed = "".join(stream.text)

    assert streamed == unbroken.complete("sim/demo?ttft=0&tps=0&tokens=9", "cats").text


def test_messages_may_be_values_or_dicts():
    with Client(transport=SimulatorTransport()) as client:
        values = client.complete("sim/demo", [Message("user", (Text("cats"),))])
        dicts = client.complete("sim/demo", [{"role": "user", "content": "cats"}])
        string = client.complete("sim/demo", "cats")

    assert values.text == dicts.text == string.text


def test_a_call_has_its_own_patience():
    transport = SimulatorTransport()
    with Client(transport=transport, recovery=RecoveryPolicy(attempts=5)) as client:
        with pytest.raises(RateLimited):
            client.complete(
                "sim/m?fault=status:status=429", "hi", recovery=RecoveryPolicy(attempts=2)
            )

    assert len(transport.log) == 2


def test_a_key_for_each_provider_is_used_for_that_provider_only():
    transport = SimulatorTransport()
    keys = {"openai": "key-o", "anthropic": "key-a"}
    with Client(transport=transport, api_key=keys) as client:
        client.complete("openai/gpt-4o", "hi")
        client.complete("anthropic/claude-haiku-5-5", "hi")

    assert transport.log[0].headers["authorization"] == "Bearer key-o"
    assert transport.log[1].headers["x-api-key"] == "key-a"
    assert "authorization" not in transport.log[1].headers


def test_sync_and_async_give_the_same_events():
    async def awaited():
        async with AsyncClient(transport=AsyncSimulatorTransport()) as client:
            async with client.stream("sim/demo?seed=2", "cats") as stream:
                return [event async for event in stream]

    with Client(transport=SimulatorTransport()) as client:
        with client.stream("sim/demo?seed=2", "cats") as stream:
            blocking = list(stream)

    assert asyncio.run(awaited()) == blocking


def test_many_tasks_share_one_client():
    async def ask_all():
        async with AsyncClient(transport=AsyncSimulatorTransport()) as client:
            questions = (
                client.complete("sim/demo?tokens=60", f"animal number{n}") for n in range(50)
            )
            return await asyncio.gather(*questions)

    answers = asyncio.run(ask_all())

    assert len({answer.text for answer in answers}) > 40
    assert all(answer.end == "complete" for answer in answers)


def test_a_tool_conversation_goes_round():
    tool = Tool("get_weather", "", {"type": "object", "properties": {"city": {"type": "string"}}})
    turns = [{"role": "user", "content": "the weather?"}]
    with Client(transport=SimulatorTransport(), api_key="k") as client:
        for model in ("openai/gpt-4o", "anthropic/claude-haiku-5-5"):
            call = client.complete(model, turns, tools=[tool]).tool_calls[0]
            made = {"id": call.id, "function": {"name": call.name, "arguments": "{}"}}
            said = [
                {"role": "assistant", "content": None, "tool_calls": [made]},
                {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
            ]

            assert "sunny" in client.complete(model, [*turns, *said], tools=[tool]).text


def test_what_a_dialect_cannot_express_is_told_before_anything_is_sent():
    transport = SimulatorTransport()
    with Client(transport=transport, api_key="k") as client:
        with pytest.raises(LocalProtocolError, match="seed"):
            client.stream("anthropic/claude-haiku-5-5", "hi", seed=1)

    assert transport.log == []


def test_the_response_can_be_looked_at_while_it_grows():
    with Client(transport=SimulatorTransport()) as client:
        with client.stream("sim/demo", "cats") as stream:
            for text in stream.text:
                assert stream.response.end is None
                assert stream.response.text.endswith(text)

    assert stream.response.end == "complete"


def test_timeouts_are_said_in_seconds_and_may_be_off():
    with Client(
        transport=SimulatorTransport(), timeouts=Timeouts(first_event=None, idle=None)
    ) as client:
        with client.stream("sim/demo?ttft=5000", "cats") as stream:
            list(stream)

    assert stream.metrics.time_to_first_token == pytest.approx(5000)


class City(msgspec.Struct):
    """What is asked for."""

    name: str
    inhabitants: int


@pytest.mark.parametrize("model", ["openai/gpt", "anthropic/claude-haiku-5-5"])
def test_an_answer_in_a_shape_grows_as_data_and_ends_as_an_object(model):
    with Client(api_key="k", transport=SimulatorTransport()) as client:
        with client.stream(model, "A city, please.", response_format=City) as stream:
            grown = [stream.partial for _ in stream.text]
        whole = client.complete(model, "A city, please.", response_format=City)

    assert isinstance(stream.parsed, City)
    assert stream.parsed == whole.parsed
    assert grown[-1] == msgspec.to_builtins(stream.parsed)
    assert len({repr(data) for data in grown}) > 2


def test_an_answer_in_a_shape_that_was_cut_is_whole_all_the_same():
    cut = SimulatorTransport()
    model = "openai/gpt?fault=cut:events=4,times=1"
    with Client(api_key="k", transport=cut) as client:
        with client.stream(model, "A city, please.", response_format=City) as stream:
            for _ in stream:
                pass

    assert [a.how for a in stream.response.attempts] == ["start", "replay"]
    assert isinstance(stream.parsed, City)
