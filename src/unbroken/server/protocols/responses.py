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
from unbroken.errors import BadRequest, OffsetUnknown
from unbroken.events import Event, MessageStart
from unbroken.messages import Request
from unbroken.response import Response
from unbroken.server.endpoints import (
    Followed,
    collect,
    parse_int,
    provider_headers,
    wait_first_event,
    with_errors_of,
)
from unbroken.server.gateway import STREAM_HEADER, Gateway, gateway_of
from unbroken.server.options import without
from unbroken.server.records import DETACHED, decode_events, decode_request, end_error, is_complete
from unbroken.server.tail import RecordBatch
from unbroken.stores.base import BEGINNING, End, StreamInfo
from unbroken.wire.codec import Frame, FrameWriter
from unbroken.wire.openai_responses.dialect import CODEC

_numbered = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@with_errors_of(CODEC)
async def _create(http: HttpRequest) -> HttpResponse:
    server = gateway_of(http)
    asked = await server.request(http, CODEC)
    background = bool(asked.option("background"))
    created = await server.begin(
        http,
        _question(asked),
        "keep" if background else server.settings.on_disconnect,
        background=background,
    )
    stream = created.stream
    if asked.stream:
        followed = await (_followed if background else wait_first_event)(http, stream.id)
        headers = await provider_headers(server, stream.id, CODEC)
        return server.feed(http, _events(followed, stream, asked, -1), stream.id, headers)
    if not background:
        await collect(http, stream.id, 1)
        stream = await server.answers.store.info(stream.id)
    return await _object(server, stream)


def _question(asked: Request) -> Request:
    """What the provider is asked. BadRequest for a conversation of which only the end is sent."""
    if asked.option("previous_response_id"):
        said = "previous_response_id is unknown here: send the conversation whole, as `input`"
        raise BadRequest(said, status=400, code="unsupported_parameter")
    return without(asked, _OURS)


_OURS = frozenset({"background", "previous_response_id"})
"""What the gateway does itself, for every provider."""


async def _followed(http: HttpRequest, stream: str) -> Followed:
    """A background answer is there whatever becomes of it: its errors are events."""
    return gateway_of(http).answers.follow(stream, BEGINNING)


@with_errors_of(CODEC)
async def _retrieve(http: HttpRequest) -> HttpResponse:
    server = gateway_of(http)
    stream = await server.readable(http, http.path_params["id"])
    if http.query_params.get("stream") != "true":
        return await _object(server, stream)
    records = await server.answers.records(stream.id)
    asked = _asked(records[0])
    seen = await asyncio.to_thread(_seen, http, stream, asked, records[1:])  # all are encoded
    followed = server.answers.follow(stream.id, BEGINNING)
    return server.feed(http, _events(followed, stream, asked, seen), stream.id)


def _asked(record: bytes) -> Request:
    """The question as it came, `background` and all."""
    asked = decode_request(record)
    extra = {**asked.request.extra, "background": asked.background}
    return msgspec.structs.replace(asked.request, extra=extra)


def _seen(http: HttpRequest, stream: StreamInfo, asked: Request, records: list[bytes]) -> int:
    """The number that the reader has seen last, -1 for none. OffsetUnknown if it never was."""
    said = http.query_params.get("starting_after", "-1")
    seen = -1 if said == "-1" else parse_int(said)
    writer = CODEC.dialect.writer(asked, int(stream.created))
    parts: list[list[RecordBatch] | End] = [[RecordBatch(0, record)] for record in records]
    parts += [] if stream.end is None else [stream.end]
    if seen >= sum(len(_frames(writer, part, stream.id)) for part in parts):
        raise OffsetUnknown(f"response {stream.id!r} has no event {seen}")
    return seen


@with_errors_of(CODEC)
async def _cancel(http: HttpRequest) -> HttpResponse:
    server = gateway_of(http)
    stream = await server.owned(http, http.path_params["id"])
    await _stopped(server, stream)
    return await _object(server, await server.answers.store.info(stream.id))


