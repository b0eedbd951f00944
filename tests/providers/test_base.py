"""Where a provider is, by what the environment says."""

import pytest

from unbroken.errors import ConfigurationError
from unbroken.providers import registry
from unbroken.providers.base import server_at
from unbroken.transport.base import HttpRequest

USUAL = "http://127.0.0.1:11434/v1"


# The rule and most of the cases are Ollama's: ollama/ollama, envconfig/config_test.go.
@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("1.2.3.4", "http://1.2.3.4:11434/v1"),
        ("1.2.3.4:5678", "http://1.2.3.4:5678/v1"),
        (":5678", "http://127.0.0.1:5678/v1"),
        ("0.0.0.0", "http://127.0.0.1:11434/v1"),
        ("[::]:99", "http://[::1]:99/v1"),
        ("[fe80::1]", "http://[fe80::1]:11434/v1"),
        ("host", "http://host:11434/v1"),
        (" host/ ", "http://host:11434/v1"),
        ("host/path", "http://host:11434/path/v1"),
        ("http://host", "http://host/v1"),
        ("https://ollama.com", "https://ollama.com/v1"),
        ("https://host:99/path/", "https://host:99/path/v1"),
    ],
)
def test_a_host_may_lack_scheme_and_port(host, address):
    assert server_at(host, USUAL) == address


def test_ollama_is_where_ollama_host_says():
    ollama = registry.provider("ollama")

    assert ollama.located({}) == USUAL
    assert ollama.located({"OLLAMA_HOST": ""}) == USUAL
    assert ollama.located({"OLLAMA_HOST": "gpu.lan"}) == "http://gpu.lan:11434/v1"


@pytest.mark.parametrize("host", ["host:port", "host:99999", "::1"])
def test_a_host_that_is_none_is_named_with_its_variable(host):
    with pytest.raises(ConfigurationError, match="OLLAMA_HOST"):
        registry.provider("ollama").located({"OLLAMA_HOST": host})


def test_a_place_that_is_missing_is_named_and_its_last_slash_is_dropped():
    azure = registry.provider("azure")

    assert azure.located({"AZURE_OPENAI_ENDPOINT": "https://r.example/"}).count("//") == 1
    with pytest.raises(ConfigurationError, match="AZURE_OPENAI_ENDPOINT"):
        azure.located({})


def test_the_repr_of_a_request_shows_no_key():
    shown = repr(HttpRequest("POST", "http://x", {"authorization": "Bearer sk-1"}, b"12"))

    assert shown == "HttpRequest(POST http://x, authorization, 2 bytes)"
