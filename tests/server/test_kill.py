"""Promise 3: kill the server with -9 in mid-answer; what a reader has seen stays true.

Real processes: a simulated provider, gateways on one SQLite file, a reader that comes back.
"""

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import pytest
from ports import free_port

from unbroken.simulator.app import running
from unbroken.simulator.scenario import Scenario
from unbroken.wire.sse import SseDecoder

UPSTREAM = {"*": Scenario(ttft=0.05, tps=120, tokens=150)}
MODELS = ["openai/gpt-x", "anthropic/claude-sonnet-4-5"]
KILLS = 4
LONGER = 3.0  # seconds: than a lease


class Server:
    """One `unbroken serve`, to be killed and started again."""

    def __init__(self, folder, upstream, *options):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder, self._upstream = folder, upstream
        self._options, self._process = options, None

    def start(self):
        env = {k: v for k, v in os.environ.items() if not k.endswith(("_API_KEY", "_BASE_URL"))}
        env |= {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": f"{self._upstream}/v1"}
        env |= {"ANTHROPIC_API_KEY": "k", "ANTHROPIC_BASE_URL": self._upstream}
        command = [sys.executable, "-m", "unbroken", "serve", "--port", str(self.port)]
        self._process = subprocess.Popen(
            [*command, "--store", "sqlite:///answers.db", *self._options],
            cwd=self._folder,
            env=env,
            stdout=subprocess.DEVNULL,
        )
        while self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return self
            time.sleep(0.01)
        raise AssertionError("the server did not start")

    def kill(self, how=signal.SIGKILL):
        self._process.send_signal(how)
        self._process.wait(20)

    def pause(self, seconds):
        """It stands still, and does not know it."""
        self._process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self._process.send_signal(signal.SIGCONT)

    def post(self, model):
        body = {"model": model, "messages": [{"role": "user", "content": "Tell me about cats."}]}
        asked = urllib.request.Request(f"{self.url}/v1/streams", json.dumps(body).encode())
        with urllib.request.urlopen(asked) as answer:
            return json.loads(answer.read())["id"]


class Reader(threading.Thread):
    """Follows one answer to its end, wherever it can be followed, and comes back to its offset."""

    def __init__(self, urls, stream):
        super().__init__(daemon=True)
        self.urls, self.stream = urls, stream
        self.text, self.state, self.returns = "", "", -1
        self._last, self.cuts = "0", 0

    def run(self):
        turn = 0
        while not self.state:
            self.returns += 1
            try:
                self._follow(self.urls[turn % len(self.urls)])
            except OSError:
                pass  # the server is not there at the moment
            except http.client.HTTPException:
                self.cuts += 1
            turn += 1
            time.sleep(0.02)

    def _follow(self, url):
        asked = urllib.request.Request(
            f"{url}/v1/streams/{self.stream}?after={self._last}",
            headers={"accept": "text/event-stream"},
        )
        decoder = SseDecoder()
        with urllib.request.urlopen(asked, timeout=30) as answer:
            while data := answer.read1(65536):
                for frame in decoder.feed(data):
                    self._take(frame)

    def _take(self, frame):
        said = json.loads(frame.data)
        if frame.event == "end":
            self.state = said["state"]
        else:
            self.text += "".join(e["text"] for e in said if e["type"] == "text_delta")
        self._last = frame.id


def expected(upstream, model):
    from unbroken import Client

    base = f"{upstream}/v1" if model.startswith("openai") else upstream
    with Client(api_key="k", base_url=base) as client:
        return client.complete(model, "Tell me about cats.").text


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_a_server_killed_at_random_moments_goes_on_where_it_was(tmp_path, model):
    dice = random.Random(model)
    with running(UPSTREAM) as upstream, contextlib.ExitStack() as stack:
        whole = expected(upstream, model)
        server = Server(tmp_path, upstream).start()
        stack.callback(lambda: server.kill())
        for _ in range(KILLS):
            reader = Reader([server.url], server.post(model))
            reader.start()
            time.sleep(dice.uniform(0.0, 1.2))
            server.kill()
            server.start()
            reader.join(40)

            assert reader.state == "complete"
            assert reader.text == whole


@pytest.mark.slow
def test_another_process_takes_over_within_seconds_and_its_readers_too(tmp_path):
    model, dice = MODELS[0], random.Random(7)
    with running(UPSTREAM) as upstream, contextlib.ExitStack() as stack:
        whole = expected(upstream, model)
        servers = [Server(tmp_path, upstream).start() for _ in range(2)]
        for server in servers:
            stack.callback(lambda server=server: server.kill())
        for turn in range(4):
            doomed, other = servers[turn % 2], servers[(turn + 1) % 2]
            stream = doomed.post(model)
            readers = [Reader([doomed.url, other.url], stream), Reader([other.url], stream)]
            for reader in readers:
                reader.start()
            time.sleep(dice.uniform(0.05, 1.0))
            doomed.kill()
            for reader in readers:
                reader.join(40)
            doomed.start()

            assert [reader.text for reader in readers] == [whole, whole]


@pytest.mark.slow
def test_a_process_that_stood_still_goes_on_with_its_own_answers(tmp_path):
    """A suspended laptop, a frozen container: its leases are over, and nobody has them."""
    with running(UPSTREAM) as upstream, contextlib.ExitStack() as stack:
        whole = expected(upstream, MODELS[0])
        server = Server(tmp_path, upstream).start()
        stack.callback(lambda: server.kill())
        readers = [Reader([server.url], server.post(MODELS[0])) for _ in range(24)]
        for reader in readers:
            reader.start()
        time.sleep(0.4)
        server.pause(LONGER)
        for reader in readers:
            reader.join(40)

        assert [reader.text for reader in readers] == [whole] * 24
        assert asked(upstream) == 1 + 24  # nothing was paid for twice


@pytest.mark.slow
def test_a_process_that_stood_still_finds_its_answers_taken_over(tmp_path):
    with running(UPSTREAM) as upstream, contextlib.ExitStack() as stack:
        whole = expected(upstream, MODELS[0])
        first, second = (Server(tmp_path, upstream).start() for _ in range(2))
        stack.callback(lambda: (first.kill(), second.kill()))
        stream = first.post(MODELS[0])
        readers = [Reader([url], stream) for url in (first.url, second.url)]
        for reader in readers:
            reader.start()
        time.sleep(0.4)
        first.pause(LONGER)
        for reader in readers:
            reader.join(40)

        assert [reader.text for reader in readers] == [whole, whole]


def asked(upstream):
    """How many questions the provider was asked."""
    with urllib.request.urlopen(f"{upstream}/log") as log:
        return len(json.loads(log.read()))


@pytest.mark.slow
@pytest.mark.parametrize(("drain", "returns"), [("9", 0), ("0.2", 1)])
def test_a_server_that_is_stopped_finishes_its_answers_or_hands_them_over(tmp_path, drain, returns):
    with running(UPSTREAM) as upstream, contextlib.ExitStack() as stack:
        whole = expected(upstream, MODELS[0])
        first = Server(tmp_path, upstream, "--drain", drain).start()
        second = Server(tmp_path, upstream).start()
        stack.callback(lambda: second.kill())
        reader = Reader([first.url, second.url], first.post(MODELS[0]))
        reader.start()
        time.sleep(0.3)
        first.kill(signal.SIGTERM)
        reader.join(40)

        assert reader.text == whole
        assert (reader.returns, reader.cuts) == (returns, 0)