@with_errors_of(CODEC)
async def _delete(http: HttpRequest) -> HttpResponse:
    server = gateway_of(http)
    stream = await server.owned(http, http.path_params["id"])
    await _stopped(server, stream)
    await server.answers.delete(stream.id)
    body = {"id": stream.id, "object": "response", "deleted": True}
    return HttpResponse(msgspec.json.encode(body), media_type="application/json")


async def _stopped(server: Gateway, stream: StreamInfo) -> None:
    """Stop an answer, and wait for its end."""
    if stream.end is None:
        await server.answers.stop(stream.id)
        async with asyncio.timeout(10):
            async for _ in server.answers.follow(stream.id, BEGINNING):
                pass


async def _events(
    followed: Followed, stream: StreamInfo, asked: Request, seen: int
) -> AsyncGenerator[bytes, None]:
    """The whole stream is written again each time, and what the reader has seen left out: numbers
    depend on everything before them.
    """
    writer = CODEC.dialect.writer(asked, int(stream.created))
    try:
        async for item in followed:
            frames = [f for f in _frames(writer, item, stream.id) if _after(f, seen)]
            if isinstance(item, End) and item.state == DETACHED:
                frames = [_unnumbered(frame) for frame in frames]
            if said := b"".join(map(CODEC.encode_frame, frames)):
                yield said
    finally:
        await followed.aclose()


def _frames(writer: FrameWriter, item: list[RecordBatch] | End, stream: str) -> list[Frame]:
    if isinstance(item, End):
        return writer.fail(error) if (error := end_error(item)) else []
    events = [_named(event, stream) for batch in item for event in batch.events]
    return [frame for event in events for frame in writer.write(event)]


def _unnumbered(frame: Frame) -> Frame:
    """What stands in no log counts for nothing: it has the number of the frame before it, so that
    whoever comes back misses none.
    """
    said = msgspec.json.decode(frame.data)
    said["sequence_number"] -= 1
    return Frame(msgspec.json.encode(said), event=frame.event)


def _named(event: Event, stream: str) -> Event:
    """Our answer's id is the log's, whatever the provider called its own."""
    return MessageStart(stream, event.model) if type(event) is MessageStart else event


def _after(frame: Frame, seen: int) -> bool:
    return seen < 0 or int(bytes(_numbered(frame.data)["sequence_number"])) > seen


async def _object(server: Gateway, stream: StreamInfo) -> HttpResponse:
    """The response object as far as it has come."""
    records = await server.answers.records(stream.id)
    fold = Accumulator(1)
    for record in records[1:]:
        fold.add(decode_events(record))
    response = Response(
        id=stream.id,
        model=fold.model or stream.labels.get("model", ""),
        end="complete" if stream.end is not None else None,
        choices=fold.choices(complete=is_complete(stream.end)),
        usage=fold.usage,
    )
    body = msgspec.json.decode(CODEC.dialect.encode_response(response, int(stream.created)))
    state = "in_progress" if stream.end is None else _STATES.get(stream.end.state, body["status"])
    body |= {"status": state, "background": decode_request(records[0]).background}
    if stream.end is not None and stream.end.state == "failed" and (error := end_error(stream.end)):
        body["error"] = {"code": error.code or "server_error", "message": error.message}
    headers = {STREAM_HEADER: stream.id}
    headers |= await provider_headers(server, stream.id, CODEC)
    return HttpResponse(msgspec.json.encode(body), 200, headers, "application/json")


_STATES = {"cancelled": "cancelled", "failed": "failed"}

routes = [
    Route("/v1/responses", _create, methods=["POST"]),
    Route("/v1/responses/{id}", _retrieve, methods=["GET"]),
    Route("/v1/responses/{id}", _delete, methods=["DELETE"]),
    Route("/v1/responses/{id}/cancel", _cancel, methods=["POST"]),
]
