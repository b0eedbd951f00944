"""Conversations as people have them, over the simulator."""

import asyncio
import gc

import pytest

from unbroken import (
    AsyncClient,
    AsyncConversation,
    Client,
    Conversation,
    Message,
    StreamInterrupted,
    Tool,
)
from unbroken.engine.policy import RecoveryPolicy
from unbroken.errors import ContextTooLong, LocalProtocolError
from unbroken.messages import Text, ToolResult
from unbroken.simulator.transport import AsyncSimulatorTransport, SimulatorTransport

CUT = "sim/m?tokens=60&fault=cut:words=20"
WEATHER = Tool("get_weather", "", {"type": "object", "properties": {"city": {"type": "string"}}})


@pytest.fixture
def client(simulator):
    with Client(transport=simulator, api_key="k") as client:
        yield client


def said(role, text):
    return Message(role, (Text(text),))


def test_a_turn_is_kept_when_its_answer_is_complete(client):
    chat = Conversation(client, "sim/demo", system="Be brief.")
    with chat.stream("cats") as stream:
        for _ in stream.text:
            assert chat.messages == (said("system", "Be brief."),)

    assert chat.messages == (
        said("system", "Be brief."),
        said("user", "cats"),
        said("assistant", stream.response.text),
    )


def test_what_was_said_is_sent_along(client):
    chat = Conversation(client, "sim/demo")
    chat.complete("about zebras")
    alone, along = client.complete("sim/demo", "about it"), chat.complete("about it")

    assert along.usage.input_tokens > alone.usage.input_tokens
    assert chat.tokens == along.usage.input_tokens + along.usage.output_tokens


def test_the_stream_need_not_be_held_until_the_next_question(client):
    chat = Conversation(client, "sim/demo")
    text = "".join(chat.stream("cats").text)
    gc.collect()

    assert chat.messages[-1] == said("assistant", text)


def test_tools_go_round(client):
    chat = Conversation(client, "openai/gpt-4o", tools=[WEATHER])
    with chat.stream("the weather?") as stream:
        list(stream)
    call = stream.response.tool_calls[0]
    chat.add(ToolResult(call.id, "sunny"))
    with chat.stream() as stream:
        list(stream)

    assert "sunny" in stream.response.text
    assert [message.role for message in chat.messages] == ["user", "assistant", "tool", "assistant"]


def test_a_broken_answer_leaves_nothing_and_can_be_asked_again(client):
    careful = RecoveryPolicy(on_cut="raise")
    chat = Conversation(client, CUT, recovery=careful)
    with pytest.raises(StreamInterrupted):
        list(chat.stream("cats"))

    assert chat.messages == ()
    chat.model = "sim/demo"
    chat.complete("cats")
    assert [message.text for message in chat.messages if message.role == "user"] == ["cats"]


def test_a_broken_answer_is_kept_as_far_as_it_came_if_asked(client):
    chat = Conversation(client, CUT, keep_partial=True, recovery=RecoveryPolicy(on_cut="raise"))
    with pytest.raises(StreamInterrupted) as caught:
        list(chat.stream("cats"))

    assert chat.messages == (said("user", "cats"), said("assistant", caught.value.response.text))


def test_so_is_one_that_was_to_come_whole(client):
    chat = Conversation(client, CUT, keep_partial=True, recovery=RecoveryPolicy(on_cut="raise"))
    with pytest.raises(StreamInterrupted) as caught:
        chat.complete("cats")

    assert chat.messages[-1] == said("assistant", caught.value.response.text)


def test_leaving_early_leaves_nothing(client, simulator):
    chat = Conversation(client, "sim/demo?tokens=90")
    with chat.stream("cats") as stream:
        next(stream.text)

    assert chat.messages == ()
    assert simulator.log[0].ended == "client left"


def test_a_stream_that_nobody_holds_is_gone_and_so_is_its_connection(client, simulator):
    chat = Conversation(client, "sim/demo?tokens=90", keep_partial=True)
    for text in chat.stream("cats").text:
        first = text
        break
    gc.collect()

    assert simulator.log[0].ended == "client left"
    assert chat.messages == (said("user", "cats"), said("assistant", first))


def test_one_question_at_a_time(client):
    chat = Conversation(client, "sim/demo")
    stream = chat.stream("cats")

    for another in (lambda: chat.stream("dogs"), lambda: chat.add(said("user", "x")), chat.clear):
        with pytest.raises(LocalProtocolError, match="still coming"):
            another()
    stream.close()
    assert chat.complete("dogs").end == "complete"


def test_one_question_at_a_time_also_among_tasks():
    async def ask_two():
        async with AsyncClient(transport=AsyncSimulatorTransport(real_time=True)) as client:
            chat = AsyncConversation(client, "sim/demo?ttft=0.05&tps=0")
            two = (chat.complete("cats"), chat.complete("dogs"))
            return await asyncio.gather(*two, return_exceptions=True), chat.messages

    (first, second), messages = asyncio.run(ask_two())

    assert messages == (said("user", "cats"), said("assistant", first.text))
    assert isinstance(second, LocalProtocolError)


def test_the_oldest_turns_go_and_are_counted(client):
    chat = Conversation(client, "sim/demo?tokens=30", system="Be brief.", budget=70)
    for subject in ("cats", "dogs", "cows", "hens"):
        chat.complete(subject)

    assert chat.messages[0] == said("system", "Be brief.")
    assert chat.messages[-2] == said("user", "hens")
    assert chat.forgotten + len(chat.messages) == 1 + 4 * 2
    assert chat.forgotten > 0


def test_what_is_forgotten_is_known_before_the_answer(client):
    chat = Conversation(client, "sim/demo?tokens=60", budget=60)
    chat.complete("cats")
    stream = chat.stream("dogs")

    assert chat.forgotten == 2
    assert len(chat.messages) == 2
    stream.close()
    assert chat.forgotten == 0


def test_a_message_that_is_too_long_is_refused_before_anything_is_sent(client, simulator):
    chat = Conversation(client, "sim/demo", budget=50)

    with pytest.raises(ContextTooLong, match="the budget is 50"):
        chat.stream("a" * 1000)
    assert simulator.log == []
    assert chat.messages == ()


def test_a_question_has_its_own_parameters_if_it_wants(client):
    chat = Conversation(client, "sim/demo?tokens=90", max_tokens=5)

    assert chat.complete("cats").finish_reason == "length"
    assert chat.complete("cats", max_tokens=500).finish_reason == "stop"


def test_the_system_message_can_be_changed_and_the_rest_forgotten(client):
    chat = Conversation(client, "sim/demo", system="Be brief.")
    chat.complete("cats")
    chat.system = "Be long."
    chat.clear()

    assert chat.messages == (said("system", "Be long."),)
    chat.system = None
    assert (chat.system, chat.messages) == ("", ())


def test_awaiting_says_the_same_as_blocking():
    async def awaited():
        async with AsyncClient(transport=AsyncSimulatorTransport()) as client:
            chat = AsyncConversation(client, "sim/demo", system="Be brief.", budget=200)
            for subject in ("cats", "dogs"):
                async with chat.stream(subject) as stream:
                    [event async for event in stream]
            await chat.complete("hens")
            return chat.messages, chat.tokens, chat.forgotten

    with Client(transport=SimulatorTransport()) as client:
        chat = Conversation(client, "sim/demo", system="Be brief.", budget=200)
        for subject in ("cats", "dogs"):
            with chat.stream(subject) as stream:
                list(stream)
        chat.complete("hens")

        assert asyncio.run(awaited()) == (chat.messages, chat.tokens, chat.forgotten)
