"""GET /stream?prompt=...&model=...: one question, one answer, for `EventSource` and curl.

Each event's id names the answer and the offset. A browser that reconnects by itself hands it back
as `Last-Event-ID` and gets the rest of the same answer, never a second one; when it has had the
end it gets a 204, which is the only way to make it stop (WHATWG HTML 9.2.3).
"""

from collections.abc import AsyncGenerator
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response as HttpResponse
from starlette.routing import Route

from unbroken.errors import BadRequest
from unbroken.messages import Request, messages_from
from unbroken.server.gateway import Gateway, gateway_of, has_ended
from unbroken.server.records import broken_by
from unbroken.server.speak import careful
from unbroken.server.sse import Texts, failure
from unbroken.stores.base import End
from unbroken.wire import sse
from unbroken.wire.codec import Frame

RETRY = 1000
"""Milliseconds until a browser that lost the connection asks again."""


@careful
async def _stream(http: HttpRequest) -> HttpResponse:
    server = gateway_of(http)
    answer, _, offset = http.headers.get("last-event-id", "").rpartition(".")
    if answer and offset.isdecimal():
        stream, after = await server.readable(http, answer), int(offset)
        if has_ended(stream, after):
            return HttpResponse(status_code=204)
        return server.feed(_texts(server, stream.id, after), stream.id)
    created = await server.begin(http, _asked(http, server), server.settings.on_disconnect)
    return server.feed(_texts(server, created.stream.id, 0), created.stream.id)


def _asked(http: HttpRequest, server: Gateway) -> Request:
    """The question in the query."""
    query = http.query_params
    prompt = query.get("prompt", "")
    if not prompt.strip():
        said = "there is no prompt: /stream?prompt=..."
        raise BadRequest(said, status=400, code="invalid_request_error")
    wishes: dict[str, Any] = {name: query[name] for name in _WISHES if name in query}
    return Request(
        model=query.get("model") or server.default_model,
        messages=messages_from(prompt, query.get("system")),
        extra={**wishes, "fallbacks": query.getlist("fallback")},
    )


_WISHES = ("on_disconnect", "grace")


async def _texts(server: Gateway, stream: str, after: int) -> AsyncGenerator[bytes, None]:
    """The id comes first: a browser that is cut off before the first word asks for no second
    answer.
    """
    followed, write = server.answers.follow(stream, after), Texts()
    try:
        yield b"retry: %d\nid: %b.%d\n\n" % (RETRY, stream.encode(), after)
        async for item in followed:
            if isinstance(item, End):
                yield write.rest(f"{stream}.{after}") + _end(item, f"{stream}.{after + 1}")
                continue
            after = item[-1].offset
            said = [event for batch in item for event in batch.events]
            if data := write(said, f"{stream}.{after}"):
                yield data
    finally:
        await followed.aclose()


def _end(end: End, id: str) -> bytes:
    error = broken_by(end)
    told = b"" if error is None else failure(error)
    return told + sse.encode(Frame(b"[DONE]", id=id))


routes = [Route("/stream", _stream, methods=["GET"])]
