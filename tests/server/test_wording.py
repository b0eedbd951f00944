"""Callers learn what went wrong, and not where the providers are."""

import json

import pytest
from ports import free_port
from test_streams import ASK, Site

from unbroken import AsyncClient
from unbroken.errors import (
    ConfigurationError,
    ConnectFailed,
    ConnectionLost,
    RateLimited,
    StreamInterrupted,
    TimedOut,
)
from unbroken.server.gateway import Gateway
from unbroken.server.wording import for_callers, without_addresses
from unbroken.stores.memory import MemoryStore

PLACES = [
    "http://10.1.2.3:8000/v1/chat",
    "vllm.internal.example:443",
    "gpu-box:8000",
    "192.168.0.7",
    "fe80::1:2",
    "api.provider.example",
]


@pytest.mark.parametrize("place", PLACES)
def test_no_message_about_a_connection_names_a_place(place):
    words = f"Cannot connect to host {place} ssl:default [Connect call failed ({place!r}, 8000)]"
    interrupted = StreamInterrupted()
    interrupted.__cause__ = ConnectionLost(words)

    for error in (ConnectFailed(words), ConnectionLost(words), TimedOut(words), interrupted):
        assert place not in for_callers(error)
    assert place not in for_callers(ConfigurationError(f"{place} is no address"))
    assert place not in without_addresses(words)


def test_a_providers_own_words_are_kept():
    words = "Rate limit reached, see https://provider.example/limits"

    assert words in for_callers(RateLimited(words, status=429))
    plain = "timed out after 2.5 s (first_event) at 12:3, gpt-4.1 answers: no, really"
    assert without_addresses(plain) == plain


def test_a_gateway_tells_its_callers_no_address(serve):
    port = free_port()
    client = AsyncClient(api_key="k", base_url=f"http://127.0.0.1:{port}/v1")
    site = Site(serve(Gateway(MemoryStore(), client=client)), None)
    body = {"model": "openai/m", "fallbacks": ["openai/other"], **ASK}
    status, refused = site.json("POST", "/v1/chat/completions", body)
    stream = site.json("POST", "/v1/streams", body)[1]["id"]
    events = site.call("GET", f"/v1/streams/{stream}", accept="text/event-stream")[1].decode()

    assert status == 502
    assert "could not connect" in refused["error"]["message"]
    for text in (json.dumps(refused), events):
        assert str(port) not in text
        assert "127.0.0.1" not in text
