"""Observers of a client: told of each answer, once, in whichever way it ends."""

import asyncio
import contextlib
import logging

import pytest

from unbroken import AsyncClient, Client, RecoveryPolicy
from unbroken.errors import UnbrokenError
from unbroken.simulator.scenario import Fault, Scenario
from unbroken.simulator.transport import AsyncSimulatorTransport, SimulatorTransport

SCENARIOS = {
    "whole": Scenario(tokens=20, ttft=0),
    "cut": Scenario(tokens=20, faults=(Fault(kind="cut", events=9, times=1),)),
    "down": Scenario(faults=(Fault(kind="status", status=503),)),
    "quiet": Scenario(tokens=20, ttft=0.3),
}
ENDINGS = [
    ("openai/whole", "complete", 1),
    ("openai/cut", "complete", 2),
    ("openai/down", "failed", 2),
]


class Notebook:
    """An observer that keeps what it is told."""

    def __init__(self):
        self.told = []

    def answered(self, told):
        self.told.append(told)


class Clumsy:
    """An observer that can't."""

    def answered(self, told):
        raise RuntimeError("the disk is full")


def settings(*observers, transport=SimulatorTransport):
    return {
        "api_key": "k",
        "transport": transport(SCENARIOS),
        "recovery": RecoveryPolicy(attempts=2),
        "observers": observers,
    }


def read(model, notebook, **parameters):
    with Client(**settings(notebook)) as client, client.stream(model, "Hi", **parameters) as stream:
        return [event for event in stream]


async def read_async(model, notebook, **parameters):
    async with AsyncClient(**settings(notebook, transport=AsyncSimulatorTransport)) as client:
        async with client.stream(model, "Hi", **parameters) as stream:
            return [event async for event in stream]


def both(model, **parameters):
    """What the observers of either client are told."""
    for ask in (read, lambda *args, **named: asyncio.run(read_async(*args, **named))):
        notebook = Notebook()
        with contextlib.suppress(UnbrokenError):
            ask(model, notebook, **parameters)
        yield notebook.told


@pytest.mark.parametrize(("model", "state", "attempts"), ENDINGS)
def test_told_once_how_it_ended(model, state, attempts):
    for told in both(model):
        (one,) = told
        assert (one.model, one.state) == (model, state)
        assert len(one.response.attempts) == one.metrics.attempts == attempts
        assert one.request.messages[0].text == "Hi"


def test_a_race_is_one_answer():
    for told in both(["openai/quiet", "openai/whole"], hedge_after=0.01):
        (one,) = told
        assert one.state == "complete"
        assert one.model == "openai/quiet"
        assert one.response.attempts[-1].model == "whole"


def test_who_leaves_is_told_of_too():
    notebook = Notebook()
    with Client(**settings(notebook)) as client:
        with client.stream("openai/whole", "Hi") as stream:
            next(iter(stream))
        assert [told.state for told in notebook.told] == ["cancelled"]


def test_a_whole_answer_too():
    notebook = Notebook()
    with Client(**settings(notebook)) as client:
        answer = client.complete("openai/whole", "Hi")
    (one,) = notebook.told

    assert one.response == answer
    assert one.request.stream is False


def test_one_that_fails_harms_nobody(caplog):
    notebook = Notebook()
    with Client(**settings(Clumsy(), notebook)) as client, caplog.at_level(logging.ERROR):
        assert client.complete("openai/whole", "Hi").text

    assert len(notebook.told) == 1
    assert "failed on an answer of openai/whole" in caplog.text
    assert "the disk is full" in caplog.text
