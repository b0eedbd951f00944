"""What callers get wrong: every mistake is an UnbrokenError that names the argument, early."""

import asyncio
import subprocess
import sys

import pytest

import unbroken
from unbroken import AsyncClient, Client, Message, RecoveryPolicy
from unbroken.errors import (
    AuthenticationFailed,
    ConfigurationError,
    ConnectFailed,
    LocalProtocolError,
    UnbrokenError,
)
from unbroken.messages import Request, Text
from unbroken.simulator.transport import AsyncSimulatorTransport, SimulatorTransport

CYCLE: list = []
CYCLE.append(CYCLE)
ONCE = RecoveryPolicy(attempts=1)
ASKED = (Message("user", (Text("hi"),)),)


def client(**given):
    return Client(transport=SimulatorTransport(), **given)


# Arguments of a call

WRONG = {
    "timeouts": 5,
    "recovery": 5,
    "hedge_after": "soon",
    "tools": [5],
    "tool_choice": {"function": "f"},
    "system": 5,
    "stop": 5,
    "extra": {"x": object()},
    "metadata": {"x": CYCLE},
    "user": "\ud83d",
    "response_format": {"type": "json_schema", "json_schema": 5},
}


@pytest.mark.parametrize("name", WRONG)
def test_an_argument_of_a_wrong_kind_is_named(name):
    with pytest.raises(LocalProtocolError, match=name):
        client().stream("sim/demo", "hi", **{name: WRONG[name]})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tools", 5),
        ("tools", "get_weather"),
        ("tools", {"name": "f"}),
        ("tools", [{"name": "f", "parameters": 5}]),
        ("tools", [{"name": "f", "parameters": {"properties": 5}}]),
        ("tool_choice", 5),
        ("stop", [5]),
        ("hedge_after", -1),
    ],
)
def test_so_are_others(name, value):
    with pytest.raises(LocalProtocolError, match=name):
        client().stream("sim/demo", "hi", **{name: value})


@pytest.mark.parametrize("model", [5, b"sim/demo", [5], {"sim/demo"}])
def test_a_model_is_a_name_or_a_list_of_names(model):
    with pytest.raises(LocalProtocolError, match="model is a name"):
        client().stream(model, "hi")


@pytest.mark.parametrize("prompt", ["half \ud83d", [{"role": "user", "content": "\ude00"}]])
@pytest.mark.parametrize("model", ["sim/demo", "anthropic/claude-haiku-5-5"])
def test_half_a_character_is_named(model, prompt):
    with pytest.raises(LocalProtocolError, match=r"messages can't be sent: .*surrogate"):
        client(api_key="k").stream(model, prompt)


def test_a_message_made_by_hand_is_looked_at_too():
    with pytest.raises(LocalProtocolError, match=r"messages\[0\]: .*`parts`"):
        client().stream("sim/demo", [Message("user", "hi")])
    with pytest.raises(LocalProtocolError, match=r"can't be sent: .*str"):
        client(api_key="k").stream("openai/m", [Message("user", (Text(5),))])


NONSENSE = {
    "n": [-1, 0, 129, 100_000],
    "max_tokens": [-3, 0],
    "temperature": [-0.1, float("nan")],
    "top_p": [-0.1, 1.1],
    "top_k": [-2],
    "top_logprobs": [-2],
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n in NONSENSE for v in NONSENSE[n]])
def test_a_number_that_no_provider_takes_is_named(name, value):
    with pytest.raises(LocalProtocolError, match=rf"[<>]= .*`{name}`"):
        client().stream("sim/demo", "hi", **{name: value})
    with pytest.raises(LocalProtocolError, match=rf"[<>]= .*`{name}`"):
        client().stream("sim/demo", Request(model="", messages=ASKED, **{name: value}))


def test_the_bounds_themselves_are_taken():
    edges = {"n": 128, "max_tokens": 1, "temperature": 0, "top_p": 1.0, "top_logprobs": 0}

    answer = client().complete("sim/demo", "hi", **edges)

    assert len(answer.choices) == 128


def test_a_request_is_checked_like_arguments():
    with pytest.raises(LocalProtocolError, match="temperature"):
        client().stream("sim/demo", Request(model="", messages=ASKED, temperature="hot"))


# Arguments of a client

