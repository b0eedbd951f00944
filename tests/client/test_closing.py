"""Closing a stream or a client while somebody reads, or aborting it: the reader's loop ends at once,
whatever it waits for (a pause between attempts, the headers, more of the answer), and what was open
is closed. Waits are of half a minute, so that who would wait hangs the test.
"""

import asyncio
import gc
import sys
import threading
import time
import weakref

import pytest

import unbroken
from unbroken import AsyncClient, Client, RecoveryPolicy, Timeouts
from unbroken.errors import LocalProtocolError
from unbroken.simulator.app import running
from unbroken.simulator.scenario import Fault, Scenario
from unbroken.simulator.transport import AsyncSimulatorTransport, SimulatorTransport

LONG = 50.0
SCENARIOS = {
    "pause": Scenario(faults=(Fault(kind="status", status=503, retry_after=LONG),)),
    "headers": Scenario(faults=(Fault(kind="silent"),)),
    "content": Scenario(ttft=LONG),
    "stall": Scenario(ttft=0, tps=0, faults=(Fault(kind="stall", events=5, seconds=LONG),)),
    "flow": Scenario(ttft=0, tps=100, tokens=3000),
}
SETTINGS = {
    "api_key": "k",
    "timeouts": Timeouts(connect=LONG, first_event=LONG, idle=LONG),
    "recovery": RecoveryPolicy(attempts=3, fallback_after=LONG),
}

pytestmark = pytest.mark.timeout(40)


@pytest.fixture(scope="module")
def server():
    with running(SCENARIOS) as url:
        yield {"base_url": f"{url}/v1"}


def world(kind, server, transport):
    return server if kind == "http" else {"transport": transport(SCENARIOS, real_time=True)}


anywhere = pytest.mark.parametrize("kind", ["http", "simulator"])
whatever = pytest.mark.parametrize("model", SCENARIOS)
whichever = pytest.mark.parametrize(
    ("ends", "hedge_after"),
    [("stream", None), ("client", None), ("abort", None), ("abort", 0.05)],
    ids=["stream", "client", "abort", "abort-hedged"],
)


def way(ends, stream, client):
    """What ends the stream."""
    return {"stream": stream.close, "client": client.close, "abort": stream.abort}[ends]


@anywhere
@whatever
@whichever
def test_under_a_task_that_reads(server, kind, model, ends, hedge_after):
    async def main():
        client = AsyncClient(**SETTINGS, **world(kind, server, AsyncSimulatorTransport))
        stream = client.stream(f"openai/{model}", "Hi", hedge_after=hedge_after)

        async def read():
            return [event async for event in stream]

        reading = asyncio.create_task(read())
        await asyncio.sleep(0.3)
        await way(ends, stream, client)()
        await reading
        await client.close()
        return stream.response

    assert asyncio.run(main()).end == "cancelled"


def reader(stream, caught):
    """A thread that reads; what it meets is `caught`."""

    def read():
        try:
            list(stream)
        except BaseException as error:
            caught.append(error)
            raise

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    return reading


@anywhere
@whatever
@whichever
def test_under_a_thread_that_reads(server, kind, model, ends, hedge_after):
    client, caught = Client(**SETTINGS, **world(kind, server, SimulatorTransport)), []
    stream = client.stream(f"openai/{model}", "Hi", hedge_after=hedge_after)
    reading = reader(stream, caught)
    time.sleep(0.3)
    way(ends, stream, client)()
    reading.join()
    client.close()

    assert (stream.response.end, caught) == ("cancelled", [])


def test_a_stream_may_be_closed_twice_and_read_afterwards():
    with Client() as client:
        stream = client.stream("sim/demo?tps=50&tokens=300", "Hi")
        next(iter(stream))
        stream.close()
        stream.close()

        assert list(stream) == []
    assert stream.response.end == "cancelled"


def test_a_stream_that_was_never_read_ends_with_its_client():
    client = Client()
    stream = client.stream("sim/demo", "Hi")
    client.close()

    assert list(stream) == []
    assert stream.response.end == "cancelled"


def test_a_stream_that_is_over_stays_as_it_was():
    with Client() as client:
        stream = client.stream("sim/demo?ttft=0&tps=0", "Hi")
        told = list(stream)
    stream.close()

    assert told
    assert stream.response.end == "complete"


