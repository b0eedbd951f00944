"""A real server on a real port, for any ASGI app."""

import asyncio
import contextlib
import threading

import pytest
import uvicorn


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
