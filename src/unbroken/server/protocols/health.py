"""GET /healthz: the process runs. GET /readyz: its store answers, so it can take work."""

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse
from starlette.routing import Route

from unbroken.errors import StoreError
from unbroken.server import gateway
from unbroken.stores.base import Search


async def _alive(_http: HttpRequest) -> JSONResponse:
    return JSONResponse({"status": "ok"})


async def _ready(http: HttpRequest) -> JSONResponse:
    answers = gateway.of(http).answers
    if answers.closing:
        return JSONResponse({"status": "draining"}, 503)
    try:
        await answers.store.find("", Search(limit=1))
    except StoreError as error:
        return JSONResponse({"status": "the store does not answer", "reason": str(error)}, 503)
    return JSONResponse({"status": "ok", "open": len(answers.producers)})


routes = [
    Route("/healthz", _alive, methods=["GET"]),
    Route("/readyz", _ready, methods=["GET"]),
]
