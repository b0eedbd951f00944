"""Answers as resources: start one, come back to it, share it, stop it.

    POST   /v1/streams            starts an answer and returns its id at once (201); the same
                                  `Idempotency-Key` gives the same answer (200), not a second bill
    GET    /v1/streams            one's own, the youngest first: ?text= ?closed= ?limit= ?before=
    GET    /v1/streams/ID         as JSON: the whole so far; with ?wait=SECONDS a long poll for the
                                  events behind ?after=; with Accept: text/event-stream all events
                                  behind ?after= or Last-Event-ID, and what comes
    DELETE /v1/streams/ID         stops it, for every follower; of one that has ended, deletes the
                                  question, the answer and its idempotency key
    POST   /v1/streams/ID/share   a token: with ?token= anybody may read this one answer

The body of POST is that of chat completions. Offsets are opaque: hand them back as they came.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response as HttpResponse
from starlette.routing import Route

from unbroken.engine.accumulate import Accumulator
from unbroken.errors import BadRequest
from unbroken.messages.chat import write_message
from unbroken.response import Choice
from unbroken.server.endpoints import parse_int, until_disconnect, with_error_handling
from unbroken.server.gateway import Gateway, gateway_of, is_exhausted, reader_of
from unbroken.server.log import log_event
from unbroken.server.records import DETACHED, decode_outcome, decode_request, is_complete
from unbroken.server.tail import RecordBatch
from unbroken.stores.base import Search, StreamInfo
from unbroken.wire import sse
from unbroken.wire.codec import Frame
from unbroken.wire.openai_chat.dialect import CODEC

_encode = msgspec.json.Encoder().encode


def _json(body: Any, status: int = 200) -> HttpResponse:
    return HttpResponse(_encode(body), status, media_type="application/json")


@with_error_handling
async def _start(http: HttpRequest) -> HttpResponse:
    server = gateway_of(http)
    asked = await server.request(http, CODEC)
    created = await server.begin(http, asked, "keep")
    return _json(_shown(created.stream), 201 if created.fresh else 200)


@with_error_handling
async def _list(http: HttpRequest) -> HttpResponse:
    server, query = gateway_of(http), http.query_params
    closed = _CLOSED.get(query.get("closed", ""), "wrong")
    if isinstance(closed, str):
        raise BadRequest("closed is true or false", status=400, code="invalid_request_error")
    search = Search(
        text=query.get("text", ""),
        closed=closed,
        before=_number(query.get("before")),
        limit=min(_number(query.get("limit")) or 50, 500),
    )
    caller = await server.caller(http)
    found = await server.answers.store.find(caller.owner, search)
    return _json({"data": [_shown(stream) for stream in found.streams], "next": found.next})


_CLOSED: dict[str, bool | None] = {"": None, "true": True, "false": False}


@with_error_handling
async def _get(http: HttpRequest) -> HttpResponse:
    server, query = gateway_of(http), http.query_params
    stream = await server.readable(http, http.path_params["id"])
    after = _number(http.headers.get("last-event-id") or query.get("after")) or 0
    if "text/event-stream" in http.headers.get("accept", ""):
        if is_exhausted(stream, after):
            return HttpResponse(status_code=204)  # a browser would ask for ever
        return server.feed(http, _events(server, stream.id, after), stream.id)
    if "wait" in query or "after" in query:
        return await _poll(http, stream, after, _number(query.get("wait")) or 0)
    return _json(await _whole(server, stream, shared="token" in query))


@with_error_handling
async def _stop_or_delete(http: HttpRequest) -> HttpResponse:
    server = gateway_of(http)
    stream = await server.owned(http, http.path_params["id"])
    if stream.end is not None:
        await server.answers.delete(stream.id)
        return _json({**_shown(stream), "deleted": True})
    await server.answers.stop(stream.id)
    return _json(_shown(await server.answers.store.info(stream.id)))


@with_error_handling
async def _share(http: HttpRequest) -> HttpResponse:
    server = gateway_of(http)
    stream = await server.owned(http, http.path_params["id"])
    link, token = await server.shares.create(stream)
    log_event("share_created", id=link.id, stream=stream.id)
    return _json({"token": token, "id": link.id}, 201)


async def _events(server: Gateway, stream: str, after: int) -> AsyncGenerator[bytes, None]:
    """Each record as it stands in the log; the end's offset is behind all of them."""
    followed = server.answers.follow(stream, after)
    try:
        async for item in followed:
            if isinstance(item, list):
                yield b"".join(_frame(batch) for batch in item)
                after = item[-1].offset
            elif item.state != DETACHED:  # there the body just ends, as after any cut
                yield sse.encode(Frame(item.final or b"{}", event="end", id=str(after + 1)))
    finally:
        await followed.aclose()


def _frame(batch: RecordBatch) -> bytes:
    return sse.encode(Frame(batch.data, id=str(batch.offset)))


async def _poll(http: HttpRequest, stream: StreamInfo, after: int, seconds: int) -> HttpResponse:
    """The events behind `after`, waited for if there are none yet."""
    server, after = gateway_of(http), max(after, 1)
    owner = reader_of(http)
    server.followers.check(owner)
    polling = asyncio.ensure_future(server.answers.poll(stream.id, after, min(seconds, 60)))
    with server.followers.taken(owner):
        await until_disconnect(http, polling)  # a reader that hung up does not count as one
    batches, end = polling.result()
    return _json(
        {
            "id": stream.id,
            "events": [event for batch in batches for event in batch.events],
            "next": batches[-1].offset if batches else after,
            "state": "open" if end is None else end.state,
        }
    )


async def _whole(server: Gateway, stream: StreamInfo, *, shared: bool) -> dict[str, Any]:
    """The question and the answer so far; of one that is shared no more than its own question."""
    records = await server.answers.records(stream.id)
    asked = decode_request(records[0])
    said = asked.request.messages
    if shared:
        said = tuple(message for message in said if message.role == "user")[-1:]
    fold = Accumulator(asked.request.n or 1)
    for record in records[1:]:
        fold.add(RecordBatch(0, record).events)
    choices = fold.choices(complete=is_complete(stream.end))
    final = None if stream.end is None else decode_outcome(stream.end.final)
    return {
        **_shown(stream),
        "offset": len(records),
        "request": {
            "models": asked.models,
            "messages": [m for message in said for m in write_message(message)],
        },
        **_said(choices[0]),
        **({"choices": [_said(choice) for choice in choices]} if len(choices) > 1 else {}),
        "usage": fold.usage,
        "final": final,
    }


def _said(choice: Choice) -> dict[str, Any]:
    return {
        "text": choice.text,
        "reasoning": choice.reasoning,
        "tool_calls": choice.tool_calls,
    }


def _shown(stream: StreamInfo) -> dict[str, Any]:
    return {
        "id": stream.id,
        "object": "stream",
        "state": "open" if stream.end is None else stream.end.state,
        "model": stream.labels.get("model", ""),
        "question": stream.labels.get("question", ""),
        "created": int(stream.created),
    }


def _number(text: str | None) -> int | None:
    return parse_int(text) if text else None


routes = [
    Route("/v1/streams", _start, methods=["POST"]),
    Route("/v1/streams", _list, methods=["GET"]),
    Route("/v1/streams/{id}", _get, methods=["GET"]),
    Route("/v1/streams/{id}", _stop_or_delete, methods=["DELETE"]),
    Route("/v1/streams/{id}/share", _share, methods=["POST"]),
]
