"""The figures for Prometheus: whose names they show, and how many."""

import contextlib

from unbroken import Client, RecoveryPolicy
from unbroken.errors import UnbrokenError
from unbroken.metrics.prometheus import MODELS, Board
from unbroken.simulator.scenario import Fault, Scenario
from unbroken.simulator.transport import SimulatorTransport

UP = Scenario(tokens=3)
DOWN = Scenario(faults=(Fault(kind="status", status=503),))


def answers(board, scenario, *models):
    """What the page says of answers, after these were asked too."""
    settings = {"api_key": "k", "recovery": RecoveryPolicy(attempts=1), "observers": [board]}
    with Client(transport=SimulatorTransport(scenario), **settings) as client:
        for model in models:
            with contextlib.suppress(UnbrokenError):
                client.complete(model, "Hi")
    head, page = "unbroken_answers_total", board.page(open_=0, followers=0).decode()
    return [line.removeprefix(head) for line in page.splitlines() if line.startswith(head)]


def test_so_many_models_have_names_and_the_rest_is_counted_together():
    told = answers(Board(), UP, *(f"sim/model{n}" for n in range(MODELS + 50)))

    assert len(told) == MODELS + 1
    assert '{model="other",provider="sim",state="complete"} 50.0' in told


def test_a_model_has_a_name_from_its_first_answer_on():
    board = Board()
    before = answers(board, DOWN, "openai/x", "openai/y")
    after = answers(board, UP, "openai/x")
    again = answers(board, DOWN, "openai/x")

    failed, complete = '"openai",state="failed"', '"openai",state="complete"'
    assert before == [f'{{model="other",provider={failed}}} 2.0']
    assert after == [*before, f'{{model="x",provider={complete}}} 1.0']
    assert again == [*after, f'{{model="x",provider={failed}}} 1.0']


def test_a_name_is_short_and_says_nothing_of_how_the_simulator_was_asked():
    told = answers(Board(), UP, "sim/" + "y" * 5000, "sim/demo?ttft=0&tokens=3")

    assert max(map(len, told)) < 200
    assert '{model="demo",provider="sim",state="complete"} 1.0' in told
