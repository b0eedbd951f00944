"""Gemini's own API beside Google's SDK (google-genai, in requirements-peers.lock): it reads the
simulator and the gateway, and we read what it sends.
"""

import pytest

from unbroken import Client, RecoveryPolicy
from unbroken.simulator.app import running


@pytest.fixture(scope="module")
def server():
    with running() as url:
        yield url


SCENARIO = {"x-unbroken-scenario": "ttft=0&tps=0&tokens=30"}  # the SDK takes no ? in a name


def sdk(url):
    genai = pytest.importorskip("google.genai")
    return genai.Client(api_key="k", http_options={"base_url": url, "headers": SCENARIO})


def test_the_sdk_reads_the_simulator_streamed_and_whole(server):
    client, model = sdk(server), "gemini-3"
    pieces = list(client.models.generate_content_stream(model=model, contents="cats"))
    whole = client.models.generate_content(model=model, contents="cats")

    assert len(pieces) > 2
    assert "".join(piece.text or "" for piece in pieces) == whole.text != ""
    assert pieces[-1].candidates[0].finish_reason == whole.candidates[0].finish_reason == "STOP"
    assert pieces[-1].usage_metadata == whole.usage_metadata


def test_unbroken_reads_the_simulator_by_this_dialect(server):
    with Client(api_key="k", base_url=server, recovery=RecoveryPolicy(attempts=1)) as client:
        with client.stream("gemini/gemini-3?ttft=0&tps=0&tokens=30", "cats") as stream:
            text = "".join(stream.text)
        whole = client.complete("gemini/gemini-3?ttft=0&tps=0&tokens=30", "cats")

    assert text == whole.text != ""
    assert whole.end == "complete"
