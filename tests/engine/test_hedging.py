"""The first to speak answers; the other is left at once. Virtual clock, and real sockets."""

import asyncio

import pytest

from unbroken import AsyncClient, Client
from unbroken.errors import Overloaded, TimedOut
from unbroken.simulator.app import running
from unbroken.simulator.scenario import Fault, Scenario
from unbroken.simulator.transport import AsyncSimulatorTransport, SimulatorTransport

ROUTE = ["openai/slow", "anthropic/quick"]
SLOW = {"slow": Scenario(ttft=5.0, tokens=9), "quick": Scenario(ttft=0.2, tokens=9)}


def ask(scenarios, models=ROUTE, **given):
    transport = SimulatorTransport(scenarios)
    client = Client(api_key="k", transport=transport)
    begin = transport.now()
    with client.stream(models, "hello", hedge_after=0.9, **given) as stream:
        text = "".join(stream.text)
    return stream, text, transport, transport.now() - begin


def test_a_late_first_token_starts_the_next_and_the_first_to_speak_wins():
    stream, text, transport, seconds = ask(SLOW)

    assert text == stream.response.text != ""
    assert stream.response.provider == "anthropic"
    assert stream.metrics.time_to_first_token == pytest.approx(1.1)
    assert seconds < 2
    assert [entry.ended for entry in transport.log] == ["client left", "whole"]
    assert [(a.model, a.error) for a in stream.response.attempts] == [
        ("slow", None),
        ("quick", None),
    ]


def test_nobody_else_is_asked_when_the_first_is_in_time():
    calm = {"slow": Scenario(ttft=0.5, tokens=9)}
    stream, _, transport, _ = ask(calm)

    assert len(transport.log) == 1
    assert stream.metrics.time_to_first_token == pytest.approx(0.5)


def test_the_first_may_still_win():
    stream, _, transport, _ = ask(
        {"slow": Scenario(ttft=1.5, tokens=9), "quick": Scenario(ttft=3.0)}
    )

    assert stream.response.provider == "openai"
    assert stream.metrics.time_to_first_token == pytest.approx(1.5)
    assert [entry.ended for entry in transport.log] == ["whole", "client left"]


def test_without_a_next_one_the_same_is_asked_again():
    stall = Scenario(tokens=9, ttft=0.3, faults=(Fault(kind="stall", seconds=30, times=1),))
    _, text, transport, seconds = ask({"slow": stall}, models="openai/slow")

    assert text
    assert len(transport.log) == 2
    assert seconds < 3


def test_one_that_fails_leaves_it_to_the_other():
    down = Scenario(faults=(Fault(kind="status", status=400),))
    stream, _, _, _ = ask({"slow": down, "quick": SLOW["quick"]})

    assert stream.response.provider == "anthropic"


def test_two_that_fail_are_one_error():
    down = Scenario(faults=(Fault(kind="status", status=503),))
    with pytest.raises(Overloaded) as caught:
        ask({"slow": down, "quick": down})

    assert {attempt.model for attempt in caught.value.attempts} == {"slow", "quick"}


def test_an_answer_that_was_won_is_recovered_like_any_other():
    cut = Scenario(ttft=0.2, tokens=30, faults=(Fault(kind="cut", events=9, times=1),))
    stream, text, _, _ = ask({"slow": SLOW["slow"], "quick": cut})

    assert text == stream.response.text
    assert stream.response.attempts[-1].how == "prompt"


REAL = {
    "slow": Scenario(ttft=9.0),
    "mute": Scenario(faults=(Fault(kind="silent"),)),
    "quick": Scenario(ttft=0.01, tps=5000, tokens=30),
}


@pytest.mark.parametrize("late", ["slow", "mute"])
def test_the_slower_connection_is_closed_at_once_sync(late):
    with running(REAL) as url, Client(api_key="k", base_url=f"{url}/v1") as client:
        models = [f"openai/{late}", "openai/quick"]
        with client.stream(models, "hello", hedge_after=0.05) as stream:
            text = "".join(stream.text)
        ends = _ends(client, url)

    assert text
    assert ends == {late: "client left", "quick": "whole"}


@pytest.mark.parametrize("late", ["slow", "mute"])
def test_the_slower_connection_is_closed_at_once_async(late):
    async def ask_once(url):
        async with AsyncClient(api_key="k", base_url=f"{url}/v1") as client:
            models = [f"openai/{late}", "openai/quick"]
            async with client.stream(models, "hello", hedge_after=0.05) as stream:
                return "".join([piece async for piece in stream.text])

    with running(REAL) as url:
        text = asyncio.run(ask_once(url))
        ends = _ends(None, url)

    assert text
    assert ends == {late: "client left", "quick": "whole"}


def _ends(_client, url):
    """How each answer ended, as the simulator's log tells once everything has ended."""
    import json
    import time
    import urllib.request

    for _ in range(100):
        with urllib.request.urlopen(f"{url}/log") as answer:
            ends = {entry["model"]: entry["ended"] for entry in json.load(answer)}
        if "open" not in ends.values():
            break
        time.sleep(0.02)
    return ends


BOTH_SLOW = {"slow": Scenario(ttft=50.0), "quick": Scenario(ttft=50.0)}


def due_for_a_probe(stream, now):
    """The circuit of the rival: it failed, and its pause is just over."""
    circuit = stream._driver.delivery._router.route[1].circuit
    circuit.on_failure(TimedOut(), now - 5)
    assert circuit.allows(now)
    return circuit


def test_a_rival_that_was_a_probe_is_forgotten_when_the_call_is_cancelled():
    async def main():
        transport = AsyncSimulatorTransport(BOTH_SLOW, real_time=True)
        async with AsyncClient(api_key="k", transport=transport) as client:
            stream = client.stream(ROUTE, "hello", hedge_after=0.01)
            circuit = due_for_a_probe(stream, transport.now())
            asking = asyncio.create_task(anext(stream.batches()))
            while len(transport.log) < 2:
                await asyncio.sleep(0.01)
            assert not circuit.allows(transport.now())  # the rival is the probe
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            return stream, circuit.allows(transport.now())

    stream, ready = asyncio.run(main())

    assert ready
    assert [attempt.model for attempt in stream.response.attempts] == ["quick", "slow"]


class Interrupting(SimulatorTransport):
    """Somebody presses Ctrl-C while the rival is asked."""

    def open(self, request, deadlines):
        if b"quick" in request.body:
            raise KeyboardInterrupt
        return super().open(request, deadlines)


def test_nor_is_it_remembered_when_a_blocking_call_is_interrupted():
    transport = Interrupting({"slow": Scenario(ttft=2.0)})
    with Client(api_key="k", transport=transport) as client:
        stream = client.stream(ROUTE, "hello", hedge_after=0.9)
        circuit = due_for_a_probe(stream, transport.now())
        with pytest.raises(KeyboardInterrupt):
            list(stream)

        assert circuit.allows(transport.now())
