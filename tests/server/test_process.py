"""The gateway as a process: workers, signals, TLS, unix sockets, slow clients, connections."""

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest
import settings_page
from ports import free_port

from unbroken.errors import ConfigurationError
from unbroken.server.settings import Settings, load

ASK = {"messages": [{"role": "user", "content": "Tell me about cats."}]}


class Process:
    """`unbroken serve`, with what it prints and logs in `folder/log`."""

    def __init__(self, folder, *options, **env):
        self.port, self.folder, self.options, self.env = free_port(), folder, options, env

    def __enter__(self):
        env = {k: v for k, v in os.environ.items() if not k.endswith(("_API_KEY", "_BASE_URL"))}
        command = [sys.executable, "-m", "unbroken", "serve", "--port", str(self.port)]
        with (self.folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                [*command, *self.options],
                cwd=self.folder,
                env={**env, "UNBROKEN_SIMULATOR": "open", **self.env},
                stdout=log,
                stderr=log,
            )
        self.wait_for("answers on ")
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)

    def log(self):
        return (self.folder / "log").read_text()

    def wait_for(self, text, count=1):
        until(lambda: self.log().count(text) >= count or self.process.poll() is not None)
        assert self.log().count(text) >= count, self.log()

    def workers(self):
        found = subprocess.run(
            ["pgrep", "-f", "spawn_main", "-P", str(self.process.pid)],
            capture_output=True,
            text=True,
        )
        return [int(line) for line in found.stdout.split()]

    def ask(self, method="GET", path="/healthz", body=None, connection=None, **headers):
        one = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(one):
            data = None if body is None else json.dumps(body)
            one.request(method, path, data, {k.replace("_", "-"): v for k, v in headers.items()})
            answer = one.getresponse()
            return answer.status, answer.read()


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    assert condition()


@pytest.fixture
def config(tmp_path):
    return lambda text: (tmp_path / "unbroken.toml").write_text(text)


@pytest.mark.slow
def test_another_worker_finishes_the_answer_of_a_killed_one(tmp_path):
    with Process(tmp_path, "--workers", "2") as gateway:
        body = {"model": "sim/demo?tokens=120&tps=40", **ASK}
        answers = [json.loads(gateway.ask("POST", "/v1/streams", body)[1])["id"] for _ in range(8)]
        time.sleep(0.5)
        os.kill(gateway.workers()[0], signal.SIGKILL)
        gateway.wait_for("worker_died")

        for stream in answers:
            until(lambda: state_of(gateway, stream) != "open")
            assert state_of(gateway, stream) == "complete"
        until(lambda: len(gateway.workers()) == 2)
        gateway.process.terminate()
        assert gateway.process.wait(30) == 0


def state_of(gateway, stream):
    with contextlib.suppress(OSError, http.client.HTTPException):
        return json.loads(gateway.ask("GET", f"/v1/streams/{stream}")[1])["state"]
    return "open"


@pytest.mark.slow
def test_workers_end_with_a_supervisor_that_is_killed(tmp_path):
    with Process(tmp_path, "--workers", "2") as gateway:
        workers = gateway.workers()
        gateway.process.kill()
        gateway.process.wait()

        until(lambda: not any(alive(worker) for worker in workers))


def alive(pid):
    with contextlib.suppress(OSError):
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return False


@pytest.mark.slow
def test_hangup_reloads_models_and_limits_and_keeps_open_answers(tmp_path, config):
    config('[server]\nmodels = ["sim/demo?tokens=60&tps=20"]\n')
    with Process(tmp_path) as gateway:
        slow = {"model": "sim/demo?tokens=60&tps=20", **ASK}
        stream = json.loads(gateway.ask("POST", "/v1/streams", slow)[1])["id"]
        config('[server]\nmodels = ["sim/other"]\nport = 1\n')
        gateway.process.send_signal(signal.SIGHUP)
        gateway.wait_for("reloaded")

        assert gateway.ask("POST", "/v1/streams", slow)[0] == 404
        assert gateway.ask("POST", "/v1/streams", {"model": "sim/other", **ASK})[0] == 201
        until(lambda: state_of(gateway, stream) != "open")
        assert state_of(gateway, stream) == "complete"

        config("[server]\nmodels = 5\n")
        gateway.process.send_signal(signal.SIGHUP)
        gateway.wait_for("reload_failed")
        assert "line 2" in gateway.log()
        assert gateway.ask("POST", "/v1/streams", {"model": "sim/other", **ASK})[0] == 201


