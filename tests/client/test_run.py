"""Runs with tools: functions are called, once each, and only whole calls."""

import pytest

from unbroken import Client
from unbroken.errors import LocalProtocolError
from unbroken.messages import ToolResult, ToolUse


def test_a_function_is_called_and_the_model_asked_again():
    called = []

    def weather(city: str, days: int = 1) -> str:
        """Tell the weather.

        Args:
            city: Where.
        """
        called.append((city, days))
        return "18 °C"

    with Client() as client:
        run = client.run("sim/demo?ttft=0&tps=0", "the weather in Rome", tools=[weather])
        events = list(run)

    parts = [part for message in run.messages for part in message.parts]
    assert len(called) == 1
    assert [p.content for p in parts if isinstance(p, ToolResult)] == ["18 °C"]
    assert sum(type(event).__name__ == "MessageEnd" for event in events) == 2
    assert run.response.end == "complete"


def test_a_run_goes_on_from_its_messages_and_runs_no_call_twice():
    called = []

    def weather() -> str:
        called.append(1)
        return "sunny"

    with Client() as client:
        first = client.run("sim/demo?ttft=0&tps=0", "the weather", tools=[weather], max_turns=1)
        first.finish()
        again = client.run("sim/demo?ttft=0&tps=0", list(first.messages), tools=[weather])
        again.finish()

    assert len(called) == 1
    assert again.response.end == "complete"


def test_what_a_tool_raises_is_its_result():
    def weather() -> str:
        raise OSError("no network")

    with Client() as client:
        run = client.run("sim/demo?ttft=0&tps=0", "the weather", tools=[weather], max_turns=1)
        run.finish()

    (result,) = [p for m in run.messages for p in m.parts if isinstance(p, ToolResult)]
    assert (result.content, result.is_error) == ("OSError: no network", True)


def test_a_tool_without_a_function_ends_the_run():
    tool = {"name": "weather", "parameters": {"type": "object", "properties": {}}}
    with Client() as client:
        run = client.run("sim/demo?ttft=0&tps=0", "the weather", tools=[tool])
        run.finish()

    assert [type(use) for use in run.pending] == [ToolUse]


def test_a_run_has_turns():
    with Client() as client, pytest.raises(LocalProtocolError, match="max_turns"):
        client.run("sim/demo", "x", tools=[], max_turns=0)
