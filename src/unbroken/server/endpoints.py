"""Endpoints that speak a provider's own dialect: for the official SDKs and whatever else does.

Streamed or in one piece, errors in the dialect's own shape. An error before the first content is
an HTTP status, as the provider itself would send it.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, get_args

from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response as HttpResponse

from unbroken.engine.accumulate import Accumulator
from unbroken.errors import (
    BadRequest,
    LocalProtocolError,
    NotFound,
    OffsetUnknown,
    Overloaded,
    ProviderError,
    StoreError,
    StreamMissing,
    UnbrokenError,
)
from unbroken.events import Notice
from unbroken.messages import Request
from unbroken.response import Response
from unbroken.server.gateway import STREAM_HEADER, Gateway, gateway_of
from unbroken.server.log import LOGGER, log_event
from unbroken.server.records import (
    Failure,
    as_unbroken_error,
    decode_outcome,
    end_error,
)
from unbroken.server.responses import wait_for_disconnect
from unbroken.server.tail import RecordBatch
from unbroken.server.travel import (
    ProviderFacts,
    error_headers,
    provider_facts,
    response_headers,
)
from unbroken.stores.base import BEGINNING, Created, End
from unbroken.wire import openai_chat
from unbroken.wire.codec import Codec

Endpoint = Callable[[HttpRequest], Awaitable[HttpResponse]]
Followed = AsyncGenerator[list[RecordBatch] | End, None]

DIGITS = 18

_NOTICES = frozenset(get_args(Notice))


Adjust = Callable[[HttpRequest, Request], Request]
"""Adds to a request what its dialect has in the path."""


def chat_endpoint(codec: Codec, adjust: Adjust = lambda _http, asked: asked) -> Endpoint:
    """An endpoint that answers in the dialect of `codec`."""

    async def endpoint(http: HttpRequest) -> HttpResponse:
        return await _answer(http, codec, adjust)

    return with_errors_in(endpoint, codec)


def with_error_handling(endpoint: Endpoint) -> Endpoint:
    """The endpoint, with errors in OpenAI's shape."""
    return with_errors_in(endpoint, openai_chat.CODEC)


def with_errors_of(codec: Codec) -> Callable[[Endpoint], Endpoint]:
    """A decorator: the endpoint, with errors in the dialect of `codec`."""
    return lambda endpoint: with_errors_in(endpoint, codec)


def with_errors_in(endpoint: Endpoint, codec: Codec) -> Endpoint:
    """The endpoint, with errors in the shape of a dialect."""

    async def answer(http: HttpRequest) -> HttpResponse:
        try:
            return await endpoint(http)
        except Exception as error:  # noqa: BLE001  # a fault of ours is told like all others
            return error_response(to_provider_error(error), codec)

    return answer


def to_provider_error(error: Exception) -> ProviderError:
    """What a caller of ours did wrong, in the words of a provider; and what we did, which is
    written down with its traceback.
    """
    if isinstance(error, ClientDisconnect):
        return client_disconnected()
    if isinstance(error, ProviderError) and error.status is not None:
        return error
    if isinstance(error, LocalProtocolError | OffsetUnknown):
        return BadRequest(str(error), status=400, code="invalid_request_error")
    if isinstance(error, RecursionError):
        said = "the request is nested too deeply"
        return BadRequest(said, status=400, code="invalid_request_error")
    if isinstance(error, StreamMissing):
        return NotFound(str(error), status=404)
    if isinstance(error, StoreError):
        log_event("store_unavailable", error=str(error))  # its address is for the operator
        said = "the store is unavailable"
        return Overloaded(said, status=503, code="store_unavailable", retry_after=1.0)
    if not isinstance(error, UnbrokenError):
        LOGGER.error("internal_error", exc_info=error)
    return Failure.from_error(as_unbroken_error(error)).to_error()


def error_response(error: ProviderError, codec: Codec) -> HttpResponse:
    """An error as an answer."""
    headers = {"content-type": "application/json"}
    if error.retry_after is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after))  # RFC 9110, 10.2.3
    headers |= error_headers(error, codec.dialect.name)
    own = error.body if error.dialect == codec.dialect.name else b""
    return HttpResponse(own or codec.dialect.encode_error(error), error.status or 500, headers)


async def provider_headers(server: Gateway, stream: str, codec: Codec) -> dict[str, str]:
    """What a client of this dialect learns from headers about the provider's answer. Nothing, while
    another process produces it.
    """
    producer = server.answers.producers.get(stream)
    if producer is not None:
        return response_headers(provider_facts(producer.response), codec.dialect.name)
    end = (await server.answers.store.info(stream)).end
    facts = ProviderFacts() if end is None else decode_outcome(end.final).facts
    return response_headers(facts, codec.dialect.name)