@pytest.mark.slow
def test_tls_and_a_unix_socket(tmp_path):
    cert, key = certificate(tmp_path)
    with Process(tmp_path, "--ssl-certfile", cert, "--ssl-keyfile", key) as gateway:
        context = ssl.create_default_context(cafile=cert)
        secure = http.client.HTTPSConnection("localhost", gateway.port, context=context)
        assert gateway.ask(connection=secure)[0] == 200
        assert f"https://127.0.0.1:{gateway.port}" in gateway.log()

    path = str(tmp_path / "socket")
    for _ in range(2):  # the second one finds the socket file of the first
        with Process(tmp_path, "--uds", path) as gateway:
            local = http.client.HTTPConnection("localhost")
            local.sock = socket.socket(socket.AF_UNIX)
            local.sock.connect(path)
            assert gateway.ask(connection=local)[0] == 200


def certificate(folder):
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(
        [*command, *subject, "-keyout", key, "-out", cert], check=True, capture_output=True
    )
    return cert, key


def test_a_certificate_that_is_not_there_is_one_line(tmp_path):
    command = [sys.executable, "-m", "unbroken", "serve", "--ssl-certfile", "missing.pem"]
    done = subprocess.run(
        [*command, "--port", str(free_port())], cwd=tmp_path, capture_output=True, text=True
    )

    assert done.returncode == 2
    assert "ssl_certfile='missing.pem'" in done.stderr
    assert "No such file" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_slow_and_silent_clients_are_disconnected_and_harm_nobody(tmp_path):
    limits = {"UNBROKEN_TIMEOUT_HEAD": "1", "UNBROKEN_TIMEOUT_BODY": "1"}
    with Process(tmp_path, **limits) as gateway:
        heads = [b"", b"GET /healthz HTT", b"\r\n", b"GET / HTTP/1.1\r\nhost: x\r\nx-half: "]
        body = b"POST /v1/streams HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99\r\n\r\n{"
        held = [connected(gateway.port, data) for data in [*heads, body] * 40]
        status = gateway.ask()[0]
        answers = [received(one) for one in held]

        assert status == 200
        assert set(answers) == {b"HTTP/1.1 408 Request Timeout"}


@pytest.mark.slow
def test_no_more_connections_than_the_limits(tmp_path):
    limits = {
        "UNBROKEN_MAX_CONNECTIONS_PER_CLIENT": "5",
        "UNBROKEN_FORWARDED_ALLOW_IPS": "10.0.0.1",
    }
    with Process(tmp_path, **limits) as gateway:
        held = [connected(gateway.port, b"GET / HTTP/1.1\r\n") for _ in range(5)]
        status = gateway.ask()[0]
        held.pop().close()
        until(lambda: gateway.ask()[0] == 200)

        assert status == 503
        for one in held:
            one.close()


def connected(port, data):
    one = socket.create_connection(("127.0.0.1", port), timeout=20)
    one.sendall(data)
    return one


def received(one):
    """The status line of whatever comes until the server closes the connection."""
    with one:
        data = b""
        with contextlib.suppress(OSError):
            while part := one.recv(65536):
                data += part
    return data.partition(b"\r\n")[0]


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("workers = 0", "workers=0 must be a finite number above 0"),
        ('workers = 2\nstore = "memory:"', "workers=2 need a shared store"),
        ('ssl_keyfile = "k"', "ssl_keyfile needs ssl_certfile"),
        ("timeout_head = -1.0", "timeout_head=-1.0 must be"),
        ('keep_days = "always"', "keep_days"),
    ],
)
def test_wrong_settings_are_named(tmp_path, config, table, problem):
    config(f"[server]\n{table}\n")

    with pytest.raises(ConfigurationError, match=problem):
        load({}, {}, str(tmp_path))


def test_answers_are_kept_30_days_unless_the_settings_choose_otherwise():
    assert Settings().retention == 30
    assert Settings(keep_days="forever").retention is None
    assert load({"UNBROKEN_KEEP_DAYS": "7"}, {}).retention == 7
    assert load({"UNBROKEN_KEEP_DAYS": "forever"}, {}).retention is None


def test_the_page_of_settings_is_generated_from_them():
    assert settings_page.PAGE.read_text("utf-8") == settings_page.page()
