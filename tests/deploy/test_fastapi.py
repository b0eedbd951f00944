"""The FastAPI example as its users run it: uvicorn, real sockets, kill -9, a browser."""

import contextlib
import http.cookiejar
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from frames import frames_of
from ports import free_port

from unbroken.simulator.app import running
from unbroken.simulator.scenario import Fault, Scenario

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "examples" / "fastapi"
CHROMIUM = next(
    (path for path in ("/usr/bin/chromium", "/usr/bin/google-chrome") if Path(path).exists()), None
)

SCENARIOS = {
    "gpt-x": Scenario(ttft=0.05, tps=60, tokens=120),
    "cut": Scenario(
        ttft=0.02, tps=200, tokens=80, prefill="refuse", faults=(Fault(kind="cut", events=30),)
    ),
    "endless": Scenario(ttft=0.02, tps=20, tokens=5000),
    "down": Scenario(faults=(Fault(kind="status", status=503, message="not today"),)),
}


class App:
    """`uvicorn app:app` on a port that stays the same, to be killed and started again."""

    def __init__(self, folder, upstream, model):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder, self._process = folder, None
        self._env = {"PATH": os.environ["PATH"], "HOME": str(folder), "SESSION_SECRET": "s"}
        self._env |= {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": f"{upstream}/v1", "MODEL": model}
        cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self._opener = urllib.request.build_opener(cookies)

    def start(self):
        options = ["--app-dir", EXAMPLE, "--port", str(self.port), "--log-level", "warning"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", *options, "app:app"], cwd=self._folder, env=self._env
        )
        while self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return self
            time.sleep(0.02)
        raise AssertionError("uvicorn did not start")

    def kill(self, how=signal.SIGKILL):
        self._process.send_signal(how)
        return self._process.wait(20)

    def open(self, path, method="GET", **headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        asked = urllib.request.Request(self.url + path, headers=named, method=method)
        return self._opener.open(asked, timeout=20)

    def sign_in(self, user="ada"):
        self.open(f"/session?user={user}", "POST").close()
        return self

    def follow(self, path, stop=None, **headers):
        """The frames that have data; leaves after `stop` of them."""
        return frames_of(self.open(path, **headers), stop)

    def refused(self, path):
        with pytest.raises(urllib.error.HTTPError) as caught:
            self.open(path)
        with caught.value as error:
            return error.code, json.loads(error.read())


@pytest.fixture
def start(tmp_path):
    with running(SCENARIOS) as upstream, contextlib.ExitStack() as stack:

        def started(model="openai/gpt-x"):
            app = App(tmp_path, upstream, model).start()
            stack.callback(app.kill)
            return app

        started.upstream = upstream
        yield started


def text(frames):
    return "".join(frame.data.decode() for frame in frames if frame.data != b"[DONE]")


def test_a_reader_comes_back_after_the_app_was_killed(start):
    app = start().sign_in()
    first = app.follow("/ask?question=How+do+I+boil+an+egg", stop=8)
    app.kill()
    app.start()
    rest = app.follow("/ask?question=How+do+I+boil+an+egg", last_event_id=first[-1].id)
    stream = first[0].id.split(".")[0]
    whole = app.follow(f"/ask?last_event_id={stream}.0")

    assert text(first) + text(rest) == text(whole)
    assert rest[-1].data == b"[DONE]"
    with app.open(f"/llm/v1/streams/{stream}") as log:
        kept = json.loads(log.read())
    assert kept["text"] == text(whole)
    assert kept["request"]["messages"][0]["role"] == "system"


def test_nobody_else_may_read_it(start):
    app = start()

    assert app.refused("/ask?question=Hi")[0] == 401
    stream = app.sign_in().follow("/ask?question=Hi", stop=1)[0].id.split(".")[0]
    app.sign_in("eve")
    assert app.refused(f"/ask?last_event_id={stream}.0")[0] == 404
    assert app.refused(f"/llm/v1/streams/{stream}")[0] == 404


def test_the_app_stops_in_order_and_another_goes_on(start):
    app = start().sign_in()
    first = app.follow("/ask?question=Hi", stop=5)
    assert app.kill(signal.SIGTERM) in (0, -signal.SIGTERM)
    app.start()
    rest = app.follow("/ask", last_event_id=first[-1].id)

    assert rest[-1].data == b"[DONE]"


def test_data_that_grows(start):
    *growing, done = start().sign_in().follow("/recipe?dish=soup")
    seen = [json.loads(frame.data) for frame in growing]

    assert len(growing) > 5
    assert done.event == "done"
    assert json.loads(done.data) == seen[-1]
    assert {*seen[-1]} == {"title", "minutes", "steps"}
    assert seen[0] != seen[-1]


def test_a_recipe_that_breaks_says_so(start):
    frames = start("openai/cut").sign_in().follow("/recipe?dish=soup")

    assert [frame.event for frame in frames[-2:]] == ["", "failed"]


def test_who_leaves_a_recipe_ends_it_at_the_provider(start):
    start("openai/endless").sign_in().follow("/recipe?dish=soup", stop=3)

    def ended():
        with urllib.request.urlopen(f"{start.upstream}/log") as log:
            return json.loads(log.read())[0]["ended"]

    waiting = time.monotonic() + 10
    while ended() != "client left" and time.monotonic() < waiting:
        time.sleep(0.05)
    assert ended() == "client left"


def test_a_refusal_is_a_status(start):
    app = start("openai/down").sign_in()
    status, said = app.refused("/title?question=Hi")

    assert status == 503
    assert "not today" in said["detail"]


def test_a_whole_answer_and_what_it_took(start):
    with start().sign_in().open("/title?question=Hi") as answer:
        said = json.loads(answer.read())

    assert said["title"]
    assert said["by"] == "gpt-x"


@pytest.mark.skipif(CHROMIUM is None and "CI" not in os.environ, reason="no Chromium")
def test_the_page_after_a_reload_and_a_kill(start):
    from playwright.sync_api import sync_playwright

    app = start()
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(app.url)
        page.fill("input", "How do I boil an egg?")
        page.press("input", "Enter")
        page.wait_for_function("answer.textContent.length > 60")
        page.reload()
        page.wait_for_function("answer.textContent.length > 120")
        app.kill()
        app.start()
        page.wait_for_function("source.readyState === EventSource.CLOSED", timeout=30_000)
        shown, stream = page.text_content("#answer"), page.evaluate("sessionStorage.answer")
        browser.close()
    app.sign_in()
    with app.open(f"/llm/v1/streams/{stream}") as log:
        assert json.loads(log.read())["text"] == shown
