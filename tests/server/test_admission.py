"""Which models callers of a gateway may name, and the simulator above all."""

import pytest

from unbroken.errors import BadRequest, NotFound
from unbroken.server.admission import MAX_MODEL_NAME, Models
from unbroken.server.settings import Settings, load

KEY = {"OPENAI_API_KEY": "sk-x"}
FAST = {"fast": ["openai/gpt-x"]}
BOMB = "sim/demo?tokens=1000000000"


def models(env=None, routes=(), **settings):
    return Models(Settings(**settings), routes, env or {})


def refusal(made, *names):
    with pytest.raises((BadRequest, NotFound)) as caught:
        made.check(names)
    return caught.value


@pytest.mark.parametrize("name", [BOMB, "sim/?text=x", "sim/down?", "sim/demo?body=aGk="])
def test_callers_set_no_parameters_of_the_simulator(name):
    refused = refusal(models(), "sim/demo", name)

    assert (refused.status, refused.code) == (400, "simulator_closed")
    assert "UNBROKEN_SIMULATOR=open" in str(refused)


@pytest.mark.parametrize("made", [models(KEY), models(routes=FAST)])
def test_beside_other_models_the_simulator_is_not_served(made):
    refused = refusal(made, "sim/demo")

    assert (refused.status, refused.code) == (404, "model_not_found")
    assert "simulator" in str(refused)
    assert "sim/demo" not in made.names()


def test_where_nothing_else_is_configured_it_is():
    models().check(["sim/demo", "sim/down"])
    models({"UNBROKEN_MODEL": "sim/gpt-4o"}).check(["sim/demo"])

    assert models().names() == ["sim/demo"]
    assert models().default == "sim/demo"


def test_the_operator_may_list_and_route_whatever_there_is():
    models(KEY, models=[BOMB, "sim/demo"]).check([BOMB, "sim/demo"])
    models(KEY, routes={"demo": [BOMB]}).check(["demo", "openai/gpt-x"])

    assert refusal(models(models=["sim/demo"]), BOMB).status == 404


def test_an_open_simulator_is_served_beside_everything():
    opened = models(KEY, simulator="open")

    opened.check([BOMB, "sim/demo"])
    assert opened.names()[-1] == "sim/demo"
    assert refusal(models(simulator="open", models=["sim/demo"]), BOMB).status == 404


def test_the_switch_is_a_setting_and_a_variable(tmp_path):
    assert load({"UNBROKEN_SIMULATOR": "open"}, {}, str(tmp_path)).simulator == "open"


def test_a_long_name_is_refused_and_not_repeated():
    refused = refusal(models(simulator="open"), "sim/" + "x" * MAX_MODEL_NAME)

    assert str(MAX_MODEL_NAME) in str(refused)
    assert len(str(refusal(models(), "sim/x?" + "y" * 4000))) < 500
