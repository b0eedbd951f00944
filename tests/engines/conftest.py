"""A model server that is not ours, if it is installed, and a road to it that breaks."""

import contextlib
import importlib.util
import select
import socket
import struct
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from ports import free_port

SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "real_engine.py"
KEY = "tiny-key"


def script():
    spec = importlib.util.spec_from_file_location("real_engine", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Engine:
    """A server that runs: where it listens, and what it has written."""

    def __init__(self, port, log):
        self.port, self.log = port, log
        self.url = f"http://127.0.0.1:{port}"

    def answers(self, path):
        try:
            return urllib.request.urlopen(f"{self.url}{path}", timeout=5).status == 200
        except (urllib.error.URLError, ConnectionError):
            return False


@contextlib.contextmanager
def running(command, env, directory, path):
    """The engine that `command` starts, once it answers at `path`."""
    log = directory / "log"
    port = free_port()
    with log.open("wb") as written:
        program = subprocess.Popen(command(port), env=env, stdout=written, stderr=written)
    try:
        engine = Engine(port, log)
        while not engine.answers(path):
            assert program.poll() is None, log.read_text()
            time.sleep(0.05)
        yield engine
    finally:
        program.kill()
        program.wait()


@pytest.fixture(scope="session")
def installed():
    """Skips what needs it where it is not installed; it takes minutes to build."""
    found = script()
    if found.server() is None:
        pytest.skip("no engine: python scripts/real_engine.py installs one")
    return found


@pytest.fixture(scope="session")
def engine(installed, tmp_path_factory):
    """llama.cpp's own server."""
    directory = tmp_path_factory.mktemp("engine")

    def command(port):
        return [*installed.command(directory, port), "--api-key", KEY]

    with running(command, installed.environment(), directory, "/health") as found:
        yield found


@pytest.fixture(scope="session")
def binding(installed, tmp_path_factory):
    """The server of llama-cpp-python: the same model, other people's HTTP."""
    directory = tmp_path_factory.mktemp("binding")

    def command(port):
        return installed.binding(directory, port)

    with running(command, installed.environment(), directory, "/v1/models") as found:
        yield found


class Road:
    """A TCP relay. Each connection in turn breaks after as many bytes of the answer as the next
    of `cuts` says, by a reset or by a close; when there are none left, the road holds.
    """

    def __init__(self, port, cuts, how="reset"):
        self._target, self._cuts, self._how = port, list(cuts), how
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.cut = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):  # the listener is closed
            while True:
                near, _ = self._listener.accept()
                limit = self._cuts.pop(0) if self._cuts else None
                threading.Thread(target=self._carry, args=(near, limit), daemon=True).start()

    def _carry(self, near, left):
        """Both ways in one thread: a socket that another one reads from can't be reset."""
        with near, socket.create_connection(("127.0.0.1", self._target)) as far:
            with contextlib.suppress(OSError):  # somebody has hung up
                while left != 0:
                    ready, _, _ = select.select([near, far], [], [])
                    source, sink = (far, near) if far in ready else (near, far)
                    data = source.recv(1 << 16)
                    if not data:
                        return
                    if source is far and left is not None:
                        data = data[:left]
                        left -= len(data)
                    sink.sendall(data)
                self.cut += 1
                if self._how == "reset":
                    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.fixture
def road():
    """Makes roads to an engine."""
    with contextlib.ExitStack() as stack:
        yield lambda engine, *settings: stack.enter_context(Road(engine.port, *settings))
