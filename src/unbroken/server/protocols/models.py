"""GET /v1/models: the names that `model` may have here, in OpenAI's shape.

Routes first, then a default model for each provider with a key, then the simulator.
"""

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse
from starlette.routing import Route

from unbroken.server.gateway import gateway_of
from unbroken.server.speak import careful


@careful
async def _models(http: HttpRequest) -> JSONResponse:
    server = gateway_of(http)
    await server.caller(http)
    shown = [
        {"id": name, "object": "model", "created": 0, "owned_by": name.partition("/")[0]}
        for name in server.models()
    ]
    return JSONResponse({"object": "list", "data": shown})


routes = [Route("/v1/models", _models, methods=["GET"])]
