"""GET /stream?prompt=...&model=...: one question, one answer, for `EventSource` and curl.

Each event's id names the answer and the offset. A browser that reconnects by itself hands it back
as `Last-Event-ID` and gets the rest of the same answer, never a second one; when it has had the
end it gets a 204, which is the only way to make it stop (WHATWG HTML 9.2.3). A page that was loaded
anew can't set that header, so the query has `last_event_id` for it; offset 0 is the whole answer.
"""

from collections.abc import AsyncGenerator
from typing import Any, Unpack

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response as HttpResponse
from starlette.routing import Route

from unbroken.client._plan import OF_THE_CALL, Models, Parameters, request_from
from unbroken.errors import BadRequest, LocalProtocolError
from unbroken.messages import Prompt, Request, Text, messages_from
from unbroken.server.endpoints import parse_int, with_error_handling
from unbroken.server.gateway import Gateway, gateway_of, is_exhausted
from unbroken.server.records import DETACHED, end_error
from unbroken.server.responses import STREAMING
from unbroken.server.sse import Texts, failure
from unbroken.stores.base import End
from unbroken.wire import sse
from unbroken.wire.codec import Frame

RETRY = 1000
"""Milliseconds until a browser that lost the connection asks again."""


async def durable_sse(
    gateway: Gateway,
    http: HttpRequest,
    model: Models,
    prompt: Prompt,
    **parameters: Unpack[Parameters],
) -> HttpResponse:
    """The response for a route of one's own: an answer that outlives its reader and its process.

    As `/stream` gives it: a browser that comes back with its `Last-Event-ID` (or `last_event_id` in
    the query) gets the rest, whatever `prompt` says by then. `extra` may hold `on_disconnect` and
    `grace` (seconds). What is wrong is told by an HTTP status and OpenAI's JSON; LocalProtocolError
    is raised for arguments that can't be.
    """
    names = [model or gateway.default_model] if isinstance(model, str | None) else model
    if misplaced := [name for name in OF_THE_CALL if name in parameters]:
        raise LocalProtocolError(f"{', '.join(misplaced)}: for the gateway's client, not an answer")
    asked = request_from(names[0], prompt, parameters, stream=True)
    extra = {**asked.extra, "fallbacks": [*names[1:]]}
    asked = msgspec.structs.replace(asked, extra=extra)
    await gateway.__aenter__()  # unless it has been
    return await with_error_handling(lambda http: _answer(gateway, http, asked))(http)


@with_error_handling
async def _stream(http: HttpRequest) -> HttpResponse:
    server = gateway_of(http)
    return await _answer(server, http, _asked(http, server))


async def _answer(server: Gateway, http: HttpRequest, asked: Request) -> HttpResponse:
    """The rest of an answer that was begun, else a new one."""
    last = http.headers.get("last-event-id") or http.query_params.get("last_event_id", "")
    begun, _, offset = last.rpartition(".")
    if not (begun and offset.isdecimal()):
        _check(asked)
        if http.method == "HEAD":
            return await _head(server, http)
        created = await server.begin(http, asked, server.settings.on_disconnect)
        return server.feed(http, _texts(server, created.stream.id, 0), created.stream.id)
    stream, after = await server.readable(http, begun), parse_int(offset)
    if is_exhausted(stream, after):
        return HttpResponse(status_code=204)
    return server.feed(http, _texts(server, stream.id, after), stream.id)


async def _head(server: Gateway, http: HttpRequest) -> HttpResponse:
    """What an answer would begin with: who only looks pays for none."""
    await server.caller(http)
    answer = HttpResponse(headers=STREAMING, media_type="text/event-stream")
    del answer.headers["content-length"]
    return answer


def _check(asked: Request) -> None:
    """A page asks for nothing more easily than a program."""
    if all(type(part) is Text and not part.text.strip() for part in asked.messages[-1].parts):
        said = "the prompt is empty; /stream takes it as ?prompt=..."
        raise BadRequest(said, status=400, code="invalid_request_error")


def _asked(http: HttpRequest, server: Gateway) -> Request:
    """The question in the query."""
    query = http.query_params
    options: dict[str, Any] = {name: query[name] for name in _OPTIONS if name in query}
    return Request(
        model=query.get("model") or server.default_model,
        messages=messages_from(query.get("prompt", ""), query.get("system")),
        extra={**options, "fallbacks": query.getlist("fallback")},
    )


_OPTIONS = ("on_disconnect", "grace")


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
    if end.state == DETACHED:
        return b""  # the body just ends, as after any cut, and browsers come back
    error = end_error(end)
    told = b"" if error is None else failure(error)
    return told + sse.encode(Frame(b"[DONE]", id=id))


routes = [Route("/stream", _stream, methods=["GET"])]
