"""What becomes of an answer that nobody reads, on a clock of our own."""

import asyncio
import contextlib
import http.client
import json
import socket
import time
from urllib.parse import urlsplit

import msgspec
import pytest

from unbroken import AsyncClient
from unbroken.messages import Request, messages_from
from unbroken.server.gateway import Gateway
from unbroken.server.presence import PRESENCE_TTL, ReaderPresence
from unbroken.server.records import AnswerRequest
from unbroken.simulator.scenario import Scenario
from unbroken.simulator.transport import AsyncSimulatorTransport
from unbroken.stores.base import NewStream
from unbroken.stores.memory import MemoryStore

GRACE = 10.0
ASKED = AnswerRequest(
    models=["sim/x"],
    request=Request(model="sim/x", messages=messages_from("Hi")),
    created=0,
    on_disconnect="grace",
    grace=GRACE,
)


class World:
    """One answer "s" that is written here, and the time."""

    def __init__(self, asked=ASKED):
        self.now, self.abandoned = 1000.0, []
        self.store = MemoryStore(clock=self.clock)
        self.readers = ReaderPresence(self.store, self._abandon, self.clock)
        self._asked = asked

    def clock(self):
        return self.now

    async def _abandon(self, stream):
        self.abandoned.append((stream, round(self.now - 1000.0, 3)))

    async def __aenter__(self):
        await self.store.create(NewStream("s"))
        self.readers.track("s", self._asked)
        return self

    async def __aexit__(self, *_):
        pass

    async def until(self, seconds):
        """Let the time go on, and look as often as a process does."""
        while self.now < 1000.0 + seconds:
            self.now += 0.0625
            await self.readers.expire()


def told(story, asked=ASKED):
    async def main():
        async with World(asked) as world:
            await story(world)
            return world.abandoned

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("wish", "after"), [("grace", GRACE), ("cancel", PRESENCE_TTL), ("keep", None)]
)
def test_an_answer_that_nobody_ever_reads(wish, after):
    asked = msgspec.structs.replace(ASKED, on_disconnect=wish)
    expected = [] if after is None else [("s", pytest.approx(after, abs=0.1))]

    assert told(lambda world: world.until(30), asked) == expected


def test_each_leaving_has_its_own_grace():
    """Whoever is away for a moment when an earlier wait would have ended has not left for good."""

    async def story(world):
        for second in range(1, 40, 3):
            world.readers.join("s")
            await world.until(second)
            world.readers.leave("s")
            await world.until(second + 2)
        await world.until(60)

    assert told(story) == [("s", pytest.approx(37 + GRACE, abs=0.1))]


def test_a_reader_elsewhere_has_the_same_grace():
    """It is announced every half second until it leaves, eight seconds after the answer began."""

    async def story(world):
        for second in range(1, 17):
            await world.store.announce_readers(["s"], PRESENCE_TTL)
            await world.until(second / 2)
        await world.until(60)

    ((_, when),) = told(story)
    assert 8 + GRACE - 0.6 <= when <= 8 + GRACE + PRESENCE_TTL


def test_a_reader_who_leaves_at_once_takes_the_answer_along():
    async def story(world):
        world.readers.join("s")
        await world.until(5)
        world.readers.leave("s")
        await world.until(9)

    asked = msgspec.structs.replace(ASKED, on_disconnect="cancel")
    assert told(story, asked) == [("s", pytest.approx(5, abs=0.1))]


def test_one_of_two_readers_may_leave():
    async def story(world):
        world.readers.join("s")
        world.readers.join("s")
        world.readers.leave("s")
        await world.until(60)

    assert told(story) == []


def test_a_process_that_closes_abandons_nobody():
    async def story(world):
        world.readers.close()
        world.readers.join("s")
        world.readers.leave("s")
        await world.until(60)

    assert told(story) == []


def test_a_long_poll_that_hung_up_is_no_reader(serve):
    """Its answer would go on for as long as it had meant to wait."""
    scenarios = {"slow": Scenario(ttft=30)}
    transport = AsyncSimulatorTransport(scenarios, real_time=True)
    gateway = Gateway(MemoryStore(), client=AsyncClient(api_key="k", transport=transport))
    url = urlsplit(serve(gateway))
    body = {"model": "sim/slow", "messages": [{"role": "user", "content": "Hi"}]}
    with contextlib.closing(http.client.HTTPConnection(url.netloc, timeout=5)) as starting:
        starting.request("POST", "/v1/streams", json.dumps(body))
        stream = json.loads(starting.getresponse().read())["id"]

    polling = socket.create_connection((url.hostname, url.port))
    polling.sendall(
        f"GET /v1/streams/{stream}?wait=60 HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()
    )
    until(lambda: gateway.answers.readers.total == 1)
    polling.close()

    until(lambda: gateway.answers.readers.total == 0)


def until(condition):
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("never")
