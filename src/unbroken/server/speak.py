"""Endpoints that speak a provider's own dialect: for the official SDKs and whatever else does.

Streamed or in one piece, errors in the dialect's own shape. An error before the first content is
an HTTP status, as the provider itself would send it.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import get_args

from starlette.requests import Request as HttpRequest
from starlette.responses import Response as HttpResponse

from unbroken.engine.accumulate import Accumulator
from unbroken.errors import (
    BadRequest,
    ConfigurationError,
    LocalProtocolError,
    NotFound,
    OffsetUnknown,
    Overloaded,
    ProviderError,
    StoreError,
    UnbrokenError,
)
from unbroken.events import Notice
from unbroken.messages import Request
from unbroken.response import Response
from unbroken.server.gateway import STREAM_HEADER, gateway_of
from unbroken.server.live import Batch
from unbroken.server.records import broken_by, error_of
from unbroken.stores.base import BEGINNING, Created, End
from unbroken.wire import openai_chat
from unbroken.wire.codec import Codec

Endpoint = Callable[[HttpRequest], Awaitable[HttpResponse]]
Followed = AsyncGenerator[list[Batch] | End, None]

LEFT = End("left")
"""This process closes before the answer has ended: a body that just ends, as after any cut."""

_NOTICES = frozenset(get_args(Notice))


def speaking(codec: Codec) -> Endpoint:
    """An endpoint that answers in the dialect of `codec`."""

    async def endpoint(http: HttpRequest) -> HttpResponse:
        try:
            return await _answer(http, codec)
        except UnbrokenError as error:
            return refused(as_refusal(error), codec)

    return endpoint


def careful(endpoint: Endpoint) -> Endpoint:
    """The endpoint, with errors in OpenAI's shape."""

    async def answer(http: HttpRequest) -> HttpResponse:
        try:
            return await endpoint(http)
        except UnbrokenError as error:
            return refused(as_refusal(error), openai_chat.CODEC)

    return answer


def as_refusal(error: UnbrokenError) -> ProviderError:
    """What a caller of ours did wrong, in the words of a provider."""
    if isinstance(error, ProviderError):
        return error
    if isinstance(error, ConfigurationError):
        return NotFound(str(error), status=404, code="model_not_found")
    if isinstance(error, LocalProtocolError | OffsetUnknown):
        return BadRequest(str(error), status=400, code="invalid_request_error")
    if isinstance(error, StoreError):
        return Overloaded(str(error), status=503, code="store_unavailable", retry_after=1.0)
    return error_of(None)


def refused(error: ProviderError, codec: Codec) -> HttpResponse:
    """An error as an answer."""
    headers = {"content-type": "application/json"}
    if error.retry_after is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after))  # RFC 9110, 10.2.3
    return HttpResponse(codec.dialect.encode_error(error), error.status or 500, headers)


async def _answer(http: HttpRequest, codec: Codec) -> HttpResponse:
    server = gateway_of(http)
    asked = codec.dialect.decode_request(await server.body(http))
    created = await server.begin(http, asked, server.settings.on_disconnect)
    followed = server.answers.follow(created.stream.id, BEGINNING)
    if not asked.stream:
        return await _whole(followed, codec, asked, created)
    first = asyncio.ensure_future(_first_word(followed))
    await asyncio.wait(
        (first,), timeout=server.settings.heartbeat
    )  # so that a refusal can still be a status
    if first.done() and isinstance(end := first.result(), End) and (error := broken_by(end)):
        return refused(error, codec)
    return server.feed(_encoded(first, followed, codec, asked, created), created.stream.id)


async def _first_word(followed: Followed) -> list[Batch] | End:
    """The first thing that a dialect has a word for: it knows none for our notices."""
    while True:
        item = await anext(followed, LEFT)
        if isinstance(item, End) or any(type(e) not in _NOTICES for b in item for e in b.events):
            return item


async def _encoded(
    first: "asyncio.Future[list[Batch] | End]",
    followed: Followed,
    codec: Codec,
    asked: Request,
    created: Created,
) -> AsyncGenerator[bytes, None]:
    """The answer in the dialect, a read's worth at a time."""
    writer = codec.dialect.writer(asked, int(created.stream.created))
    try:
        item = await first
        while not isinstance(item, End):
            yield codec.encode_all(writer, [event for batch in item for event in batch.events])
            item = await anext(followed, LEFT)
        if error := broken_by(item):
            yield b"".join(map(codec.encode_frame, writer.fail(error)))
    finally:
        first.cancel()
        await followed.aclose()


async def _whole(
    followed: Followed, codec: Codec, asked: Request, created: Created
) -> HttpResponse:
    """The answer in one piece."""
    fold, end = Accumulator(asked.n or 1), End("failed")
    async for item in followed:
        if isinstance(item, End):
            end = item
        else:
            for batch in item:
                fold.add(batch.events)
    if error := broken_by(end):
        return refused(error, codec)
    response = Response(
        id=fold.id,
        model=fold.model or asked.model,
        end="complete",
        choices=fold.choices(complete=True),
        usage=fold.usage,
    )
    body = codec.dialect.encode_response(response, int(created.stream.created))
    headers = {STREAM_HEADER: created.stream.id, "content-type": "application/json"}
    return HttpResponse(body, 200, headers)
