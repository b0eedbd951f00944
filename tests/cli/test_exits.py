"""Exit codes, and that nothing ever ends in a traceback."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from unbroken import errors
from unbroken.cli._exits import exit_code
from unbroken.simulator.app import running

CODES = [
    (["ask"], 2, "nothing to ask"),
    (["ask", " "], 2, "nothing to ask"),
    (["ask", "x", "--temperature", "hot"], 2, "'hot' is not a number"),
    (["ask", "x", "--temperature", "nan"], 2, "'nan' is not a number"),
    (["ask", "x", "--max-tokens", "0"], 2, "whole number from 1"),
    (["ask", "x", "--timeout", "0"], 2, "more than 0 seconds"),
    (["ask", "x", "-m", "opnai/gpt"], 2, "Did you mean 'openai'"),
    (["ask", "x", "-m", "mystery"], 2, "openai/mystery"),
    (["ask", "x", "-m", "openai/gpt-4o"], 3, "Set OPENAI_API_KEY"),
    (["ask", "x", "-m", "sim/m?fault=status:status=401"], 3, "401"),
    (["ask", "x", "-m", "sim/m?fault=status:status=403"], 3, "403"),
    (["ask", "x", "-m", "sim/m?fault=status:status=429,retry_after=99"], 4, "retry after 99 s"),
    (["ask", "x", "-m", "sim/m?fault=status:status=400"], 5, "400"),
    (["ask", "x", "-m", "sim/m?fault=status:status=404"], 5, "404"),
    (["ask", "x", "-m", "sim/m?nonsense=1"], 5, "nonsense"),
    (["ask", "x", "-m", "sim/m?fault=silent", "--timeout", "0.2"], 6, "timed out after 0.2 s"),
    (["ask", "x", "-m", "sim/m?ttft=0&fault=cut:events=3"], 7, "interrupted"),
    (["check"], 2, "OPENAI_API_KEY"),
    (["check", "nobody"], 2, "nobody"),
    (["simulate", "--scenarios", "nowhere.toml"], 2, "nowhere.toml"),
    (["simulate", "--port", "65536"], 2, "65536"),
    (["nonsense"], 2, "nonsense"),
    ([], 2, "COMMAND"),
]


@pytest.mark.parametrize(("arguments", "code", "said"), CODES, ids=lambda v: str(v)[:60])
def test_each_failure_has_its_code_and_no_traceback(unbroken, arguments, code, said):
    done = unbroken(*arguments)

    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("where", [[], ["-s"], ["-m"], ["--fallback"]])
def test_bytes_that_are_no_text_are_told_by_the_argument(unbroken, where):
    done = unbroken("ask", *(["x", *where] if where else []), b"caf\xe9")

    assert done.returncode == 2
    assert "is not UTF-8" in done.stderr
    assert "unexpected" not in done.stderr


CLOSED = """
import os, sys
os.close(int(sys.argv[1]))
os.execv(sys.executable, [sys.executable, "-m", "unbroken", *sys.argv[2:]])
"""
ANSWER = ["ask", "x", "-m", "sim/m?ttft=0&tps=0&tokens=3"]


def without(env, folder, descriptor, arguments):
    """A command that was started with a closed descriptor."""
    command = [sys.executable, "-c", CLOSED, str(descriptor), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env, timeout=60)


@pytest.mark.parametrize("arguments", [ANSWER, [*ANSWER, "--json"], ["chat"], ["bench", "-n", "1"]])
def test_a_closed_standard_output_is_one_line(env, tmp_path, arguments):
    done = without(env, tmp_path, 1, arguments)

    assert done.returncode == 2
    assert done.stderr == "unbroken: standard output is closed. Leave out >&-, or give a file.\n"


def test_a_closed_standard_error_keeps_notices_out_of_the_answer(env, tmp_path):
    done = without(env, tmp_path, 2, ANSWER)
    refused = without(env, tmp_path, 2, ["ask", "x", "-m", "opnai/gpt"])

    assert (done.returncode, "simulated" in done.stdout) == (0, False)
    assert done.stdout.strip() != ""
    assert (refused.returncode, refused.stdout) == (2, "")


ROWS = [
    (errors.ConfigurationError(), 2),
    (errors.LocalProtocolError(), 2),
    (errors.AuthenticationFailed(), 3),
    (errors.PermissionDenied(), 3),
    (errors.QuotaExhausted(), 4),
    (errors.Overloaded(), 5),
    (errors.RemoteProtocolError(), 5),
    (errors.ConnectionLost(), 6),
    (errors.StreamInterrupted(), 7),
    (errors.StoreError(), 1),
    (KeyError(), 1),
    (KeyboardInterrupt(), 130),
    (BrokenPipeError(), 0),
]


@pytest.mark.parametrize(("error", "code"), ROWS, ids=lambda v: type(v).__name__)
def test_the_narrowest_row_decides(error, code):
    assert exit_code(error) == code


def test_nobody_listening_has_its_own_code(unbroken):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{sock.getsockname()[1]}/v1"
        done = unbroken("ask", "x", "-m", "m", "--base-url", url, "--timeout", "5")

    assert done.returncode == 6
    assert "Check the network" in done.stderr


def ended(url):
    """How the server's last answer ended, as soon as it has."""
    for _ in range(200):
        with urllib.request.urlopen(f"{url}/log") as answer:
            how = json.load(answer)[-1]["ended"]
        if how != "open":
            return how
        time.sleep(0.05)
    return "open"


