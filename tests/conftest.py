"""What all tests share: no key of the developer's own may reach a test, nor a `.env`."""

import os

import pytest

from unbroken.simulator.transport import AsyncSimulatorTransport, SimulatorTransport

OWN = ("_API_KEY", "_API_TOKEN", "_BASE_URL", "OLLAMA_HOST", "_OPENAI_ENDPOINT")
for name in [name for name in os.environ if name.endswith(OWN)]:
    del os.environ[name]


@pytest.fixture
def simulator():
    return SimulatorTransport()


@pytest.fixture
def async_simulator():
    return AsyncSimulatorTransport()
