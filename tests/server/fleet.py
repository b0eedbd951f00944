"""Several gateways on one Redis behind a real nginx, with readers on any of them, under `kill -9`.

Used by test_nodes.py for some seconds and by scripts/many_nodes.py for as long as one likes. A
reader asks nginx each time, so it is hardly ever at the gateway that produces its answer. It
knows what the whole answer is, and the offset of all that it has seen.
"""

import asyncio
import contextlib
import itertools
import json
import random
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from ports import free_port
from redis_server import RedisServer
from test_kill import MODELS, Server, expected

from unbroken.simulator.app import running
from unbroken.simulator.scenario import Scenario
from unbroken.wire.sse import SseDecoder

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
UPSTREAM = {"*": Scenario(ttft=0.1, tps=60, tokens=200)}
PATIENCE = 90.0  # seconds for an answer of 3.5, whatever happens to it
CONFIG = """
daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 2048; }}
http {{
    access_log off; proxy_http_version 1.1; proxy_read_timeout 60s;
    client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
    uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
    upstream gateways {{ {servers} }}
    server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://gateways;
        proxy_set_header Host $http_host; }} }}
}}
"""


@dataclass
class Tally:
    """What happened."""

    answers: int = 0
    readers: int = 0
    events: int = 0
    kills: int = 0
    redis_kills: int = 0
    returns: int = 0  # readers that had to come back
    wrong: list = field(default_factory=list)

    def __str__(self):
        return (
            f"{self.answers} answers read by {self.readers} readers ({self.events} events), "
            f"{self.kills} gateways killed, Redis killed {self.redis_kills} times, "
            f"{self.returns} times a reader came back, {len(self.wrong)} answers wrong"
        )


class Reader:
    """One follower of one answer, through nginx."""

    def __init__(self, session, url, stream):
        self._session, self._url = session, f"{url}/v1/streams/{stream}"
        self.text, self.state, self.returns, self.events = "", "", -1, 0
        self._last = 0

    async def run(self):
        """To the end of the answer, as often as it takes."""
        while not self.state:
            self.returns += 1
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                await self._follow()
            await asyncio.sleep(0.05)

    async def _follow(self):
        headers = {"accept": "text/event-stream"}
        decoder = SseDecoder()
        where = f"{self._url}?after={self._last}"
        async with self._session.get(where, headers=headers) as answer:
            if answer.status != 200:
                return  # its gateway or Redis is away at the moment
            async for data in answer.content.iter_any():
                for frame in decoder.feed(data):
                    self._take(frame)

    def _take(self, frame):
        said, offset = json.loads(frame.data), int(frame.id)
        assert offset > self._last, f"offset {offset} after {self._last}"
        self._last = offset
        if frame.event == "end":
            self.state = said["state"]
        else:
            self.events += len(said)
            self.text += "".join(e["text"] for e in said if e["type"] == "text_delta")


class Fleet:
    """`nodes` gateways; `async with` starts and ends all of it."""

    def __init__(self, folder, nodes=3, seed=1):
        self.folder, self.dice, self.tally = Path(folder), random.Random(seed), Tally()
        self._count = nodes
        self._stack = contextlib.ExitStack()
        self._keys = itertools.count()

    def __enter__(self):
        stack = self._stack
        upstream = stack.enter_context(running(UPSTREAM))
        self.whole = {model: expected(upstream, model) for model in MODELS}
        options = ("--appendonly", "yes", "--appendfsync", "always")
        self.redis = stack.enter_context(RedisServer(self.folder, *options))
        self.nodes = [
            Server(self.folder, upstream, "--store", self.redis.url) for _ in range(self._count)
        ]
        for node in self.nodes:
            node.start()
            stack.callback(node.kill)
        self.url = stack.enter_context(self._nginx())
        return self

    def __exit__(self, *_):
        self._stack.close()

    @contextlib.contextmanager
    def _nginx(self):
        port = free_port()
        place = self.folder / "nginx"
        place.mkdir()
        servers = " ".join(f"server 127.0.0.1:{node.port} max_fails=0;" for node in self.nodes)
        (place / "nginx.conf").write_text(CONFIG.format(folder=place, port=port, servers=servers))
        command = [NGINX, "-c", place / "nginx.conf", "-p", place]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as nginx:
            while nginx.poll() is None:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.01)
            yield f"http://127.0.0.1:{port}"
            nginx.terminate()

    async def run(self, seconds, *, load=12, kill_redis=0.0):
        """Answers, one after the other in each of `load` places, while gateways are killed."""
        until = time.monotonic() + seconds
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=30)
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            async with asyncio.TaskGroup() as tasks:
                places = [tasks.create_task(self._answers(session, until)) for _ in range(load)]
                killing = tasks.create_task(self._kill(until))
                if kill_redis:
                    tasks.create_task(self._kill_redis(until, kill_redis))
                await asyncio.gather(*places)
                await killing
        return self.tally

    async def _answers(self, session, until):
        await asyncio.sleep(self.dice.uniform(0, 2))
        while time.monotonic() < until:
            model, key = self.dice.choice(MODELS), f"key-{next(self._keys)}"
            stream = await self._ask(session, model, key)
            readers = [Reader(session, self.url, stream) for _ in range(2)]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await asyncio.gather(*(reader.run() for reader in readers))
            self._count_up(model, stream, readers)

    async def _ask(self, session, model, key):
        """The same key until it is answered: never a second answer."""
        body = {"model": model, "messages": [{"role": "user", "content": "Tell me about cats."}]}
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                headers = {"idempotency-key": key}
                asked = session.post(f"{self.url}/v1/streams", json=body, headers=headers)
                async with asked as answer:
                    if answer.status in (200, 201):
                        return (await answer.json())["id"]
            await asyncio.sleep(0.1)

    def _count_up(self, model, stream, readers):
        tally = self.tally
        tally.answers += 1
        for reader in readers:
            tally.readers += 1
            tally.returns += reader.returns
            tally.events += reader.events
            if (reader.text, reader.state) != (self.whole[model], "complete"):
                tally.wrong.append((stream, model, reader.state, reader._last, reader.text))

    async def _kill(self, until):
        while time.monotonic() < until:
            await asyncio.sleep(self.dice.uniform(0.3, 2.0))
            node = self.dice.choice(self.nodes)
            await asyncio.to_thread(node.kill)
            self.tally.kills += 1
            await asyncio.sleep(self.dice.uniform(0, 0.5))
            await asyncio.to_thread(node.start)

    async def _kill_redis(self, until, every):
        while time.monotonic() < until:
            await asyncio.sleep(every)
            await asyncio.to_thread(self.redis.kill)
            self.tally.redis_kills += 1
            await asyncio.sleep(self.dice.uniform(0, 1))
            await asyncio.to_thread(self.redis.start)
