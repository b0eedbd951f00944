"""Finding providers and models, and building what is sent."""

import tomllib
from importlib.resources import files

import genai_prices
import msgspec
import pytest

from unbroken import Client
from unbroken.errors import AuthenticationFailed, ConfigurationError, LocalProtocolError
from unbroken.events import Usage
from unbroken.messages import Message, Request, Text, messages_from
from unbroken.metrics.prices import quote
from unbroken.providers import registry


@pytest.mark.parametrize(
    ("model", "provider", "name"),
    [
        ("openai/gpt-4o", "openai", "gpt-4o"),
        ("gpt-6-luna", "openai", "gpt-6-luna"),
        ("claude-haiku-5-5", "anthropic", "claude-haiku-5-5"),
        ("anthropic", "anthropic", "claude-haiku-5-5"),
        ("sim/demo?fault=cut:events=1", "sim", "demo?fault=cut:events=1"),
    ],
)
def test_a_model_is_resolved(model, provider, name):
    found, wire_name = registry.resolve(model)

    assert (found.name, wire_name) == (provider, name)


def test_with_a_base_url_unknown_names_are_the_servers_own():
    found, name = registry.resolve("meta-llama/Llama-3", elsewhere=True)

    assert (found.name, name) == ("compatible", "meta-llama/Llama-3")


@pytest.mark.parametrize("model", ["opnai/gpt", "mystery", ""])
def test_an_unknown_model_is_an_error_with_advice(model):
    with pytest.raises(ConfigurationError, match="Known|provider/model"):
        registry.resolve(model)


def test_a_certain_name_is_certain():
    claimed = [(p, name) for name in registry.names() for p in registry.provider(name).prefixes]

    assert [
        (one, other)
        for one, first in claimed
        for other, second in claimed
        if first != second and one.startswith(other)
    ] == []


@pytest.mark.parametrize("name", registry.names())
def test_every_provider_builds_a_request(name):
    provider = registry.provider(name)
    request = Request(model="m", messages=(Message("user", (Text("hi"),)),))

    http = provider.http_request(request, "key", provider.base_url or "http://x/v1")

    assert http.url.endswith(provider.path.replace("{model}", "m"))
    assert "{model}" in provider.path or msgspec.json.decode(http.body)["model"] == "m"
    assert not provider.auth.env or "key" in " ".join(http.headers.values())


def test_the_default_models_are_alive_and_priced():
    defaults = tomllib.loads(files("unbroken.providers").joinpath("defaults.toml").read_text())
    priced = {name: row["model"] for name, row in defaults.items() if name != "sim"}

    for provider, model in priced.items():
        usage = genai_prices.Usage(input_tokens=1, output_tokens=1)
        assert genai_prices.calc_price(usage, model_ref=model, provider_id=provider).total_price > 0
    assert {"gpt-4o", "gpt-4o-mini", "claude-3-5-haiku-20241022"}.isdisjoint(priced.values())


def test_a_price_is_exact_or_none():
    usage = Usage(input_tokens=1_000_000, output_tokens=1_000_000, cached_input_tokens=500_000)

    assert quote("openai", "gpt-4o", usage) == pytest.approx(1.25 + 0.625 + 10)
    assert quote("openai", "nobody-knows", usage) is None
    assert quote("sim", "demo", usage) is None


def test_a_missing_key_names_the_variable():
    with pytest.raises(AuthenticationFailed, match="ANTHROPIC_API_KEY"):
        Client().stream("anthropic/claude-haiku-5-5", "hi")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"max_token": 3}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"tools": [{"x": 1}]}, "name"),
        ({"tool_choice": {"x": 1}}, "tool_choice"),
    ],
)
def test_a_wrong_parameter_is_named(given, named):
    with pytest.raises(LocalProtocolError, match=named):
        Client().stream("sim/demo", "hi", **given)


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ([], "empty"),
        ({"role": "user"}, "dict"),
        ([{"role": "king", "content": "x"}], r"messages\[0\].*king"),
        ([{"role": "user"}], r"messages\[0\].*content"),
        ([{"role": "user", "content": [{"type": "text"}]}], r"messages\[0\].*text"),
        ([{"role": "tool", "content": "x"}], "tool_call_id"),
    ],
)
def test_a_wrong_prompt_is_named_with_its_place(prompt, named):
    with pytest.raises(LocalProtocolError, match=named):
        messages_from(prompt)


def test_extra_goes_through_untouched():
    request = Request(model="m", messages=messages_from("hi"), extra={"x": {"y": [1]}})

    for name in ("openai", "anthropic"):
        http = registry.provider(name).http_request(request, "k", "http://x")
        assert msgspec.json.decode(http.body)["x"] == {"y": [1]}
