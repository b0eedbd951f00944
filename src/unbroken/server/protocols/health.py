"""GET /healthz: the process runs. GET /readyz: its store takes writes, so it accepts requests."""

import asyncio
import time

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse
from starlette.routing import Route

from unbroken.errors import StoreError
from unbroken.server.gateway import gateway_of
from unbroken.stores.base import Store

STORE_TIMEOUT = 2.0
"""Seconds for the store to take a write: probes wait a few seconds at most."""

PROBE_INTERVAL = 1.0
"""Seconds that a result is reused, so that probes can't load the store."""


class _Probe:
    """The last result: what is wrong with the store, or ""."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = asyncio.Lock()
        self._until, self._problem = 0.0, ""

    async def problem(self) -> str:
        """Return why the store takes no writes, or ""."""
        async with self._lock:
            if time.monotonic() >= self._until:
                self._problem = await self._ask()
                self._until = time.monotonic() + PROBE_INTERVAL
        return self._problem

    async def _ask(self) -> str:
        try:
            async with asyncio.timeout(STORE_TIMEOUT):
                await self._store.ping()
        except TimeoutError:
            return f"timeout after {STORE_TIMEOUT:g} s"
        except StoreError as error:
            return str(error)
        return ""


async def _alive(_http: HttpRequest) -> JSONResponse:
    return JSONResponse({"status": "ok"})


async def _ready(http: HttpRequest) -> JSONResponse:
    answers, state = gateway_of(http).answers, http.app.state
    if answers.closing:
        return JSONResponse({"status": "draining"}, 503)
    if not hasattr(state, "probe"):
        state.probe = _Probe(answers.store)
    if problem := await state.probe.problem():
        return JSONResponse({"status": "store unavailable", "reason": problem}, 503)
    return JSONResponse({"status": "ok", "open": len(answers.producers)})


routes = [
    Route("/healthz", _alive, methods=["GET"]),
    Route("/readyz", _ready, methods=["GET"]),
]
