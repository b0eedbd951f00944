"""The sixteen faults of failoverbench (github.com/failoverbench, catalogue 0.1), by our defaults.

The primary plays the fault, a fallback is well. A row says what the caller gets and how often the
primary is asked. Times are those of the catalogue, on the virtual clock; `test_gateway_failover`
plays the same faults, with short times, over sockets.
"""

import asyncio
from types import SimpleNamespace

import pytest

from unbroken import AsyncClient, Client
from unbroken.errors import ContentFiltered, UnbrokenError
from unbroken.simulator.scenario import Fault, Scenario
from unbroken.simulator.transport import AsyncSimulatorTransport, SimulatorTransport

TEXT = "The answer is sixty words long, " + " ".join(f"word{n}" for n in range(54))
PROMPT = "Why does a gateway earn trust only when a provider misbehaves?"
ROUTE = ["openai/primary", "openai/well"]


def scenario(*faults, **given):
    return Scenario(text=TEXT, faults=faults, ttft=given.pop("ttft", 0.2), tps=200, **given)


def status(code, **given):
    return Fault(kind="status", status=code, **given)


WELL = Scenario(text=TEXT, ttft=0.2, tps=200)
NO_PREFILL = Scenario(text=TEXT, ttft=0.2, tps=200, prefill="refuse")

# name: the primary, the most times that it is asked, the most seconds that the call takes
FAULTS = {
    "S01 429 with a time": (scenario(status(429, retry_after=2.0, times=1)), 2, 20),
    "S02 429 for ever": (scenario(status(429)), 4, 40),
    "S03 500 once": (scenario(status(500, times=1)), 2, 20),
    "S04 503 for ever": (scenario(status(503)), 6, 40),
    "S05 reset before headers": (scenario(Fault(kind="refuse", times=1)), 2, 20),
    "S06 no response": (scenario(Fault(kind="silent")), 1, 100),
    "S07 late first token": (scenario(ttft=20.0), 1, 15),
    "S08 cut": (scenario(Fault(kind="cut", words=40)), 6, 40),
    "S09 stall": (scenario(Fault(kind="stall", words=20, seconds=30.0)), 1, 45),
    "S10 malformed event": (scenario(Fault(kind="garble", events=10)), 3, 30),
    "S11 no [DONE]": (scenario(Fault(kind="no_done")), 1, 8),
    "S12 context too long": (scenario(status(400, type="context_length_exceeded")), 1, 20),
    "S13 content filter": (scenario(status(400, type="content_filter")), 1, 20),
    "S14 cut, no prefill": (scenario(Fault(kind="cut", words=40)), 6, 40),
    "S16 accounting": (scenario(status(503)), 6, 40),
}


def scenarios(name):
    primary, most, seconds = FAULTS[name]
    return {"primary": primary, "well": NO_PREFILL if "S14" in name else WELL}, most, seconds


def ask(transport, route=ROUTE):
    client, error, begin = Client(api_key="k", transport=transport), None, transport.now()
    stream = client.stream(route, PROMPT)
    try:
        with stream:
            text = "".join(stream.text)
    except UnbrokenError as caught:
        text, error = "", caught
    return result(stream.response, text, error, transport, begin)


def ask_async(transport, route=ROUTE):
    async def main():
        client, error, begin = AsyncClient(api_key="k", transport=transport), None, transport.now()
        stream = client.stream(route, PROMPT)
        text = ""
        try:
            async with stream:
                async for piece in stream.text:
                    text += piece
        except UnbrokenError as caught:
            text, error = "", caught
        return result(stream.response, text, error, transport, begin)

    return asyncio.run(main())


def result(response, text, error, transport, begin):
    asked = [entry.model for entry in transport.log].count("primary")
    seconds = transport.now() - begin
    return SimpleNamespace(response=response, text=text, error=error, asked=asked, seconds=seconds)


CLIENTS = [(SimulatorTransport, ask), (AsyncSimulatorTransport, ask_async)]


@pytest.mark.parametrize(("world", "ask_"), CLIENTS, ids=["sync", "async"])
@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("fallback", ["openai/well", "sim/well"])
def test_the_defaults_answer_whole(name, world, ask_, fallback):
    played, most, seconds = scenarios(name)
    got = ask_(world(played), ["openai/primary", fallback])

    assert got.asked <= most
    assert got.seconds <= seconds
    if "S13" in name:
        assert isinstance(got.error, ContentFiltered)
        return
    assert got.error is None
    assert got.text == got.response.text == TEXT
    assert got.response.end == "complete"
    assert got.response.usage.output_tokens > 0
    if "S16" in name:
        assert got.response.model == "well"
        assert got.response.usage.source == "reported"  # what failed is not billed


@pytest.mark.parametrize(("world", "ask_"), CLIENTS, ids=["sync", "async"])
def test_s15_a_primary_that_flaps_is_taken_back(world, ask_):
    """Down for 60 seconds, then well; twenty requests, one every four seconds."""
    down = {"primary": scenario(status(503)), "well": WELL}
    transport = world(down)
    client = Client(api_key="k", transport=transport) if ask_ is ask else None
    answered = []

    async def main():
        nonlocal client
        client = client or AsyncClient(api_key="k", transport=transport)
        begin = transport.now()
        for number in range(20):
            if transport.now() - begin >= 60:
                transport.server._scenarios["primary"] = WELL
            stream = client.stream(ROUTE, PROMPT)
            if ask_ is ask:
                for _ in stream:
                    pass
            else:
                async for _ in stream:
                    pass
            answered.append((transport.now() - begin, stream.response.model, stream.response.end))
            wait = begin + 4.0 * (number + 1) - transport.now()
            slept = transport.sleep(max(0.0, wait), None)
            if ask_ is not ask:
                await slept

    asyncio.run(main())
    after = [model for at, model, _ in answered if at >= 60]

    assert {end for _, _, end in answered} == {"complete"}
    assert {model for at, model, _ in answered if at < 60} == {"well"}
    assert "primary" in after[:4]  # within some 15 seconds
    assert after[-1] == "primary"
