"""POST /v1beta/models/NAME:generateContent and its siblings, as Google's Gemini API
(ai.google.dev/api/generate-content, ai.google.dev/api/tokens, ai.google.dev/api/models).

For the SDK `google-genai` and the Gemini CLI. The name of a model may have slashes.
"""

from typing import Any

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse
from starlette.responses import Response as HttpResponse
from starlette.routing import Route

from unbroken.errors import BadRequest, NotFound
from unbroken.messages import Request
from unbroken.server.bodies import check_structure, parse_request, read_body
from unbroken.server.endpoints import chat_endpoint, with_errors_in
from unbroken.server.estimate import prompt_tokens
from unbroken.server.gateway import gateway_of
from unbroken.wire.error_body import UNREADABLE
from unbroken.wire.gemini.dialect import CODEC

_METHODS = ["generateContent", "streamGenerateContent", "countTokens"]


def _streamed(http: HttpRequest, asked: Request) -> Request:
    return msgspec.structs.replace(asked, model=http.path_params["model"], stream=True)


def _in_one_piece(http: HttpRequest, asked: Request) -> Request:
    return msgspec.structs.replace(asked, model=http.path_params["model"], stream=False)


_stream = chat_endpoint(CODEC, _streamed)
_whole = chat_endpoint(CODEC, _in_one_piece)


async def _stream_or_list(http: HttpRequest) -> HttpResponse:
    """A stream with `alt=sse`; without it the API answers with a list of the same pieces."""
    if http.query_params.get("alt") == "sse":
        return await _stream(http)
    answer = await _whole(http)
    if answer.status_code != 200:
        return answer
    headers = {k: v for k, v in answer.headers.items() if k != "content-length"}
    return HttpResponse(b"[%b]" % bytes(answer.body), 200, headers)


async def _count(http: HttpRequest) -> HttpResponse:
    """An estimate, and marked as one: other providers have no such endpoint."""
    server = gateway_of(http)
    await server.caller(http)
    body = await read_body(http.stream(), server.settings.max_body)
    asked = await parse_request(_counted(body), CODEC)
    marked = {"x-unbroken-estimate": "true"}
    return JSONResponse({"totalTokens": prompt_tokens(asked)}, headers=marked)


def _counted(body: bytes) -> bytes:
    """The request whose tokens are counted: it may stand inside of another object."""
    check_structure(body)
    try:
        fields = msgspec.json.decode(body, type=dict[str, Any])
    except UNREADABLE as error:
        raise BadRequest(str(error), status=400, code="INVALID_ARGUMENT") from error
    inner = fields.get("generateContentRequest")
    return msgspec.json.encode(inner if isinstance(inner, dict) else fields)


async def list_models(http: HttpRequest) -> HttpResponse:
    """The names that `model` may have, in Gemini's shape."""
    server = gateway_of(http)
    await server.caller(http)
    return JSONResponse({"models": [_shown(name) for name in server.models()]})


async def get_model(http: HttpRequest) -> HttpResponse:
    """One of these names."""
    server, name = gateway_of(http), http.path_params["name"]
    await server.caller(http)
    if name not in server.models():
        said = f"the model {name!r} is not listed here; GET /v1beta/models has those that are"
        raise NotFound(said, status=404, code="NOT_FOUND")
    return JSONResponse(_shown(name))


def _shown(name: str) -> dict[str, Any]:
    return {
        "name": f"models/{name}",
        "displayName": name,
        "supportedGenerationMethods": _METHODS,
    }


# The reference and the CLI say v1beta; google-genai 3.6 asks at v1 unless it is told otherwise.
_MODEL = "/{version}/models/{model:path}"

routes = [
    Route(f"{_MODEL}:generateContent", _whole, methods=["POST"]),
    Route(f"{_MODEL}:streamGenerateContent", _stream_or_list, methods=["POST"]),
    Route(f"{_MODEL}:countTokens", with_errors_in(_count, CODEC), methods=["POST"]),
    Route("/v1beta/models", with_errors_in(list_models, CODEC), methods=["GET"]),
    Route("/v1beta/models/{name:path}", with_errors_in(get_model, CODEC), methods=["GET"]),
]
