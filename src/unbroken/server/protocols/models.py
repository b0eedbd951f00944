"""GET /v1/models: the names that `model` may have here, /v1/models/NAME: one. In Anthropic's shape
for clients that send `anthropic-version` (platform.claude.com/docs/en/api/models-list), in Google's
for those who show their key as Google's SDK does, else in OpenAI's.

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
    shown = [_shown(name, http) for name in server.models()]
    if not _is_anthropic(http):
        return JSONResponse({"object": "list", "data": shown})
    ends = {"first_id": shown[0]["id"], "last_id": shown[-1]["id"]} if shown else _NO_ENDS
    return JSONResponse({"data": shown, "has_more": False, **ends})


@with_error_handling
async def _model(http: HttpRequest) -> HttpResponse:
    if "x-goog-api-key" in http.headers:
        return await gemini.get_model(http)
    server, name = gateway_of(http), http.path_params["name"]
    await server.caller(http)
    if name not in server.models():
        said = f"the model {name!r} is not listed here; GET /v1/models has those that are"
        raise NotFound(said, status=404, code="model_not_found")
    return JSONResponse(_shown(name, http))


_NO_ENDS = {"first_id": None, "last_id": None}


def _is_anthropic(http: HttpRequest) -> bool:
    return "anthropic-version" in http.headers


def _shown(name: str, http: HttpRequest) -> dict[str, Any]:
    if _is_anthropic(http):
        when = "1970-01-01T00:00:00Z"
        return {"type": "model", "id": name, "display_name": name, "created_at": when}
    return {"id": name, "object": "model", "created": 0, "owned_by": name.partition("/")[0]}


routes = [
    Route("/v1/models", _models, methods=["GET"]),
    Route("/v1/models/{name:path}", _model, methods=["GET"]),  # names have slashes
]
