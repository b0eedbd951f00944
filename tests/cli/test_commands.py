"""The real command, in real processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from unbroken.cli._history import fitting, tokens
from unbroken.cli._markdown import split
from unbroken.messages import Message, Text
from unbroken.simulator.app import running

FAST = "sim/demo?ttft=0&tps=0&tokens=30"


@pytest.fixture
def env(tmp_path):
    """No key, no .env, no history of the developer's."""
    kept = {k: v for k, v in os.environ.items() if not k.endswith(("_API_KEY", "_BASE_URL"))}
    return {**kept, "XDG_STATE_HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.fixture
def unbroken(env, tmp_path):
    def run(*arguments, stdin="", **more):
        command = [sys.executable, "-m", "unbroken", *arguments]
        return subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=env | more,
            timeout=60,
        )

    return run


def test_the_answer_goes_to_stdout_and_everything_else_to_stderr(unbroken):
    done = unbroken("ask", "Explain the TCP handshake.", "-m", FAST, "--stats")

    assert done.returncode == 0
    assert "SYN" in done.stdout
    assert done.stdout.endswith("\n")
    assert "simulated answer" in done.stderr
    assert "first token" in done.stderr
    assert "simulated" not in done.stdout


def test_without_a_key_the_simulator_answers_and_says_so(unbroken):
    done = unbroken("ask", "Say it in 1 sentence.")

    assert done.stdout.strip()
    assert "no key found; set OPENAI_API_KEY" in done.stderr


def test_a_key_in_dotenv_is_used(unbroken, tmp_path):
    with running() as url:
        tmp_path.joinpath(".env").write_text(f"OPENAI_API_KEY=k\nOPENAI_BASE_URL={url}/v1\n")
        done = unbroken("ask", "cats", "--stats")

    assert "openai/gpt-6-luna" in done.stderr
    assert "simulated answer" not in done.stderr


def test_prompt_and_standard_input_are_joined(unbroken):
    both = unbroken("ask", "lions", "-m", FAST, stdin="zebra")
    piped = unbroken("ask", "-m", FAST, stdin="zebra")

    assert "lions" in both.stdout
    assert "zebra" in both.stdout
    assert "zebra" in piped.stdout


def test_json_is_one_event_a_line(unbroken):
    done = unbroken("ask", "cats", "-m", FAST, "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]

    assert events[0]["type"] == "message_start"
    assert events[-1]["type"] == "message_end"
    assert "".join(e["text"] for e in events if e["type"] == "text_delta")


def test_no_stream_says_the_same(unbroken):
    assert (
        unbroken("ask", "cats", "-m", FAST).stdout
        == unbroken("ask", "cats", "-m", FAST, "--no-stream").stdout
    )
    assert (
        json.loads(unbroken("ask", "cats", "-m", FAST, "--no-stream", "--json").stdout)["end"]
        == "complete"
    )


def test_an_answer_cut_by_the_limit_is_told(unbroken):
    done = unbroken("ask", "cats", "-m", FAST, "--max-tokens", "3")

    assert "limit of tokens" in done.stderr


CODES = [
    (["ask"], 2, "nothing to ask"),
    (["ask", "x", "--temperature", "hot"], 2, "hot"),
    (["ask", "x", "-m", "opnai/gpt"], 2, "Did you mean 'openai'"),
    (["ask", "x", "-m", "mystery"], 2, "openai/mystery"),
    (["ask", "x", "-m", "openai/gpt-4o"], 3, "Set OPENAI_API_KEY"),
    (["ask", "x", "-m", "sim/m?fault=status:status=401"], 3, "401"),
    (["ask", "x", "-m", "sim/m?fault=status:status=429,retry_after=99"], 4, "retry after 99 s"),
    (["ask", "x", "-m", "sim/m?fault=status:status=400"], 5, "400"),
    (["ask", "x", "-m", "sim/m?ttft=0&fault=cut:events=3"], 7, "interrupted"),
    (["ask", "x", "-m", "sim/m?nonsense=1"], 5, "nonsense"),
    (["check"], 2, "OPENAI_API_KEY"),
    (["simulate", "--scenarios", "nowhere.toml"], 2, "nowhere.toml"),
]


@pytest.mark.parametrize(
    ("arguments", "code", "said"), CODES, ids=lambda v: " ".join(v) if isinstance(v, list) else ""
)
def test_each_failure_has_its_code_and_no_traceback(unbroken, arguments, code, said):
    done = unbroken(*arguments)

    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_nobody_listening_has_its_own_code(unbroken):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{sock.getsockname()[1]}/v1"
        done = unbroken(
            "ask", "x", "-m", "openai/m", "--base-url", url, "--timeout", "5", OPENAI_API_KEY="k"
        )

    assert done.returncode == 6
    assert "Check the network" in done.stderr


def left(url):
    """Whether the server has noticed that its client left."""
    for _ in range(100):
        with urllib.request.urlopen(f"{url}/log") as answer:
            if json.load(answer)[-1]["ended"] == "client left":
                return True
        time.sleep(0.05)
    return False


LONG = ["ask", "x", "-m", "openai/m?ttft=0&tps=30&tokens=900"]


def test_a_closed_pipe_ends_quietly_and_closes_upstream(env, tmp_path):
    with running() as url:
        command = [sys.executable, "-m", "unbroken", *LONG, "--json", "--base-url", f"{url}/v1"]
        program = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            env=env | {"OPENAI_API_KEY": "k"},
        )
        program.stdout.readline()
        program.stdout.close()
        errors = program.stderr.read().decode()
        program.stderr.close()

        assert (program.wait(20), errors) == (0, "")
        assert left(url)


