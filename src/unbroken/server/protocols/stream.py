"""GET /stream?prompt=...&model=...: one question, one answer, for `EventSource` and curl.

Each event's id names the answer and the offset. A browser that reconnects by itself hands it back
as `Last-Event-ID` and gets the rest of the same answer, never a second one; when it has had the
end it gets a 204, which is the only way to make it stop (WHATWG HTML 9.2.3).
"""

from collections.abc import AsyncGenerator

from starlette.requests import Request as HttpRequest
from starlette.responses import Response as HttpResponse
from starlette.routing import Route

from unbroken.errors import BadRequest
from unbroken.messages import Request, messages_from
from unbroken.server import gateway
from unbroken.server.feed import Feed
from unbroken.server.records import error_of, final_from
from unbroken.server.speak import careful
from unbroken.server.sse import Texts, failure
from unbroken.stores.base import End
from unbroken.wire import sse
from unbroken.wire.codec import Frame


@careful
async def _stream(http: HttpRequest) -> HttpResponse:
    server = gateway.of(http)
    answer, _, offset = http.headers.get("last-event-id", "").rpartition(".")
    if answer and offset.isdecimal():
        stream, after = await server.readable(http, answer), int(offset)
        if stream.end is not None and after > stream.tail:
            return HttpResponse(status_code=204)
        return Feed(_texts(server, stream.id, after))
    prompt = http.query_params.get("prompt", "")
    if not prompt.strip():
        said = "there is no prompt: /stream?prompt=..."
        raise BadRequest(said, status=400, code="invalid_request_error")
    model = http.query_params.get("model") or server.default_model
    asked = Request(model=model, messages=messages_from(prompt, http.query_params.get("system")))
    created = await server.begin(http, asked, server.settings.on_disconnect)
    return Feed(_texts(server, created.stream.id, 0))


async def _texts(server: gateway.Gateway, stream: str, after: int) -> AsyncGenerator[bytes, None]:
    followed, write = server.answers.follow(stream, after), Texts()
    try:
        async for item in followed:
            if isinstance(item, End):
                yield _end(item, f"{stream}.{after + 1}")
                continue
            after = item[-1].offset
            said = [event for batch in item for event in batch.events]
            if data := write(said, f"{stream}.{after}"):
                yield data
    finally:
        await followed.aclose()


def _end(end: End, id: str) -> bytes:
    final = final_from(end.final)
    told = failure(error_of(final.error)) if final.state == "failed" else b""
    return told + sse.encode(Frame(b"[DONE]", id=id))


routes = [Route("/stream", _stream, methods=["GET"])]
