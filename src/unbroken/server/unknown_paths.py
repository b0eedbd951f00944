"""Answers requests to paths and methods that do not exist, in the dialect of the path."""

from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from unbroken.errors import error_class
from unbroken.wire import anthropic_messages, openai_chat

CHAT, MESSAGES = openai_chat.CODEC.dialect, anthropic_messages.CODEC.dialect


async def unknown_path(http: HttpRequest, error: Exception) -> Response:
    """Return 404 and 405 in the same error format as every other refusal."""
    assert isinstance(error, HTTPException)
    said = f"{http.method} {http.url.path}: {error.detail}; see /docs"
    refusal = error_class(error.status_code)(said, status=error.status_code, code="unknown_url")
    dialect = MESSAGES if http.url.path.startswith("/v1/messages") else CHAT
    body = dialect.encode_error(refusal)
    return Response(body, error.status_code, error.headers, "application/json")
