"""`abort()` from elsewhere ends whatever a stream waits for, at once: a pause between attempts, the
headers, more of the answer. Waits are of half a minute, so that who would wait hangs the test.
"""

import asyncio
import threading
import time

import pytest

from unbroken import AsyncClient, Client, RecoveryPolicy, Timeouts
from unbroken.simulator.app import running
from unbroken.simulator.scenario import Fault, Scenario
from unbroken.simulator.transport import AsyncSimulatorTransport, SimulatorTransport

LONG = 30.0
SCENARIOS = {
    "pause": Scenario(faults=(Fault(kind="status", status=503, retry_after=LONG),)),
    "headers": Scenario(faults=(Fault(kind="silent"),)),
    "content": Scenario(ttft=LONG),
    "stall": Scenario(ttft=0, tps=0, faults=(Fault(kind="stall", events=5, seconds=LONG),)),
}
SETTINGS = {
    "api_key": "k",
    "timeouts": Timeouts(connect=LONG, first_event=LONG, idle=LONG),
    "recovery": RecoveryPolicy(attempts=3, patience=LONG),
}

pytestmark = pytest.mark.timeout(20)


@pytest.fixture(scope="module")
def server():
    with running(SCENARIOS) as url:
        yield {"base_url": f"{url}/v1"}


def world(kind, server, transport):
    return server if kind == "http" else {"transport": transport(SCENARIOS, real_time=True)}


anywhere = pytest.mark.parametrize("kind", ["http", "simulator"])
whatever = pytest.mark.parametrize("model", SCENARIOS)
hedged = pytest.mark.parametrize("hedge_after", [None, 0.05], ids=["alone", "hedged"])


@anywhere
@whatever
@hedged
def test_tasks(server, kind, model, hedge_after):
    async def main():
        async with AsyncClient(
            **SETTINGS, **world(kind, server, AsyncSimulatorTransport)
        ) as client:
            stream = client.stream(f"openai/{model}", "Hi", hedge_after=hedge_after)

            async def read():
                return [event async for event in stream]

            reading = asyncio.create_task(read())
            await asyncio.sleep(0.4)
            await stream.abort()
            await reading
            return stream.response

    assert asyncio.run(main()).end == "cancelled"


@anywhere
@whatever
@hedged
def test_threads(server, kind, model, hedge_after):
    with Client(**SETTINGS, **world(kind, server, SimulatorTransport)) as client:
        stream = client.stream(f"openai/{model}", "Hi", hedge_after=hedge_after)
        reading = threading.Thread(target=lambda: list(stream), daemon=True)
        reading.start()
        time.sleep(0.4)
        stream.abort()
        reading.join()

    assert stream.response.end == "cancelled"