LONG = ["ask", "x", "-m", "openai/m?ttft=0&tps=30&tokens=900"]


@pytest.fixture
def upstream():
    """A real server, as the environment of a command, and its URL."""
    with running() as url:
        yield {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": f"{url}/v1"}, url


@pytest.mark.parametrize("how", [[], ["--json"]])
def test_a_closed_pipe_ends_quietly_and_closes_upstream(started, upstream, how):
    setting, url = upstream
    program = started(*LONG, *how, **setting)
    program.stdout.read(5)
    program.stdout.close()

    assert program.stderr.read() == b""
    assert program.wait(20) == 0
    assert ended(url) == "client left"


@pytest.mark.parametrize("arguments", [["--help"], ["models"], ["ask", "--help"]])
def test_a_pipe_that_nobody_reads_is_no_fault(started, arguments):
    program = started(*arguments)
    program.stdout.close()

    assert program.stderr.read() == b""
    assert program.wait(20) == 0


def test_control_c_ends_with_130_and_closes_upstream(started, upstream):
    setting, url = upstream
    program = started(*LONG, **setting)
    program.stdout.read(5)
    program.send_signal(signal.SIGINT)
    shown, said = program.communicate(timeout=20)

    assert (program.returncode, said) == (130, b"")
    assert shown.endswith(b"\n")
    assert ended(url) == "client left"


def test_control_c_before_the_first_token_ends_the_same(started, upstream):
    setting, url = upstream
    program = started("ask", "x", "-m", "openai/m?ttft=60", **setting)
    while not json.load(urllib.request.urlopen(f"{url}/log")):
        time.sleep(0.05)
    program.send_signal(signal.SIGINT)
    shown, said = program.communicate(timeout=20)

    assert (program.returncode, shown, said) == (130, b"", b"")
    assert ended(url) == "client left"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(("setting", "traced"), [({}, False), ({"UNBROKEN_DEBUG": "1"}, True)])
def test_a_full_disk_is_one_line_and_debug_shows_where(env, tmp_path, setting, traced):
    command = [sys.executable, "-m", "unbroken", "models"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=env | setting
        )

    assert done.returncode != 0
    assert "No space left" in done.stderr
    assert ("Traceback" in done.stderr) is traced


def test_the_help_names_the_commands_and_the_codes(unbroken):
    shown = unbroken("--help").stdout

    assert [c for c in ("ask", "chat", "check", "models", "simulate") if c not in shown] == []
    assert "130  Ctrl-C" in shown


def test_the_version_is_said(unbroken):
    assert unbroken("--version").stdout.startswith("unbroken ")


HELP = """
import sys, unbroken.cli
try:
    unbroken.cli.main(["--help"])
except SystemExit:
    print(*sys.modules)
"""


def test_the_help_loads_nothing_heavy(env):
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, env=env)
    loaded = set(done.stdout.split())

    assert "argparse" in loaded
    assert loaded & {"asyncio", "aiohttp", "urllib3", "rich", "prompt_toolkit", "dotenv"} == set()
