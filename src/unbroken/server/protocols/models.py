"""GET /v1/models: the names that `model` may have here, in OpenAI's shape, or in
Google's for those who show their key as Google's SDK does. /v1/models/NAME: one.

Routes first, then a default model for each provider with a key, then the simulator.
"""

from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse
from starlette.responses import Response as HttpResponse
from starlette.routing import Route

from unbroken.errors import NotFound
from unbroken.server.endpoints import with_error_handling
from unbroken.server.gateway import gateway_of
from unbroken.server.protocols import gemini


@with_error_handling
async def _models(http: HttpRequest) -> HttpResponse:
    if "x-goog-api-key" in http.headers:
        return await gemini.list_models(http)
    server = gateway_of(http)
    await server.caller(http)
    shown = [_shown(name) for name in server.models()]
    return JSONResponse({"object": "list", "data": shown})


@with_error_handling
async def _model(http: HttpRequest) -> HttpResponse:
    if "x-goog-api-key" in http.headers:
        return await gemini.get_model(http)
    server, name = gateway_of(http), http.path_params["name"]
    await server.caller(http)
    if name not in server.models():
        said = f"the model {name!r} is not listed here; GET /v1/models has those that are"
        raise NotFound(said, status=404, code="model_not_found")
    return JSONResponse(_shown(name))


def _shown(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": name.partition("/")[0]}


routes = [
    Route("/v1/models", _models, methods=["GET"]),
    Route("/v1/models/{name:path}", _model, methods=["GET"]),  # names have slashes
]
