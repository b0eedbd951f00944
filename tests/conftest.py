"""What all tests share: no key of the developer's own may reach a test, nor a `.env`."""

import asyncio
import contextlib
import os
import threading

import pytest
import uvicorn

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


@contextlib.contextmanager
def served(app):
    """The app's address while the block runs."""
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_level="warning", lifespan="on", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def serve():
    with contextlib.ExitStack() as stack:
        yield lambda app: stack.enter_context(served(app))
