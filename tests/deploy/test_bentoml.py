"""The example under a real `bentoml serve`, out of .venv-peers; the simulator is its provider."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import textwrap
import threading
import time
import urllib.request
from pathlib import Path
from urllib.parse import quote

import pytest
from ports import free_port

from unbroken import Client
from unbroken.simulator.app import running
from unbroken.simulator.scenario import Fault, Scenario
from unbroken.wire.sse import SseDecoder

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/bentoml"
BIN = ROOT / ".venv-peers/bin"
PATIENCE = 30
"""Seconds after which a test has failed."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (BIN / "bentoml").exists() and "CI" not in os.environ,
        reason="bentoml is not in .venv-peers",
    ),
]

PLAIN = """
from collections.abc import AsyncGenerator
import bentoml

@bentoml.service
class Plain:
    @bentoml.api
    async def ask(self) -> AsyncGenerator[str, None]:
        yield "half an ans"
        raise ConnectionError("the provider is gone")
"""
QUESTION = "Tell me about cats."
POEM = "Cats sleep while the kettle sings, and wake when it has stopped."
SCENARIOS = {
    "quick": Scenario(ttft=0.01, tps=500, tokens=60),
    "steady": Scenario(ttft=0.05, tps=100, tokens=300),
    "flood": Scenario(ttft=0.0, tps=0, tokens=200_000),
    "endless": Scenario(ttft=0.05, tps=20, tokens=5000),
    "mute": Scenario(faults=(Fault(kind="silent"),)),
    "dumb": Scenario(faults=(Fault(kind="silent"),)),
    "full": Scenario(
        faults=(Fault(kind="status", status=429, type="insufficient_quota", retry_after=6.2),)
    ),
    "torn": Scenario(text=POEM, ttft=0.0, tps=500, faults=(Fault(kind="cut", words=5),)),
}


def until(done, what):
    """Wait for what comes sooner or later."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := done():
            return found
        time.sleep(0.02)
    pytest.fail(what)


class Bento:
    """One `bentoml serve` in a copy of the example, to be killed and started again."""

    def __init__(self, folder, upstream, **env):
        self.upstream = upstream
        self.log = folder / "bentoml.log"
        self.place, self._process = ("127.0.0.1", free_port()), None
        own = {"BENTOML_HOME": str(folder / "home"), "BENTOML_DO_NOT_TRACK": "True"}
        own |= {"TMPDIR": str(folder), "COLUMNS": "1000"}
        own |= {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": f"{upstream}/v1"}
        own |= {"UNBROKEN_MODEL": "openai/quick", "PATH": f"{BIN}:{os.environ['PATH']}"}
        self._env = {**os.environ, **own, **env}
        self.source = folder / "source"
        shutil.copytree(EXAMPLE, self.source, ignore=shutil.ignore_patterns("__pycache__"))

    def start(self, target="service:Chat"):
        command = [BIN / "bentoml", "serve", target, "--host", "127.0.0.1"]
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                [*command, "--port", str(self.place[1])],
                cwd=self.source,
                env=self._env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until(self._ready, "bentoml did not start")
        return self

    def _ready(self):
        assert self._process.poll() is None, self.log.read_text()
        with contextlib.suppress(OSError):
            with self.get("/readyz") as answer:
                return answer.status == 200

    def command(self, *words):
        done = subprocess.run(
            [BIN / "bentoml", *words],
            cwd=self.source,
            env=self._env,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def workers(self):
        """Their process ids."""
        main = self._process.pid
        return [*map(int, Path(f"/proc/{main}/task/{main}/children").read_text().split())]

    def kill(self):
        """All of it. The supervisor holds still meanwhile, or it would start new workers."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGSTOP)
            for pid in [self._process.pid, *self.workers()]:
                os.kill(pid, signal.SIGKILL)
            self._process.wait(PATIENCE)
        until(self._deaf, "the port is still served")

    def _deaf(self):
        with contextlib.suppress(OSError):
            socket.create_connection(self.place).close()
            return False
        return True

    @contextlib.contextmanager
    def get(self, path, body=None, **headers):
        """The response, whatever its status. Whoever leaves the block before its end has left."""
        line = http.client.HTTPConnection(*self.place, timeout=PATIENCE)
        data = None if body is None else json.dumps(body)
        kind = {"content-type": "application/json"} if data else {}
        with contextlib.closing(line):
            line.request("POST" if data else "GET", path, data, {**kind, **headers})
            with line.getresponse() as answer:
                yield answer

    def ask(self, model):
        return self.get("/ask", {"prompt": QUESTION, "model": f"openai/{model}"})

    def ends(self, model):
        """How the requests for a model ended upstream."""
        with urllib.request.urlopen(f"{self.upstream}/log") as answer:
            return [line["ended"] for line in json.load(answer) if line["model"] == model]


