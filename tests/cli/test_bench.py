"""`bench`: the arithmetic by itself, and the command as a real process."""

import json
import signal
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.cli._benchpage import page
from unbroken.cli._measured import Sample, figures, percentile, spread

QUICK = "sim/{}?ttft=0.01&tps=2000&tokens=20"


@pytest.mark.parametrize(
    ("values", "percent", "value"),
    [
        ([1.0], 99, 1.0),
        ([1.0, 2.0], 50, 1.5),
        ([4.0, 1.0, 3.0, 2.0], 50, 2.5),
        ([0.0, 10.0], 95, 9.5),
    ],
)
def test_percentiles_are_interpolated(values, percent, value):
    assert percentile(values, percent) == pytest.approx(value)


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_percentiles_stay_within_the_samples_and_rise(values):
    told = spread(values)

    assert min(values) <= told[0] <= told[1] <= told[2] <= max(values)


def test_figures_follow_their_definitions():
    samples = [
        Sample(first=0.2, gaps=(0.1, 0.3), per_token=0.05, duration=1.0, tokens=10, cost=0.5),
        Sample(first=0.4, gaps=(0.2,), per_token=0.1, duration=3.0, tokens=20, cost=0.25),
        Sample(error="Overloaded", reason="full"),
        Sample(error="Overloaded", reason="again"),
    ]
    told = figures("openai/x", samples, 3.0, [Sample(duration=2.0)])

    assert told.ttft[0] == pytest.approx(0.3)
    assert told.itl[0] == pytest.approx(0.2)
    assert told.tpot[0] == pytest.approx(0.075)
    assert told.e2e[0] == pytest.approx(2.0)
    assert (told.tokens, told.throughput) == (30, 10.0)
    assert (told.requests, told.failed, told.errors) == (4, 2, {"Overloaded": 2})
    assert told.first_reasons == {"Overloaded": "full"}
    assert told.cost == 0.75
    assert told.whole == (2.0, 2.0, 2.0)


def test_a_cost_that_is_not_known_for_all_is_not_known():
    told = figures("x", [Sample(cost=1.0, tokens=1), Sample(tokens=1)], 1.0)

    assert told.cost is None
    assert figures("x", [], 0.0).ttft == ()


def test_the_page_needs_nothing_from_elsewhere_and_escapes_names():
    samples = {"<b>": [Sample(first=0.1, gaps=(0.1,)), Sample(first=0.3)]}
    told = [figures("<b>", samples["<b>"], 1.0)]
    said = page([("", "<b>"), ("TTFT", "1")], told, samples)

    assert "<b>" not in said
    assert "http" not in said.replace("http-equiv", "")
    assert said.count("<polyline") == 2


def test_models_are_measured_side_by_side(unbroken, tmp_path):
    one, other = QUICK.format("one"), QUICK.format("other")
    done = unbroken("bench", "-m", one, "-m", other, "-n", "3", "-c", "2", "--html", "page.html")

    assert done.returncode == 0
    assert "(simulated)" in done.stdout
    assert "TTFT p50 / p95 / p99" in done.stdout
    assert "simulated" in done.stderr
    assert "<polyline" in (tmp_path / "page.html").read_text()


def test_json_holds_the_figures_and_nothing_else(unbroken):
    spaced = "sim/x?ttft=0.01&tps=50&tokens=20"  # in several reads, so that there are intervals
    done = unbroken("bench", "-m", spaced, "-n", "3", "--json", "--compare-whole")
    (told,) = json.loads(done.stdout)

    assert (told["requests"], told["failed"], told["tokens"]) == (3, 0, 60)
    assert len(told["ttft"]) == len(told["itl"]) == len(told["whole"]) == 3
    assert told["simulated"]


def test_failures_and_recovered_cuts_are_counted(unbroken):
    cut = QUICK.format("cut") + "&fault=cut:events=5,times=2"
    down = QUICK.format("down") + "&fault=status:status=400,message=nope"
    done = unbroken("bench", "-m", cut, "-m", down, "-n", "4", "-c", "1", "--warmup", "0", "--json")
    first, second = json.loads(done.stdout)

    assert (first["failed"], first["recovered"]) == (0, 1)
    assert (second["failed"], second["errors"]) == (4, {"BadRequest": 4})
    assert "nope" in done.stderr


@pytest.mark.parametrize(("status", "code"), [(400, 5), (401, 3), (429, 4)])
def test_if_no_answer_came_at_all_the_code_says_why(unbroken, status, code):
    down = QUICK.format("down") + f"&fault=status:status={status},retry_after=99"
    done = unbroken("bench", "-m", down, "-n", "2", "--warmup", "0")

    assert done.returncode == code
    assert "2, 2" in done.stdout


def test_prompts_come_from_a_file_in_turn(unbroken, tmp_path):
    (tmp_path / "prompts.txt").write_text("one\n\ntwo\n")
    done = unbroken("bench", "-m", QUICK.format("x"), "-n", "2", "--prompt-file", "prompts.txt")

    assert done.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-m", "nobody/x"], "no provider"),
        (["-n", "0"], "-n"),
        (["--warmup", "-3"], "'-3' is not a whole number from 0"),
        (["--prompt-file", "none.txt"], "can't be read"),
    ],
)
def test_wrong_input_is_one_line(unbroken, arguments, words):
    done = unbroken("bench", *arguments)

    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_prints_what_was_measured(started):
    program = started("bench", "-m", "sim/x?ttft=0.05&tps=100&tokens=20", "-n", "500", "-c", "2")
    time.sleep(3)
    program.send_signal(signal.SIGINT)
    out, errors = program.communicate(timeout=20)

    assert program.returncode == 130
    assert b"TTFT" in out
    assert b"Traceback" not in errors
