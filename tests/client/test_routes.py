"""Lists of models, routes by name, limits, and the file they stand in."""

import pytest

from unbroken import Client, Limits
from unbroken.client._config import load
from unbroken.errors import AuthenticationFailed, ConfigurationError, LocalProtocolError
from unbroken.simulator.app import running
from unbroken.simulator.scenario import Fault, Scenario
from unbroken.simulator.transport import SimulatorTransport

DOWN = {"down": Scenario(faults=(Fault(kind="status", status=503),))}


def client(**given):
    return Client(api_key="k", transport=SimulatorTransport(DOWN), **given)


def test_a_route_has_a_name():
    routes = {"fast": ["openai/down", "anthropic/well"]}
    answer = client(routes=routes).complete("fast", "hi")

    assert answer.provider == "anthropic"
    assert [a.model for a in answer.attempts] == ["down"] * 3 + ["well"]


def test_routes_and_models_mix_and_nobody_is_asked_as_two():
    routes = {"fast": ["openai/down", "openai/down"]}
    answer = client(routes=routes).complete(["fast", "openai/down", "anthropic/well"], "hi")

    assert [a.model for a in answer.attempts] == ["down"] * 3 + ["well"]


@pytest.mark.parametrize(
    ("models", "words"), [([], "empty"), ([1], "a list of names"), (b"openai/x", "a list of names")]
)
def test_a_list_that_is_none_is_refused(models, words):
    with pytest.raises(LocalProtocolError, match=words):
        client().stream(models, "hi")


def test_every_model_of_a_route_must_be_askable():
    """A missing key is found at once, not in the night when the first model is down."""
    keys = {"openai": "k"}
    with Client(api_key=keys, transport=SimulatorTransport()) as careful:
        careful._settings.env.pop("ANTHROPIC_API_KEY", None)
        with pytest.raises(AuthenticationFailed, match="ANTHROPIC_API_KEY"):
            careful.stream(["openai/a", "anthropic/b"], "hi")


def test_the_simulator_in_this_process_can_stand_in_for_a_real_server():
    with running(DOWN) as url, Client(api_key="k", base_url={"openai": f"{url}/v1"}) as mixed:
        answer = mixed.complete(["openai/down", "sim/demo?ttft=0&tps=0&tokens=5"], "hi")

    assert answer.provider == "sim"
    assert answer.cost is None


TOML = """
[routes]
fast = ["openai/down", "anthropic/well"]

[limits.openai]
rpm = 6

[server]
port = 8000
"""


def test_the_file_gives_routes_and_limits(tmp_path, monkeypatch):
    (tmp_path / "unbroken.toml").write_text(TOML)
    monkeypatch.chdir(tmp_path)
    configured = client(routes={"own": ["anthropic/well"]})

    assert configured.complete("fast", "hi").provider == "anthropic"
    assert configured.complete("own", "hi").provider == "anthropic"
    assert load({}).limits == {"openai": Limits(rpm=6)}


def test_a_file_elsewhere_is_named_by_the_environment(tmp_path):
    (tmp_path / "other.toml").write_text(TOML)

    assert (
        load({"UNBROKEN_CONFIG": str(tmp_path / "other.toml")}).routes["fast"][0] == "openai/down"
    )
    with pytest.raises(ConfigurationError, match="UNBROKEN_CONFIG"):
        load({"UNBROKEN_CONFIG": str(tmp_path / "none.toml")})
    assert load({}, str(tmp_path)).routes == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[routes\n", "line 1"),
        ("[routes]\nfast = 'openai/x'\n", "routes"),
        ("[routes]\nfast = []\n", "names no model"),
        ("[limits.openai]\nrpm = 0\n", "a minute"),
        ("[limits.openai]\nrmp = 5\n", "rmp"),
    ],
)
def test_a_wrong_file_is_an_error_that_names_file_and_place(tmp_path, text, words):
    (tmp_path / "unbroken.toml").write_text(text)

    with pytest.raises(ConfigurationError, match=words) as caught:
        load({}, str(tmp_path))
    assert "unbroken.toml" in str(caught.value)
