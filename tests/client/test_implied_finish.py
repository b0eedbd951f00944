"""Servers that never send a finish reason (Snowflake Cortex): a clean end counts, where that is set."""

import json

import pytest

from unbroken import Client, RecoveryPolicy, StreamInterrupted
from unbroken.simulator.scenario import Scenario
from unbroken.simulator.transport import SimulatorTransport

CHUNK = {"id": "c", "model": "m", "choices": [{"delta": {"content": "Hello"}}]}
BODY = b"data: %b\n\n" % json.dumps(CHUNK).encode()


def ask(implied):
    transport = SimulatorTransport({"*": Scenario(ttft=0.0, tps=0, body=BODY)})
    with Client(
        api_key="k",
        base_url="https://cortex.example/v1",
        transport=transport,
        recovery=RecoveryPolicy(attempts=1),
        implied_finish=implied,
    ) as client:
        with client.stream("compatible/m", "hi") as stream:
            list(stream)
    return stream.response


@pytest.mark.parametrize("implied", [True, ["compatible"]])
def test_a_clean_end_counts(implied):
    response = ask(implied)

    assert (response.end, response.text, response.finish_reason) == ("complete", "Hello", "stop")


@pytest.mark.parametrize("implied", [False, ["openai"]])
def test_elsewhere_it_is_a_cut(implied):
    with pytest.raises(StreamInterrupted):
        ask(implied)
