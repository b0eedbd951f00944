"""Many machines: gateways on one Redis behind a real nginx, killed at random while people read.

For minutes instead of seconds: scripts/many_nodes.py.
"""

import asyncio
import http.client
import time
import urllib.error
import urllib.request
from contextlib import aclosing

import pytest
from fleet import NGINX, Fleet, Tally
from redis_server import cut_off, fresh_url, listeners
from test_kill import MODELS, Reader

from unbroken import AsyncClient
from unbroken.server.answers import Answers
from unbroken.server.protocols.health import PROBE_INTERVAL
from unbroken.server.records import decode_outcome
from unbroken.stores import registry
from unbroken.stores.base import End, NewStream

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(NGINX is None, reason="there is no nginx on this machine"),
]


def test_no_character_is_lost_or_doubled_whoever_is_killed(tmp_path):
    with Fleet(tmp_path, nodes=3) as fleet:
        for _ in range(6):  # more than once only where the machine has other things to do
            tally = asyncio.run(fleet.run(10, load=8, kill_redis=4))
            if enough := tally.answers > 8 and min(tally.kills, tally.redis_kills, tally.returns):
                break

    assert tally.wrong == []
    assert enough
    assert tally.readers == 2 * tally.answers


def test_a_gateway_whose_redis_is_away_says_that_it_is_not_ready(tmp_path):
    with Fleet(tmp_path, nodes=1) as fleet:
        before = status(f"{fleet.url}/readyz")
        fleet.redis.kill()
        time.sleep(PROBE_INTERVAL)
        away = status(f"{fleet.url}/readyz"), status(f"{fleet.url}/healthz")
        fleet.redis.start()
        for _ in range(200):
            if (after := status(f"{fleet.url}/readyz")) == 200:
                break
            time.sleep(0.02)

    assert (before, away, after) == (200, (503, 200), 200)


def test_an_answer_that_redis_has_lost_is_told_to_its_reader_in_the_middle_and_afterwards(tmp_path):
    with Fleet(tmp_path, nodes=2) as fleet:
        stream = fleet.nodes[0].post(MODELS[0])
        readers = [Reader([node.url], stream) for node in fleet.nodes]
        for reader in readers:
            reader.run = lambda reader=reader: cut(reader)
            reader.start()
        while not all(reader.text for reader in readers):
            time.sleep(0.01)
        fleet.redis.kill()
        for path in tmp_path.rglob("*.aof*"):  # one file, or, from Redis 7 on, some in a folder
            path.unlink()
        fleet.redis.start()
        for reader in readers:
            reader.join(40)
        after = [status(f"{node.url}/v1/streams/{stream}?after=9") for node in fleet.nodes]

    assert [reader.state for reader in readers] == ["failed", "failed"]
    assert [reader.cuts for reader in readers] == [0, 0]
    assert after == [404, 404]


def test_a_reader_is_told_that_other_words_stand_where_it_has_read():
    async def story(here, there):
        read = []

        async def follow():
            async with aclosing(answers.follow("s", 1)) as items:
                async for item in items:
                    if isinstance(item, End):
                        return decode_outcome(item.final).error
                    read.extend(batch.data for batch in item)

        async with here, Answers(there, AsyncClient(api_key="k")) as answers:
            answers._takeover.paused = True  # another process takes over here
            await here.heartbeat("p", 60)
            new = await here.create(NewStream("s"), [b"question", b"one", b"two"], "p")
            reading = asyncio.ensure_future(follow())
            while not await listeners(here, "s"):
                await asyncio.sleep(0.01)
            await here.append("s", [b"three"], 3, new.lease.fence)
            while len(read) < 3:
                await asyncio.sleep(0.01)
            await cut_off(here, "s", 3)
            await here.release_all("p")
            await here.heartbeat("q", 60)
            [lease] = await here.adopt("q")
            await here.append("s", [b"other", b"words", b"stand", b"here"], 1, lease.fence)
            error = await asyncio.wait_for(reading, 20)
            assert (error.type, "others now" in error.message) == ("OffsetUnknown", True)
            await here.delete("s")
        return read

    url = fresh_url()
    assert asyncio.run(story(registry.open(url), registry.open(url))) == [b"one", b"two", b"three"]


def cut(reader):
    """Read once, to wherever it goes."""
    try:
        reader._follow(reader.urls[0])
    except (http.client.HTTPException, OSError):
        reader.cuts += 1


def status(url):
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_a_wrong_answer_would_be_found():
    class Read:
        def __init__(self, text, state="complete"):
            self.text, self.state, self.returns, self.events, self._last = text, state, 0, 3, 9

    fleet = Fleet(".")
    fleet.whole = {"m": "whole"}
    for text, state in (("whole", "complete"), ("whol", "complete"), ("whole", "failed")):
        fleet._count_up("m", "s", [Read(text, state)])

    assert isinstance(fleet.tally, Tally)
    assert [(state, text) for _, _, state, _, text in fleet.tally.wrong] == [
        ("complete", "whol"),
        ("failed", "whole"),
    ]
