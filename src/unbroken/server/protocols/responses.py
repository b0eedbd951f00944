"""POST /v1/responses, as OpenAI's (platform.openai.com/docs/api-reference/responses), and the way
back to an answer: GET /v1/responses/ID?stream=true&starting_after=N works for every provider.

An answer's id here is that of its log, so that any process can find it; `background` answers are
finished without a reader, all others end with their last one.
"""

import asyncio
from collections.abc import AsyncGenerator

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response as HttpResponse
from starlette.routing import Route

from unbroken.engine.accumulate import Accumulator
from unbroken.errors import BadRequest
from unbroken.events import Event, MessageStart
from unbroken.messages import Request
from unbroken.response import Response
from unbroken.server.gateway import Gateway, gateway_of
from unbroken.server.records import asked_from, broken_by, events_from
from unbroken.server.speak import careful
from unbroken.stores.base import BEGINNING, End, StreamInfo
from unbroken.wire.codec import Frame
from unbroken.wire.openai_responses import CODEC

_number = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@careful
async def _create(http: HttpRequest) -> HttpResponse:
    server = gateway_of(http)
    asked = CODEC.dialect.decode_request(await server.body(http))
    background = bool(asked.extra.get("background"))
    upstream = {key: value for key, value in asked.extra.items() if key not in _OURS}
    question = msgspec.structs.replace(asked, extra=upstream)
    created = await server.begin(
        http, question, "keep" if background else server.settings.on_disconnect
    )
    if asked.stream:
        return server.feed(_events(server, created.stream, asked, -1), created.stream.id)
    if background:
        return await _object(server, created.stream)
    async for _ in server.answers.follow(created.stream.id, BEGINNING):
        pass
    return await _object(server, await server.answers.store.info(created.stream.id))


_OURS = frozenset({"background", "store", "previous_response_id"})
"""What the gateway does itself, or can't do at another provider."""


@careful
async def _retrieve(http: HttpRequest) -> HttpResponse:
    server = gateway_of(http)
    stream = await server.readable(http, http.path_params["id"])
    if http.query_params.get("stream") != "true":
        return await _object(server, stream)
    seen = http.query_params.get("starting_after", "-1")
    if not seen.removeprefix("-").isdecimal():
        raise BadRequest(f"starting_after={seen!r} is no number", status=400)
    asked = asked_from((await server.answers.records(stream.id))[0]).request
    return server.feed(_events(server, stream, asked, int(seen)), stream.id)


@careful
async def _cancel(http: HttpRequest) -> HttpResponse:
    server = gateway_of(http)
    stream = await server.owned(http, http.path_params["id"])
    await server.answers.stop(stream.id)
    async with asyncio.timeout(10):
        async for _ in server.answers.follow(stream.id, BEGINNING):
            pass
    return await _object(server, await server.answers.store.info(stream.id))


async def _events(
    server: Gateway, stream: StreamInfo, asked: Request, seen: int
) -> AsyncGenerator[bytes, None]:
    """The whole stream is written again each time, and what the reader has seen left out: numbers
    depend on everything before them.
    """
    marked = msgspec.structs.replace(asked, extra={**asked.extra, "background": True})
    writer = CODEC.dialect.writer(marked, int(stream.created))
    followed = server.answers.follow(stream.id, BEGINNING)
    try:
        async for item in followed:
            if isinstance(item, End):
                frames = writer.fail(error) if (error := broken_by(item)) else []
            else:
                events = [_named(e, stream.id) for batch in item for e in batch.events]
                frames = [frame for event in events for frame in writer.write(event)]
            if said := b"".join(CODEC.encode_frame(f) for f in frames if _after(f, seen)):
                yield said
    finally:
        await followed.aclose()


def _named(event: Event, stream: str) -> Event:
    """Our answer's id is the log's, whatever the provider called its own."""
    return MessageStart(stream, event.model) if type(event) is MessageStart else event


def _after(frame: Frame, seen: int) -> bool:
    return seen < 0 or int(bytes(_number(frame.data)["sequence_number"])) > seen


async def _object(server: Gateway, stream: StreamInfo) -> HttpResponse:
    """The response object as far as it has come."""
    records = await server.answers.records(stream.id)
    fold = Accumulator(1)
    for record in records[1:]:
        fold.add(events_from(record))
    response = Response(
        id=stream.id,
        model=fold.model or stream.labels.get("model", ""),
        end="complete" if stream.end is not None else None,
        choices=fold.choices(complete=stream.end is not None),
        usage=fold.usage,
    )
    body = msgspec.json.decode(CODEC.dialect.encode_response(response, int(stream.created)))
    state = "in_progress" if stream.end is None else _STATES.get(stream.end.state, body["status"])
    body |= {"status": state, "background": True}
    if stream.end is not None and stream.end.state == "failed" and (error := broken_by(stream.end)):
        body["error"] = {"code": error.code or "server_error", "message": error.message}
    return HttpResponse(msgspec.json.encode(body), 200, media_type="application/json")


_STATES = {"cancelled": "cancelled", "failed": "failed"}

routes = [
    Route("/v1/responses", _create, methods=["POST"]),
    Route("/v1/responses/{id}", _retrieve, methods=["GET"]),
    Route("/v1/responses/{id}/cancel", _cancel, methods=["POST"]),
]
