"""`unbroken ask`: the answer on stdout, everything else on stderr."""

import json
import re

import pytest

from unbroken.cli._terminal import harmless
from unbroken.simulator.app import running

FAST = "sim/demo?ttft=0&tps=0&tokens=30"
NO_KEY = "simulated answer: no key found; set OPENAI_API_KEY or ANTHROPIC_API_KEY"


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
    assert NO_KEY in done.stderr


def test_a_chosen_simulator_says_only_that_it_is_one(unbroken):
    chosen = unbroken("ask", "cats", "-m", FAST)
    preset = unbroken("ask", "cats", UNBROKEN_MODEL=FAST)

    assert chosen.stderr == preset.stderr == "simulated answer\n"


def test_a_key_in_dotenv_is_used(unbroken, tmp_path):
    with running() as url:
        tmp_path.joinpath(".env").write_text(f"OPENAI_API_KEY=k\nOPENAI_BASE_URL={url}/v1\n")
        done = unbroken("ask", "cats", "--stats")

    assert "openai/gpt-6-luna" in done.stderr
    assert "simulated answer" not in done.stderr


def test_an_anthropic_key_is_enough(unbroken):
    with running() as url:
        done = unbroken("ask", "cats", "--stats", ANTHROPIC_API_KEY="k", ANTHROPIC_BASE_URL=url)

    assert done.stdout.strip()
    assert "anthropic/claude" in done.stderr


def test_a_base_url_needs_a_model_that_is_there(unbroken):
    done = unbroken("ask", "cats", "--base-url", "http://127.0.0.1:9/v1")

    assert done.returncode == 2
    assert "--model NAME" in done.stderr


def test_prompt_and_standard_input_are_joined(unbroken):
    both = unbroken("ask", "lions", "-m", FAST, stdin="zebra")
    piped = unbroken("ask", "-m", FAST, stdin="zebra")

    assert "lions" in both.stdout
    assert "zebra" in both.stdout
    assert "zebra" in piped.stdout


def test_standard_input_in_another_encoding_is_no_failure(unbroken):
    done = unbroken("ask", "-m", FAST, stdin="café".encode("latin-1"))

    assert done.returncode == 0
    assert done.stdout


def test_the_system_message_is_part_of_the_question(unbroken):
    plain = unbroken("ask", "cats", "-m", FAST)
    pirate = unbroken("ask", "cats", "-m", FAST, "-s", "You are a pirate.")

    assert plain.stdout != pirate.stdout


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


def test_no_stream_as_json_is_one_object(unbroken):
    done = unbroken("ask", "cats", "-m", FAST, "--no-stream", "--json")
    answer = json.loads(done.stdout)

    assert done.stdout.count("\n") == 1
    assert (answer["end"], answer["choices"][0]["finish_reason"]) == ("complete", "stop")
    assert answer["usage"]["output_tokens"] == 30


@pytest.mark.parametrize("streamed", [[], ["--no-stream"]])
def test_an_answer_cut_by_the_limit_is_told(unbroken, streamed):
    done = unbroken("ask", "cats", "-m", FAST, "--max-tokens", "3", *streamed)

    assert done.returncode == 0
    assert "limit of tokens (--max-tokens)" in done.stderr


ONE_FAILURE = "sim/m?ttft=0&tps=0&tokens=9&fault=status:status=429,retry_after=0,times=1"


def test_a_retry_is_told_only_to_who_wants_to_know(unbroken):
    told, quiet = (
        unbroken("ask", "x", "-m", ONE_FAILURE, "--stats"),
        unbroken("ask", "x", "-m", ONE_FAILURE),
    )

    assert told.stdout == quiet.stdout != ""
    assert re.search(r"trying again in \d\.\d s: 429", told.stderr)
    assert "2 attempts" in told.stderr
    assert "trying again" not in quiet.stderr


def test_what_came_of_a_broken_answer_stays_on_stdout(unbroken):
    done = unbroken("ask", "cats", "-m", "sim/m?ttft=0&tps=0&fault=cut:events=3")

    assert done.returncode == 7
    assert done.stdout.endswith("\n")
    assert len(done.stdout) > 3
    assert done.stderr.splitlines()[-1].startswith("unbroken: sim/m")


def test_on_a_terminal_the_stats_are_a_dim_line(terminal):
    shown = terminal("ask", "cats", "-m", FAST).rest()

    assert "\x1b[2msim/demo · first token" in shown


@pytest.mark.parametrize("setting", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_who_wants_no_colour_gets_none(terminal, setting):
    shown = terminal("ask", "cats", "-m", FAST, **setting).rest()

    assert "first token" in shown
    assert "\x1b[" not in shown


def test_an_answer_can_not_command_the_terminal(terminal):
    shown = terminal("ask", "x", "-m", "sim/m?ttft=0&text=a%1b]0;title%07b", "--no-stats").rest()

    assert "a]0;titleb" in shown
    assert harmless("a\x1b[2Jb\tc\nd\x9be\r") == "a[2Jb\tc\nde"


def test_a_pipe_gets_the_answer_as_it_is(unbroken):
    done = unbroken("ask", "x", "-m", "sim/m?ttft=0&text=a%1b[2Jb")

    assert done.stdout == "a\x1b[2Jb\n"


WORDS = "sim/{}?ttft=0&tps=0"


def test_a_cut_answer_comes_whole_and_one_dim_line_says_so(unbroken):
    done = unbroken("ask", "cats", "-m", WORDS.format("cut-after-40-words"))
    calm = unbroken("ask", "cats", "-m", WORDS.format("cut-after-40-words") + "&fault=no_done:")

    assert done.returncode == 0
    assert done.stdout == calm.stdout
    assert [line for line in done.stderr.splitlines() if "cut" in line] == [
        "the answer was cut once and went on (continue by sim/cut-after-40-words?ttft=0&tps=0)"
    ]


def test_another_model_answers_when_the_first_is_down(unbroken):
    done = unbroken("ask", "cats", "-m", "sim/down", "--fallback", FAST, "--stats")

    assert done.returncode == 0
    assert done.stdout
    assert "sim/demo" in done.stderr
    assert "answers instead: sim/down" in done.stderr or "answers instead: 503" in done.stderr


def test_json_tells_of_every_attempt(unbroken):
    done = unbroken("ask", "cats", "-m", "sim/broken-once", "--no-stream", "--json")
    attempts = json.loads(done.stdout)["attempts"]

    assert [bool(attempt["error"]) for attempt in attempts] == [True, False]
    assert attempts[0]["status"] == 500


def test_a_wrong_configuration_file_is_told_in_one_line(unbroken, tmp_path):
    (tmp_path / "unbroken.toml").write_text("[routes]\nfast = 3\n")
    done = unbroken("ask", "cats", "-m", FAST)

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("unbroken: unbroken.toml")