def test_an_answer_in_one_piece_is_none_if_the_client_is_closed_meanwhile(server):
    caught, client = [], Client(**SETTINGS, **server)

    def ask():
        try:
            client.complete("openai/content", "Hi")
        except LocalProtocolError as error:
            caught.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    time.sleep(0.3)
    client.close()
    asking.join()

    assert [str(error) for error in caught] == ["the client is closed. Ask while it is open."]
    assert caught[0].response.end == "cancelled"


def test_an_awaited_one_too(server):
    async def main():
        client = AsyncClient(**SETTINGS, **server)
        asking = asyncio.create_task(client.complete("openai/content", "Hi"))
        await asyncio.sleep(0.3)
        await client.close()
        with pytest.raises(LocalProtocolError, match="the client is closed"):
            await asking

    asyncio.run(main())


def test_a_closed_client_answers_nothing_more(server):
    client = Client(**SETTINGS, **server)
    client.close()

    with pytest.raises(LocalProtocolError, match="the client is closed"):
        client.stream("openai/flow", "Hi")
    with pytest.raises(LocalProtocolError, match="the client is closed"):
        client.complete("sim/demo", "Hi")


def test_nor_does_an_awaited_one(server):
    async def main():
        client = AsyncClient(**SETTINGS, **server)
        await client.close()
        with pytest.raises(LocalProtocolError, match="the client is closed"):
            client.stream("openai/flow", "Hi")
        with pytest.raises(LocalProtocolError, match="the client is closed"):
            await client.complete("sim/demo", "Hi")

    asyncio.run(main())


def test_the_shared_client_is_never_closed():
    with unbroken.stream("sim/demo?ttft=0&tps=0", "Hi") as stream:
        next(iter(stream))

    assert unbroken.complete("sim/demo?ttft=0&tps=0", "Hi").end == "complete"


def test_the_client_holds_no_stream():
    with Client() as client:
        stream = client.stream("sim/demo?ttft=0&tps=0", "Hi")
        next(iter(stream))
        gone = weakref.ref(stream)
        del stream
        gc.collect()

        assert gone() is None


@pytest.fixture
def restless():
    """Threads take turns at nearly every step."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def test_no_moment_is_a_wrong_one(restless):
    caught, ends = [], set()
    with Client(transport=SimulatorTransport()) as client:
        for turn in range(400):
            stream = client.stream("sim/demo?tokens=2000&tps=1000", "Hi")
            reading = reader(stream, caught)
            time.sleep(turn * 2e-5)
            stream.close()
            reading.join()
            ends.add(stream.response.end)

    assert caught == []
    assert ends <= {"cancelled", "complete"}


def test_nor_while_the_connection_is_made(restless, server):
    caught = []
    with Client(**SETTINGS, **server) as client:
        for turn in range(150):
            stream = client.stream("openai/headers", "Hi")
            reading = reader(stream, caught)
            time.sleep(turn * 2e-5)
            stream.close()
            reading.join(60)
            assert not reading.is_alive()

    assert caught == []


class Told:
    """An observer: how each answer ended."""

    def __init__(self):
        self.states = []

    def answered(self, told):
        self.states.append(told.state)


class Lingering(AsyncSimulatorTransport):
    """Letting go of a connection takes until somebody is tired of it."""

    def __init__(self):
        super().__init__()
        self.lets_go = asyncio.Event()

    async def open(self, request, deadlines):
        body = await super().open(request, deadlines)
        body.close = self._close
        return body

    async def _close(self, *, reusable=False):
        self.lets_go.set()
        await asyncio.Event().wait()


def test_who_is_cancelled_while_letting_go_has_the_observers_told():
    told = Told()

    async def main():
        transport = Lingering()
        client = AsyncClient(transport=transport, observers=[told])
        stream = client.stream("sim/demo?ttft=0&tps=0", "Hi")
        reading = asyncio.create_task(drain(stream))
        await transport.lets_go.wait()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)

    asyncio.run(main())

    assert told.states == ["complete"]


async def drain(stream):
    async for _ in stream.batches():
        pass