def test_control_c_ends_with_130_and_closes_upstream(env, tmp_path):
    with running() as url:
        command = [sys.executable, "-m", "unbroken", *LONG, "--base-url", f"{url}/v1"]
        program = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            env=env | {"OPENAI_API_KEY": "k"},
        )
        program.stdout.read(5)
        program.send_signal(signal.SIGINT)
        _, errors = program.communicate(timeout=20)

        assert program.returncode == 130
        assert b"Traceback" not in errors
        assert left(url)


def test_simulate_serves_until_control_c(env, tmp_path):
    command = [sys.executable, "-m", "unbroken", "simulate", "--port", "0"]
    program = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=env
    )
    url = program.stdout.readline().split()[3].rstrip(";")
    with urllib.request.urlopen(f"{url}/v1/models") as answer:
        models = json.load(answer)["data"]
    program.send_signal(signal.SIGINT)
    _, errors = program.communicate(timeout=20)

    assert len(models) > 3
    assert (program.returncode, errors) == (130, "")


def test_check_says_what_is_wrong_with_each(unbroken):
    with running() as url:
        done = unbroken(
            "check",
            "openai",
            "openai/m?fault=status:status=401",
            OPENAI_API_KEY="k",
            OPENAI_BASE_URL=f"{url}/v1",
        )
    lines = done.stdout.splitlines()

    assert done.returncode == 3
    assert "ok" in lines[1]
    assert "wrong key" in lines[2]


def test_models_shows_which_key_is_set_and_never_the_key(unbroken):
    done = unbroken("models", ANTHROPIC_API_KEY="sk-secret")

    assert "ANTHROPIC_API_KEY is set" in done.stdout
    assert "sk-secret" not in done.stdout
    assert "used when none is named: anthropic/" in done.stdout


def test_chat_remembers_and_obeys(unbroken):
    lines = (
        "what of zebras?\n/model sim/gpt-4o?ttft=0&tps=0\n/nonsense\nand of lions?\n/quit\nnever\n"
    )
    done = unbroken("chat", "-m", FAST, stdin=lines)

    assert done.returncode == 0
    assert "zebras" in done.stdout
    assert "lions" in done.stdout
    assert "model: sim/gpt-4o" in done.stderr
    assert "no such command: /nonsense" in done.stderr


def turn(role, text):
    return Message(role, (Text(text),))


def test_the_oldest_turns_go_first_and_the_system_message_stays():
    system, last = turn("system", "s" * 40), turn("user", "new")
    turns = [system, turn("user", "a" * 400), turn("assistant", "b" * 400), last]

    assert fitting(turns, 10_000) == turns
    assert fitting(turns, 100) == [system, last]
    assert fitting(turns, 1) == [system, last]


def test_a_history_never_begins_with_an_answer():
    turns = [turn("user", "a" * 400), turn("assistant", "b"), turn("user", "c")]

    assert fitting(turns, tokens(turns[1]) + tokens(turns[2]) + 1) == turns[2:]


def test_a_block_of_markdown_is_finished_at_an_empty_line_outside_code():
    assert split("one\n\ntwo") == ("one\n\n", "two")
    assert split("```\na\n\nb") == ("", "```\na\n\nb")
    assert split("```\na\n\n```\n\nx") == ("```\na\n\n```\n\n", "x")