@pytest.fixture(scope="module")
def upstream():
    with running(SCENARIOS) as url:
        yield url


@pytest.fixture(scope="module")
def bento(upstream, tmp_path_factory):
    """One server for all tests that leave it alive."""
    with serving(Bento(tmp_path_factory.mktemp("bento"), upstream)) as server:
        yield server


@contextlib.contextmanager
def serving(bento, target="service:Chat"):
    try:
        yield bento.start(target)
    finally:
        bento.kill()


def expected(upstream, model):
    with Client(api_key="k", base_url=f"{upstream}/v1") as client:
        return client.complete(f"openai/{model}", QUESTION).text


def test_a_generator_gives_the_whole_text_and_calls_it_text(bento):
    with bento.ask("quick") as answer:
        text = answer.read().decode()

    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-accel-buffering"] == "no"
    assert text == expected(bento.upstream, "quick")


def test_two_streams_arrive_while_both_are_still_being_written(bento):
    with bento.ask("endless") as one, bento.ask("endless") as other:
        pieces = [answer.read1() for answer in [one, other] * 3]  # in turns
        ends = bento.ends("endless")

    assert all(pieces)
    assert ends == ["open", "open"]
    until(lambda: "open" not in bento.ends("endless"), "the provider is still asked")
    assert bento.ends("endless") == ["client left", "client left"]


def test_a_reader_that_leaves_before_the_first_piece_is_noticed_too(bento):
    body = json.dumps({"prompt": QUESTION, "model": "openai/mute"})
    head = f"POST /ask HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.create_connection(bento.place) as line:
        line.sendall((head + body).encode())
        until(lambda: bento.ends("mute") == ["open"], "the provider was not asked")

    until(lambda: bento.ends("mute") == ["client left"], "the provider is still asked")


def test_a_reader_that_leaves_is_noticed_however_fast_the_stream_is(bento):
    with bento.ask("flood") as answer:
        assert answer.read1()

    until(lambda: bento.ends("flood") == ["client left"], "the provider is still asked")


def test_a_provider_that_says_nothing_is_left_when_bentomls_time_is_up(upstream, tmp_path):
    seconds = "services.Chat.traffic.timeout=1"
    with serving(Bento(tmp_path, upstream, BENTOML_CONFIG_OPTIONS=seconds)) as bento:
        with bento.ask("dumb") as answer:
            status = answer.status
        until(lambda: bento.ends("dumb") == ["client left"], "the provider is still asked")

    assert status == 504


def test_a_refusal_before_the_first_piece_has_the_providers_status(bento):
    with bento.ask("full") as answer:
        said = answer.read().decode()

    assert answer.status == 429
    assert answer.headers["retry-after"] == "7"
    assert "simulated failure" in said


def test_half_an_answer_ends_with_a_mark(bento):
    with bento.ask("torn") as answer:
        text, found, why = answer.read().decode().partition("\n[interrupted: ")

    assert (answer.status, found) == (200, "\n[interrupted: ")
    assert POEM.startswith(text) and "Cats" in text
    assert "interrupted after" in why
    assert why.removesuffix("]\n") in bento.log.read_text()


@pytest.mark.parametrize("query", ["tokens=9", "fault=cut:words=5"])
def test_the_page_shows_what_is_printed(bento, query):
    page = (ROOT / "docs/howto/bentoml.md").read_text("utf-8")
    asked = {"prompt": "Hi", "model": f"sim/demo?ttft=0&tps=0&{query}"}
    with bento.get("/ask", asked) as answer:
        printed = answer.read().decode()

    assert f"\n\n{textwrap.indent(printed.rstrip(), '    ')}\n" in page


def test_the_same_as_events(bento):
    with bento.get("/events", {"prompt": QUESTION}) as answer:
        frames = SseDecoder().feed(answer.read())

    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert spoken(frames) == expected(bento.upstream, "quick")


def spoken(frames):
    """The text in the frames of `/stream` or `sse`, which end with [DONE]."""
    assert frames[-1].data == b"[DONE]"
    return "".join(frame.data.decode() for frame in frames[:-1] if not frame.event)


def test_the_gateway_speaks_to_sdks_below_llm(bento):
    messages = [{"role": "user", "content": QUESTION}]
    asked = {"model": "openai/quick", "messages": messages, "stream": True}
    with bento.get("/llm/v1/chat/completions", asked) as answer:
        chunks = SseDecoder().feed(answer.read())
    choices = [json.loads(chunk.data)["choices"] for chunk in chunks[:-1]]
    text = "".join(found[0]["delta"].get("content") or "" for found in choices if found)

    assert text == expected(bento.upstream, "quick")