def parse_int(said: str) -> int:
    """An offset, a count. BadRequest for anything else: no store counts past 18 digits, and
    Python reads no number of more than 4,300.
    """
    if not said.isdecimal() or len(said) > DIGITS:
        raise BadRequest(
            f"{said[:24]!r} is not a non-negative integer", status=400, code="invalid_request_error"
        )
    return int(said)


async def wait_first_event(http: HttpRequest, stream: str) -> Followed:
    """An answer to be streamed, when there is a word of it or a heartbeat is due. Raises what
    broke it before: that can still be a status.
    """
    server = gateway_of(http)
    followed = server.answers.follow(stream, BEGINNING)
    first = asyncio.ensure_future(_first_event(followed))
    await until_disconnect(http, first, server.settings.heartbeat)
    if first.done() and isinstance(end := first.result(), End) and (error := end_error(end)):
        raise error
    return _from(first, followed)


async def _first_event(followed: Followed) -> list[RecordBatch] | End:
    """The first thing that a dialect has a word for: it knows none for our notices."""
    while True:
        item = await anext(followed)
        if isinstance(item, End) or any(type(e) not in _NOTICES for b in item for e in b.events):
            return item


async def _from(first: "asyncio.Future[list[RecordBatch] | End]", followed: Followed) -> Followed:
    try:
        yield await first
        async for item in followed:
            yield item
    finally:
        first.cancel()
        await followed.aclose()


async def collect(http: HttpRequest, stream: str, choices: int) -> Accumulator:
    """A whole answer, waited for while its reader is there. Raises what broke it."""
    fold, followed = Accumulator(choices), gateway_of(http).answers.follow(stream, BEGINNING)
    reading = asyncio.ensure_future(_fold(followed, fold))
    await until_disconnect(http, reading)
    if error := end_error(reading.result()):
        raise error
    return fold


async def _fold(followed: Followed, fold: Accumulator) -> End:
    async for item in followed:
        if isinstance(item, End):
            return item
        for batch in item:
            fold.add(batch.events)
    raise AssertionError("what is followed has an end")


async def until_disconnect(
    http: HttpRequest, awaited: "asyncio.Future[Any]", seconds: float | None = None
) -> None:
    """Wait for it, so long at most. If the reader leaves first it is given up, and `left` raised:
    a server hears that somebody has left only where it listens.
    """
    leaving = asyncio.ensure_future(wait_for_disconnect(http.receive))
    both = (awaited, leaving)
    try:
        await asyncio.wait(both, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if leaving.done() and not awaited.done():
            raise client_disconnected()
    except (ProviderError, asyncio.CancelledError):
        awaited.cancel()
        await asyncio.wait((awaited,))
        raise
    finally:
        leaving.cancel()


def client_disconnected() -> ProviderError:
    """What is said to nobody: the log shows it. 499 is nginx's number for it."""
    return BadRequest("the reader has left", status=499, code="client_closed_request")


async def _answer(http: HttpRequest, codec: Codec, adjust: Adjust) -> HttpResponse:
    server = gateway_of(http)
    asked = adjust(http, await server.request(http, codec))
    created = await server.begin(http, asked, server.settings.on_disconnect)
    if not asked.stream:
        return await _full_response(http, codec, asked, created)
    followed = await wait_first_event(http, created.stream.id)
    headers = await provider_headers(server, created.stream.id, codec)
    encoded = _encoded(followed, codec, asked, created)
    return server.feed(http, encoded, created.stream.id, headers)


async def _encoded(
    followed: Followed, codec: Codec, asked: Request, created: Created
) -> AsyncGenerator[bytes, None]:
    """The answer in the dialect, a read's worth at a time."""
    writer = codec.dialect.writer(asked, int(created.stream.created))
    try:
        async for item in followed:
            if not isinstance(item, End):
                yield codec.encode_all(writer, [event for batch in item for event in batch.events])
            elif error := end_error(item):
                yield b"".join(map(codec.encode_frame, writer.fail(error)))
    finally:
        await followed.aclose()


async def _full_response(
    http: HttpRequest, codec: Codec, asked: Request, created: Created
) -> HttpResponse:
    """The answer in one piece."""
    fold = await collect(http, created.stream.id, asked.n or 1)
    response = Response(
        id=fold.id,
        model=fold.model or asked.model,
        end="complete",
        choices=fold.choices(complete=True),
        usage=fold.usage,
    )
    body = codec.dialect.encode_response(response, int(created.stream.created))
    headers = {STREAM_HEADER: created.stream.id, "content-type": "application/json"}
    headers |= await provider_headers(gateway_of(http), created.stream.id, codec)
    return HttpResponse(body, 200, headers)