WRONG_OF_CLIENT = {
    "routes": {"a": "openai/x"},
    "limits": {"openai": 5},
    "timeouts": 5,
    "recovery": {"attempts": 3},
    "api_key": 5,
    "base_url": {"openai": 5},
}


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("name", WRONG_OF_CLIENT)
def test_a_setting_of_a_wrong_kind_is_named(kind, name):
    with pytest.raises(ConfigurationError, match=name):
        kind(**{name: WRONG_OF_CLIENT[name]})


@pytest.mark.parametrize("models", [[], [5], 5])
def test_a_route_is_a_list_of_models(models):
    with pytest.raises(ConfigurationError, match="'a' is a list of models"):
        Client(routes={"a": models})


# Keys

SECRET = "sk-very-secret"


@pytest.mark.parametrize("key", [f"{SECRET}\r\n", f" {SECRET}\t"])
def test_white_space_around_a_key_is_no_part_of_it(key, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    world = SimulatorTransport()

    Client(transport=world).complete("openai/gpt-4o", "hi")
    Client(transport=world, api_key=key).complete("openai/gpt-4o", "hi")

    shown = [asked.headers["authorization"] for asked in world.log]
    assert shown == [f"Bearer {SECRET}"] * 2


@pytest.mark.parametrize("key", [f"{SECRET}\nmore", f"{SECRET}\0", f"{SECRET}ключ", f"{SECRET}ü"])
@pytest.mark.parametrize("model", ["openai/m", "anthropic/m", "bedrock/m"])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_key_that_is_none_is_refused_without_being_repeated(kind, model, key, monkeypatch):
    monkeypatch.setenv("AWS_REGION", "eu-west-1")

    with pytest.raises(AuthenticationFailed, match="Line ends") as caught:
        kind(api_key=key).stream(model, "hi")

    assert SECRET not in f"{caught.value}{caught.value!r}{caught.value.__cause__!r}"


def test_gemini_has_two_names_for_its_key(monkeypatch):
    world = SimulatorTransport()

    monkeypatch.setenv("GOOGLE_API_KEY", "second")
    Client(transport=world).complete("gemini/gemini-3.8-flash", "hi")
    monkeypatch.setenv("GEMINI_API_KEY", "first")
    Client(transport=world).complete("gemini/gemini-3.8-flash", "hi")

    shown = [asked.headers["x-goog-api-key"] for asked in world.log]
    assert shown == ["second", "first"]


def test_a_key_of_white_space_is_no_key():
    with pytest.raises(AuthenticationFailed, match="OPENAI_API_KEY"):
        Client(api_key=" \n").stream("openai/m", "hi")


# Addresses and names


def test_without_an_address_the_variable_is_named():
    with pytest.raises(ConfigurationError, match="UNBROKEN_BASE_URL or give base_url="):
        Client().stream("compatible/x", "hi")


@pytest.mark.parametrize(
    "url", ["http://[bad/v1", "http://h:99999/v1", "http://h:x/v1", "https:///v1", "ftp://h/v1"]
)
def test_an_address_that_is_none_is_shown(url):
    with pytest.raises(ConfigurationError, match="the base URL of compatible is ") as caught:
        Client(base_url=url).stream("compatible/x", "hi")

    assert url in str(caught.value)


@pytest.mark.parametrize("host", ["a..b", "a" * 70 + ".com"])
def test_a_host_that_no_name_can_have_is_not_reached(host):
    async def ask():
        async with AsyncClient(base_url=f"http://{host}/v1", recovery=ONCE) as awaiting:
            await awaiting.complete("compatible/x", "hi")

    with pytest.raises(ConnectFailed):
        asyncio.run(ask())
    with Client(base_url=f"http://{host}/v1", recovery=ONCE) as blocking:
        with pytest.raises(ConnectFailed):
            blocking.complete("compatible/x", "hi")


def test_the_sentence_for_an_unknown_model_ends_once():
    with pytest.raises(ConfigurationError) as caught:
        Client().stream("mystery", "hi")

    assert str(caught.value) == (
        "the provider of the model 'mystery' is not known. "
        "Write provider/model, such as openai/mystery."
    )


def test_the_version_is_there_and_costs_nothing_until_asked():
    code = "import sys, unbroken; print('importlib.metadata' in sys.modules, unbroken.__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["False", unbroken.__version__]


def test_no_other_name_appears_by_itself():
    with pytest.raises(AttributeError, match="versoin"):
        _ = unbroken.versoin


def test_what_is_wrong_is_not_sent():
    world = AsyncSimulatorTransport()

    with pytest.raises(UnbrokenError):
        AsyncClient(transport=world).stream("sim/demo", "hi", n=0)

    assert world.log == []
