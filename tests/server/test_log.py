"""What a gateway writes down, and what it never does."""

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from ports import free_port
from test_leaving import until

SECRET, KEY = "canary-of-a-prompt", "canary-of-a-key"


class Process:
    """`unbroken serve` with its log."""

    def __init__(self, folder, toml):
        (folder / "unbroken.toml").write_text(toml)
        self.port = free_port()
        self.path = folder / "log"
        with self.path.open("w") as log:
            command = [sys.executable, "-m", "unbroken", "serve", "--port", str(self.port)]
            self.running = subprocess.Popen(
                command, cwd=folder, stdout=subprocess.DEVNULL, stderr=log, env=dict(os.environ)
            )
        until(lambda: self.ask("/healthz")[0] == 200)

    def ask(self, path, body=None, **headers):
        data = None if body is None else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        asked = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, named)
        with contextlib.suppress(urllib.error.URLError):
            try:
                with urllib.request.urlopen(asked, timeout=20) as answer:
                    return answer.status, answer.headers, answer.read()
            except urllib.error.HTTPError as error:
                return error.code, error.headers, error.read()
        return 0, {}, b""

    def lines(self, event):
        """The lines of one kind that are there by now."""
        found = [json.loads(line) for line in self.path.read_text().splitlines()]
        return [line for line in found if line["event"] == event]


@pytest.fixture
def start(tmp_path):
    started = []

    def begin(toml):
        started.append(Process(tmp_path, toml))
        return started[-1]

    yield begin
    for process in started:
        process.running.terminate()
        process.running.wait(20)


CHAT = {"model": "sim/demo?ttft=0&tps=0&tokens=20"}
JSON = "[server]\nstore = 'memory:'\nlog = 'json'\nsimulator = 'open'\n"


def question(text=SECRET):
    return {**CHAT, "messages": [{"role": "user", "content": text}]}


def test_requests_and_answers_are_lines_with_one_id(start):
    gateway = start(JSON)
    _, headers, _ = gateway.ask("/v1/chat/completions", question(), x_request_id="mine-1")
    _, refused, _ = gateway.ask("/v1/chat/completions", {"model": "nobody/x", "messages": []})
    until(lambda: gateway.lines("answer") and len(gateway.lines("request")) >= 2)
    (answer,) = gateway.lines("answer")
    request = next(line for line in gateway.lines("request") if line["id"] == "mine-1")

    assert headers["x-request-id"] == answer["id"] == "mine-1"
    assert refused["x-request-id"].startswith("req_")
    assert (request["path"], request["status"]) == ("/v1/chat/completions", 200)
    assert (answer["state"], answer["output_tokens"], answer["attempts"]) == ("complete", 20, 1)
    assert answer["stream"] == headers["x-unbroken-stream"]


@pytest.mark.parametrize("id", ["two words", "x" * 500, 'a"b'])
def test_an_id_that_could_break_a_log_is_replaced(start, id):
    _, headers, _ = start(JSON).ask("/healthz", x_request_id=id)

    assert headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("style", ["json", "text"])
def test_no_prompt_no_answer_and_no_key_is_written_down(start, style):
    gateway = start(JSON.replace("json", style))
    _, _, said = gateway.ask("/v1/chat/completions", question(), authorization=f"Bearer {KEY}")
    gateway.ask(f"/stream?prompt={SECRET}&model=sim/demo&token={KEY}", x_api_key=KEY)
    gateway.ask("/v1/chat/completions", {"model": f"nobody/{KEY}", "messages": SECRET})
    text = json.loads(said)["choices"][0]["message"]["content"]
    until(lambda: gateway.path.read_text().count("/v1/chat/completions") >= 2)
    time.sleep(0.3)
    log = gateway.path.read_text() + gateway.ask("/metrics")[2].decode()

    assert SECRET not in log
    assert KEY not in log
    assert text[:30] not in log


def test_prompt_and_answer_if_it_is_asked_for(start):
    gateway = start(JSON + "log_content = true\n")
    _, _, said = gateway.ask("/v1/chat/completions", question())
    until(lambda: gateway.lines("answer"))
    (answer,) = gateway.lines("answer")

    assert answer["prompt"] == SECRET
    assert answer["text"] == json.loads(said)["choices"][0]["message"]["content"]


def test_no_log_at_all(start):
    gateway = start(JSON.replace("json", "off"))
    gateway.ask("/v1/chat/completions", question())

    assert gateway.path.read_text() == ""


def test_what_a_caller_says_can_not_move_the_operators_terminal(start):
    gateway = start(JSON.replace("json", "text"))
    gateway.ask("/%1b%5b2J%c2%9b2J%7f%e2%80%ae/caf%c3%a9")
    until(lambda: "2J" in gateway.path.read_text())
    log = gateway.path.read_text()

    assert r'path="/\u001b[2J\u009b2J\u007f\u202e/caf\u00e9"' in log
    assert log.replace("\n", "").isprintable()


def test_probes_write_no_line(start):
    """A load balancer asks every few seconds; their lines have the level `debug`."""
    gateway = start(JSON)
    for path in ("/healthz", "/readyz", "/metrics", "/v1/models"):
        gateway.ask(path)
    until(lambda: gateway.lines("request"))

    assert {line["path"] for line in gateway.lines("request")} == {"/v1/models"}