def test_the_chat_page_finds_its_files_below_llm(bento):
    with bento.get("/llm/") as answer:
        page = answer.read().decode()
    files = re.findall(r'(?:src|href)="(?!#)(.+?)"', page)

    assert files
    for name in files:
        with bento.get(f"/llm/{name}") as answer:
            assert (name, answer.status) == (name, 200)


def test_without_help_half_an_answer_would_look_whole(upstream, tmp_path):
    """If this fails, BentoML has changed: mend docs/howto/bentoml.md."""
    bento = Bento(tmp_path, upstream)
    (bento.source / "plain.py").write_text(PLAIN)
    with serving(bento, "plain:Plain"), bento.get("/ask", {}) as answer:
        text = answer.read()

    assert (answer.status, text) == (200, b"half an ans")
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"


class EventSource(threading.Thread):
    """A browser's: comes back with Last-Event-ID until it has had the end."""

    def __init__(self, bento, model):
        super().__init__(daemon=True)
        self._bento, self._path = (
            bento,
            f"/llm/stream?prompt={quote(QUESTION)}&model=openai/{model}",
        )
        self.frames, self.visits = [], 0

    def run(self):
        while not (self.frames and self.frames[-1].data == b"[DONE]"):
            with contextlib.suppress(OSError, http.client.HTTPException):  # it is down just now
                self._visit({"last-event-id": self.frames[-1].id} if self.frames else {})
            time.sleep(0.05)

    def _visit(self, last):
        with self._bento.get(self._path, None, **last) as answer:
            self.visits, decoder = self.visits + 1, SseDecoder()
            while data := answer.read1():
                self.frames += [frame for frame in decoder.feed(data) if frame.data]

    def whole(self):
        self.join(PATIENCE)
        return spoken(self.frames)


@pytest.mark.parametrize("victim", ["a worker", "all of it"])
def test_an_answer_goes_on_after_kill_9(upstream, tmp_path, victim):
    with serving(Bento(tmp_path, upstream)) as bento:
        reader = EventSource(bento, "steady")
        reader.start()
        until(lambda: len(reader.frames) > 20, "nothing is said")
        if victim == "a worker":
            os.kill(bento.workers()[0], signal.SIGKILL)  # its supervisor starts another
        else:
            bento.kill()
            bento.start()
        text = reader.whole()

    assert reader.visits > 1
    assert text == expected(upstream, "steady")


def test_two_workers_share_one_file(upstream, tmp_path):
    workers = "services.Chat.workers=2"
    with serving(Bento(tmp_path, upstream, BENTOML_CONFIG_OPTIONS=workers)) as bento:
        both = re.compile(r"entry_service:Chat:([12])\].*path=/llm/stream")
        texts, workers = [], set()

        def heard():
            readers = [EventSource(bento, "quick") for _ in range(4)]
            for reader in readers:
                reader.start()
            texts.extend(reader.whole() for reader in readers)
            workers.update(both.findall(bento.log.read_text()))
            return len(workers) == 2

        until(heard, "one worker does it all")

    assert set(texts) == {expected(upstream, "quick")}


def test_a_bento_is_built_and_served_without_what_is_secret(upstream, tmp_path):
    bento = Bento(tmp_path, upstream, UNBROKEN_STORE=f"sqlite:///{tmp_path}/answers.db")
    wheel(bento.source / "wheels")
    (bento.source / ".env").write_text("GROQ_API_KEY=secret\n")
    (bento.source / "unbroken.db").write_text("answers")
    (bento.source / "bentofile.yaml").write_text("python: {lock_packages: false}\n")  # asks PyPI

    tag = bento.command("build", "--output", "tag").strip().removeprefix("__tag__:")
    listed = json.loads(bento.command("list", "--output", "json"))
    packed = Path(bento.command("get", tag, "--output", "path").strip())
    with serving(bento, tag), bento.ask("quick") as answer:
        text = answer.read().decode()

    assert [one["tag"] for one in listed] == [tag]
    assert {path.name for path in (packed / "src").iterdir()} >= {"service.py", "wheels"}
    assert [path for path in packed.rglob("*") if path.name in (".env", "unbroken.db")] == []
    assert "./wheels/unbroken-" in (packed / "env/python/requirements.txt").read_text()
    assert text == expected(upstream, "quick")


def wheel(folder):
    """This checkout, as the example's requirements.txt names it."""
    build = f"from hatchling.build import build_wheel; build_wheel({str(folder)!r})"
    folder.mkdir()
    subprocess.run([BIN / "python", "-c", build], cwd=ROOT, check=True)
