"""POST /v1/messages, as Anthropic's (platform.claude.com/docs/en/api/messages), and
/v1/messages/count_tokens, which estimates: a token for every four bytes.
"""

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from unbroken.server.bodies import parse_request, read_body
from unbroken.server.endpoints import chat_endpoint, with_errors_of
from unbroken.server.estimate import prompt_tokens
from unbroken.server.gateway import gateway_of
from unbroken.wire.anthropic_messages.dialect import CODEC

ESTIMATED_HEADER = "x-unbroken-estimated"
"""Marks a count that no tokenizer made."""


async def _count_tokens(http: HttpRequest) -> Response:
    server = gateway_of(http)
    await server.caller(http)
    body = await read_body(http.stream(), server.settings.max_body)
    request = await parse_request(_with_limit(body), CODEC)
    counted = {"input_tokens": max(1, prompt_tokens(request))}
    return JSONResponse(counted, headers={ESTIMATED_HEADER: "input_tokens"})


def _with_limit(body: bytes) -> bytes:
    """The body with the one required field that a question to be counted does not have."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body  # the parser names what is wrong
    return msgspec.json.encode({"max_tokens": 1, **fields})


routes = [
    Route("/v1/messages", chat_endpoint(CODEC), methods=["POST"]),
    Route("/v1/messages/count_tokens", with_errors_of(CODEC)(_count_tokens), methods=["POST"]),
]
