"""Hundreds of answers at once, and a process that dies, leaves, or deletes 15,000 old answers.

Real processes: a simulated provider that counts what it is asked, gateways on one SQLite file or
one Redis.
"""

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from urllib.parse import urlsplit

import aiohttp
import pytest
from ports import free_port
from redis_server import fresh_url
from test_kill import Server

from unbroken import AsyncClient, Client
from unbroken.errors import StreamMissing
from unbroken.messages import Request, messages_from
from unbroken.server.answers import LEASE_SECONDS, Answers
from unbroken.server.records import AnswerRequest
from unbroken.stores import registry
from unbroken.stores.base import End, NewStream
from unbroken.stores.redis import RedisStore
from unbroken.stores.redis.nodes import settings_of
from unbroken.stores.sqlite import SqliteStore

ANSWERS, OWN = 400, 20
WITHIN = 5.0  # seconds from the kill until another process goes on with all; its lease included
HAND_OVER = 2.0  # seconds that an orderly stop may take beyond its drain
PACE = "ttft=0.2&tokens=28&tps=2.5"
DRAIN = 0.2
QUESTION = [{"role": "user", "content": "Tell me about cats."}]

pytestmark = pytest.mark.slow
both_stores = pytest.mark.parametrize("kind", ["sqlite", "redis"])


@contextlib.contextmanager
def provider():
    """A simulator in a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "unbroken", "simulate", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(20)


def get(url):
    with urllib.request.urlopen(url, timeout=20) as answer:
        return answer.read()


class Nodes:
    """Two gateways of one store: one to be ended, and the survivor with answers of its own."""

    def __init__(self, kind, folder, upstream):
        self.upstream = upstream
        self.store = f"sqlite:///{folder}/answers.db" if kind == "sqlite" else fresh_url()
        options = ("--store", self.store, "--drain", str(DRAIN))
        self.doomed = Server(folder, upstream, *options).start()
        self.survivor = Server(folder, upstream, *options).start()
        self.streams = {}  # the model of each

    def start(self, node, model, count):
        """A burst of answers."""
        ids = asyncio.run(burst(node.url, f"anthropic/{model}?{PACE}", count))
        self.streams |= dict.fromkeys(ids, model)

    def wait_until_asked(self, expected):
        """Wait until the provider was asked so often; raise if it is not in time."""
        begin = time.monotonic()
        while (asked := self.asked()) != expected:
            assert time.monotonic() - begin < 30, asked
            time.sleep(0.1)

    def wrong(self):
        """Read all answers to their end; return those that differ from one that was never cut."""
        client = Client(api_key="k", base_url=self.upstream)
        whole = {
            model: client.complete(f"anthropic/{model}?tokens=28&tps=0", QUESTION).text
            for model in set(self.streams.values())
        }
        ends = asyncio.run(read_all(self.store, self.streams))
        return [
            end
            for model, end in zip(self.streams.values(), ends, strict=True)
            if end != ("complete", whole[model])
        ]

    def asked(self):
        """How often the provider was asked for each model."""
        return Counter(entry["model"] for entry in json.loads(get(f"{self.upstream}/log")))

    def kill(self):
        for node in (self.doomed, self.survivor):
            with contextlib.suppress(Exception):
                node.kill()


async def burst(url, model, count):
    async with aiohttp.ClientSession() as session:

        async def start():
            body = {"model": model, "messages": QUESTION}
            async with session.post(f"{url}/v1/streams", json=body) as answer:
                assert answer.status == 201, await answer.text()
                return (await answer.json())["id"]

        return await asyncio.gather(*(start() for _ in range(count)))


async def read_all(url, streams):
    """State and text of each answer, read to its end from the store."""
    async with registry.open_store(url) as store:
        answers = Answers(store, AsyncClient())

        async def read(stream):
            text = ""
            async for item in answers.follow(stream, 0):
                if isinstance(item, End):
                    return item.state, text
                for batch in item:
                    text += "".join(e.text for e in batch.events if type(e).__name__ == "TextDelta")
            raise AssertionError

        return await asyncio.wait_for(asyncio.gather(*map(read, streams)), 60)


@both_stores
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_hundreds_of_answers_of_a_gateway_go_on_in_another(kind, how, tmp_path, monkeypatch):
    monkeypatch.setenv("UNBROKEN_LOG", "off")
    with provider() as upstream, contextlib.ExitStack() as stack:
        nodes = Nodes(kind, tmp_path, upstream)
        stack.callback(nodes.kill)
        nodes.start(nodes.survivor, "own", OWN)
        nodes.start(nodes.doomed, "doomed", ANSWERS)
        time.sleep(1.0)

        begin = time.monotonic()
        nodes.doomed.kill(how)
        left = time.monotonic() - begin
        each_once_more = {"own": OWN, "doomed": 2 * ANSWERS}
        nodes.wait_until_asked(each_once_more)
        taken = time.monotonic() - begin

        assert nodes.wrong() == []
        assert nodes.asked() == {"own": OWN + 1, "doomed": 2 * ANSWERS + 1}  # `wrong` asks, too
        assert left < DRAIN + HAND_OVER
        assert taken < WITHIN


@both_stores
def test_retention_of_many_old_answers_loses_none_of_the_open_ones(kind, tmp_path):
    old, url = 15_000, f"sqlite:///{tmp_path}/answers.db" if kind == "sqlite" else fresh_url()
    model = "sim/demo?ttft=0.1&tps=20&tokens=60"
    request = Request(model=model, messages=messages_from("Hi"))
    asked = AnswerRequest(models=[model], request=request, created=0)

    async def main():
        await fill(url, old)
        one, other = registry.open_store(url), registry.open_store(url)
        deleting, idle = Answers(one, AsyncClient()), Answers(other, AsyncClient())
        deleting.set_retention(30, None)
        async with deleting, idle:
            late = Lateness(one)
            mine = [(await deleting.start(asked)).stream.id for _ in range(OWN)]
            await asyncio.gather(*(ended(deleting, stream) for stream in mine))
            infos = [await one.info(stream) for stream in mine]
            kept = sum([await exists(one, f"old_{n}") for n in range(0, old, 100)])
            return late.worst, [(info.fence, info.end.state) for info in infos], kept

    worst, ends, kept = asyncio.run(main())

    assert ends == [(1, "complete")] * OWN
    assert kept < old / 100 - 1  # it was at work meanwhile
    assert worst < LEASE_SECONDS


class Lateness:
    """The longest time between two heartbeats that a store has taken."""

    def __init__(self, store):
        self._last, self.worst, self._beat = time.monotonic(), 0.0, store.heartbeat
        store.heartbeat = self

    async def __call__(self, *args):
        found = await self._beat(*args)
        now = time.monotonic()
        self._last, self.worst = now, max(self.worst, now - self._last)
        return found


async def fill(url, count):
    """Answers that ended forty days ago."""

    def clock():
        return time.time() - 40 * 86_400

    made = SqliteStore(urlsplit(url).path[1:], clock=clock) if "sqlite" in url else None
    async with made or RedisStore(settings_of(url), clock=clock) as store:

        async def one(n):
            await store.create(NewStream(f"old_{n}"), [b"x" * 200])
            await store.close(f"old_{n}", End("complete"), 1)

        for at in range(0, count, 500):
            await asyncio.gather(*map(one, range(at, at + 500)))


async def ended(answers, stream):
    async for item in answers.follow(stream, 0):
        if isinstance(item, End):
            return


async def exists(store, stream):
    with contextlib.suppress(StreamMissing):
        return bool(await store.info(stream))
    return False
