"""GET /healthz: the process runs. GET /readyz: its store answers, so it can take work."""

import asyncio

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse
from starlette.routing import Route

from unbroken.errors import StoreError
from unbroken.server.gateway import gateway_of
from unbroken.stores.base import Search

PATIENCE = 2.0
"""Seconds for the store to answer: who asks has a few at most."""


async def _alive(_http: HttpRequest) -> JSONResponse:
    return JSONResponse({"status": "ok"})


async def _ready(http: HttpRequest) -> JSONResponse:
    answers = gateway_of(http).answers
    if answers.closing:
        return JSONResponse({"status": "draining"}, 503)
    try:
        async with asyncio.timeout(PATIENCE):  # a store that is away may wait longer
            await answers.store.find("", Search(limit=1))
    except (StoreError, TimeoutError) as error:
        return JSONResponse(
            {"status": "the store does not answer", "reason": str(error) or "it takes too long"},
            503,
        )
    return JSONResponse({"status": "ok", "open": len(answers.producers)})


routes = [
    Route("/healthz", _alive, methods=["GET"]),
    Route("/readyz", _ready, methods=["GET"]),
]
