"""The gateway: an ASGI app over a store, to be served by itself or mounted in one's own.

    app.mount("/llm", unbroken.server.Gateway())

A mounted app is not told of its host's start and stop, so it starts at its first request; put
`async with gateway:` into the host's lifespan to take over dead answers from the beginning and to
hand over one's own at the end.
"""

import asyncio
import importlib
import pkgutil
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Any, Self

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.requests import Request as HttpRequest
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from unbroken.client._async import AsyncClient
from unbroken.client._plan import environment
from unbroken.errors import (
    BadRequest,
    NotFound,
    OffsetUnknown,
    Overloaded,
    StreamMissing,
)
from unbroken.messages import Request
from unbroken.metrics import prices
from unbroken.metrics.answered import AnswerCompleted, Observer, notify
from unbroken.metrics.prometheus import Board
from unbroken.server import revocation
from unbroken.server.admission import Models, Shares
from unbroken.server.answers import Answers
from unbroken.server.auth import KeyLimits, Keys, Principal, presented_key, user
from unbroken.server.bodies import parse_request, read_body
from unbroken.server.csrf import CrossOriginGuard
from unbroken.server.finish import Result
from unbroken.server.large_requests import load_record
from unbroken.server.log import log_answer
from unbroken.server.maintenance import Background
from unbroken.server.middleware import REQUEST_ID, AccessLogMiddleware, request_id
from unbroken.server.options import check_key, split_options
from unbroken.server.records import AnswerRequest, OnDisconnect, decode_request, encode_request
from unbroken.server.responses import RAW_SEND, StreamResponse
from unbroken.server.settings import RELOADABLE, Settings
from unbroken.server.shares import ShareLinks
from unbroken.server.travel import OMITTED_HEADER, with_headers
from unbroken.server.unknown_paths import unknown_path
from unbroken.server.usage import quota_error, request_charges
from unbroken.stores import registry
from unbroken.stores.base import Created, Store, StreamInfo
from unbroken.stores.counters import QuotaReached
from unbroken.wire.codec import Codec

try:
    from unbroken.metrics.otel import Spans
except ImportError:  # OpenTelemetry is an extra
    Spans = None  # type: ignore[assignment,misc]

Authenticate = Callable[[HTTPConnection], Awaitable[str | None]]
"""Whose request or WebSocket this is, by the app's own means: a user's lasting id, or None."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
"""The id of a stream."""

STREAM_HEADER = "x-unbroken-stream"
"""Names the answer's log, so that a client that knows us can come back to it."""


def found_routes() -> list[BaseRoute]:
    """Return the routes of every module in `protocols/`."""
    protocols = importlib.import_module("unbroken.server.protocols")
    names = sorted(module.name for module in pkgutil.iter_modules(protocols.__path__))
    modules = [importlib.import_module(f"{protocols.__name__}.{name}") for name in names]
    return [route for module in modules for route in module.routes]


class Gateway:
    """Answers over HTTP, each of them a durable log in `store`; without one, where the settings
    say: in the file `unbroken.db`, if they don't. With `authenticate`, the app around it says whose
    each answer is, and keys are not asked for.
    """

    def __init__(
        self,
        store: Store | None = None,
        *,
        client: AsyncClient | None = None,
        settings: Settings | None = None,
        key_limits: Mapping[str, KeyLimits] | None = None,
        authenticate: Authenticate | None = None,
    ) -> None:
        self.settings = settings or Settings()
        store = registry.open(self.settings.store) if store is None else store
        self.keys, self.board = Keys(store, key_limits), Board()
        self.shares = ShareLinks(store, self.keys)
        self._observers: list[Observer] = [self.board] if Spans is None else [self.board, Spans()]
        self._authenticate = authenticate
        self.client = client or AsyncClient()
        self.answers = Answers(store, self.client, self._on_finished)
        self.answers.set_retention(self.settings.retention, self.settings.keep_bytes)
        self.admitted = Models(self.settings, self.client.routes, environment())
        self._app = Starlette(
            routes=found_routes(),
            middleware=self._middleware(),
            lifespan=self._lifespan,
            exception_handlers={HTTPException: unknown_path},
        )
        self._app.state.gateway = self
        keys = self.keys if authenticate is None else None
        self.guard = CrossOriginGuard(self._app, keys, self.settings.cors)
        self._logged = AccessLogMiddleware(self.guard)
        self._background = Background()
        self._starting = asyncio.Lock()
        self._started = False
        self._starting_of = Shares("open answers", self.settings.max_streams_per_key)
        self.followers = Shares("readers", self.settings.max_followers_per_key)
        self._beginning = 0
        self._loading: asyncio.Task[None]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "lifespan" and not self._started:
            await self.__aenter__()
        scope[RAW_SEND] = send
        await self._logged(scope, receive, send)

    async def __aenter__(self) -> Self:
        async with self._starting:
            if not self._started:
                await self.answers.__aenter__()
                self._loading = asyncio.create_task(asyncio.to_thread(_preload))
                check = partial(revocation.stop_revoked, self.keys, self.answers)
                self._background.repeat("revoked_keys", revocation.INTERVAL, check)
                self._started = True
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._started:
            self._started = False
            await self._background.stop()
            await self._loading
            await self.answers.__aexit__()

    def reload(self, settings: Settings, key_limits: Mapping[str, KeyLimits]) -> list[str]:
        """Use new settings for the requests to come; open answers go on. Return the names of the
        changed settings that need a restart.
        """
        self.client.reload()
        changed = {name: getattr(settings, name) for name in RELOADABLE}
        running, self.settings = self.settings, msgspec.structs.replace(self.settings, **changed)
        self.answers.set_retention(settings.retention, settings.keep_bytes)
        self.keys.set_limits(key_limits)
        self.admitted = Models(self.settings, self.client.routes, environment())
        names = set(settings.__struct_fields__) - set(RELOADABLE)
        return sorted(name for name in names if getattr(settings, name) != getattr(running, name))

    def _middleware(self) -> list[Middleware]:
        """CORS, if other sites' pages may ask."""
        if not self.settings.cors:
            return []
        exposed = [STREAM_HEADER, OMITTED_HEADER, REQUEST_ID, "retry-after"]
        return [
            Middleware(
                CORSMiddleware,
                allow_origins=self.settings.cors,
                allow_methods=["*"],
                allow_headers=["*"],
                expose_headers=exposed,
            )
        ]

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncGenerator[None, None]:
        async with self:
            yield

    async def begin(
        self,
        http: HTTPConnection,
        request: Request,
        default_policy: OnDisconnect,
        key: str | None = None,
        *,
        background: bool = False,
    ) -> Created:
        """Start the answer to a request that came over HTTP, or find the one that it repeats.

        `default_policy` applies without readers unless the request chooses one. `key` is the
        idempotency key; None: the header's. BadRequest (422) if its first request was another.
        """
        caller = await self.caller(http)
        options, request = split_options(request)
        self._check([request.model, *options.fallbacks])
        self._starting_of.check(caller.owner, partial(self._open_of, caller.owner))
        self.admitted.check_fields(request.native.data if request.native else request.extra)
        asked = AnswerRequest(
            models=[request.model, *options.fallbacks],
            request=msgspec.structs.replace(request, include_usage=True),
            created=int(time.time()),
            owner=caller.owner,
            on_disconnect=options.on_disconnect or default_policy,
            grace=options.grace or self.settings.grace,
            request_id=request_id(http.scope),
            traceparent=http.headers.get("traceparent", ""),
            background=background,
        )
        once = check_key(http.headers.get("idempotency-key", "") if key is None else key)
        charges = request_charges(caller.owner, caller.limits.by_window())
        self._beginning += 1
        try:
            with self._starting_of.taken(caller.owner):
                created = await self.answers.start(
                    asked, caller.owner, once, _labels(asked), charges
                )
        except QuotaReached as reached:
            raise quota_error(reached, caller.name) from reached
        finally:
            self._beginning -= 1
        return created if created.fresh else await self._check_same_request(asked, created)

    async def _check_same_request(self, asked: AnswerRequest, created: Created) -> Created:
        """Return the stream of an idempotency key if its request equals this one."""
        first = (await self.answers.store.read(created.stream.id, limit=1)).records[0]
        record = await load_record(self.answers.store, first.data)
        if not await asyncio.to_thread(_is_same, record, asked):
            said = "this Idempotency-Key was used with a different request"
            raise BadRequest(said, status=422, code="idempotency_key_reused")
        return created

    def _check(self, models: list[str]) -> None:
        """Whether these may be asked, now. NotFound, Overloaded."""
        self.admitted.check(models)
        if self.answers.closing:
            said = "this server is restarting"
            raise Overloaded(said, status=503, code="restarting", retry_after=1.0)
        if len(self.answers.producers) + self._beginning >= self.settings.max_streams:
            said = f"this gateway is at its limit of {self.settings.max_streams} concurrent streams"
            raise Overloaded(said, status=503, code="too_many_streams", retry_after=1.0)

    def _open_of(self, owner: str) -> int:
        """The answers of one owner that are produced here."""
        return sum(one.request.owner == owner for one in self.answers.producers.values())

    def feed(
        self,
        http: HTTPConnection,
        source: AsyncGenerator[bytes, None],
        stream: str,
        headers: Mapping[str, str] | None = None,
    ) -> StreamResponse:
        """The response that sends what is read of a stream. RateLimited if the caller follows as
        many as it may.
        """
        owner = reader_of(http)
        self.followers.check(owner)
        shown = {STREAM_HEADER: stream, **(headers or {})}
        counted = partial(self.followers.taken, owner)
        return _Followed(counted, source, headers=shown, heartbeat=self.settings.heartbeat)

    async def owned(self, http: HTTPConnection, stream: str) -> StreamInfo:
        """A stream of the caller's own. NotFound for all others: nobody learns that they exist."""
        owner = (await self.caller(http)).owner
        found = await self._info(stream)
        if found is None or found.owner != owner:
            raise _no_stream(stream)
        return found

    async def _info(self, stream: str) -> StreamInfo | None:
        """What the store knows of a stream; only texts that can be ids are looked up."""
        if not _ID.fullmatch(stream):
            return None
        with suppress(StreamMissing):
            return await self.answers.store.info(stream)
        return None

    async def readable(self, http: HTTPConnection, stream: str) -> StreamInfo:
        """A stream that the caller may read: one's own, or one that a link shares."""
        token = http.query_params.get("token", "")
        if token and await self.shares.verify(token, stream):
            if (found := await self._info(stream)) is None:
                raise _no_stream(stream)
            return found
        return await self.owned(http, stream)

    async def caller(self, http: HTTPConnection) -> Principal:
        """Who asks, as the app says or by the key in `authorization` and its siblings.
        AuthenticationFailed if nobody we know.
        """
        if self._authenticate is not None:
            known = user(await self._authenticate(http))
            http.scope.setdefault("state", {})["owner"] = known.owner
            return known
        caller = await self.keys.principal(presented_key(http))
        http.scope.setdefault("state", {}).update(key=caller.name, owner=caller.owner)
        return caller

    def models(self) -> list[str]:
        """The names that `model` may have."""
        return self.admitted.names()

    @property
    def default_model(self) -> str:
        """The model when a request names none."""
        return self.admitted.default

    def _on_finished(self, asked: AnswerRequest, stream: str, result: Result) -> None:
        """Report an answer that this process ended: to the metrics, to traces, to the log."""
        completed = AnswerCompleted(
            model=asked.models[0],
            state=result.outcome.state,
            reason=result.outcome.reason,
            response=result.response,
            metrics=result.metrics,
            request=asked.request,
            traceparent=asked.traceparent,
        )
        notify(self._observers, completed)
        log_answer(asked, stream, completed, result.outcome, content=self.settings.log_content)

    async def request(self, http: HttpRequest, codec: Codec) -> Request:
        """The request in the body; BadRequest (413) if it is too large or too complex."""
        body = await read_body(http.stream(), self.settings.max_body)
        return with_headers(await parse_request(body, codec), http.headers)


class _Followed(StreamResponse):
    """A stream that is counted while it is read."""

    def __init__(
        self,
        counted: Callable[[], AbstractContextManager[None]],
        source: AsyncGenerator[bytes, None],
        **options: Any,
    ) -> None:
        super().__init__(source, **options)
        self._counted = counted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        with self._counted():
            await super().__call__(scope, receive, send)


def _no_stream(stream: str) -> NotFound:
    return NotFound(f"there is no stream {stream[:128]!r}", status=404)


def reader_of(http: HTTPConnection) -> str:
    """Whose readers a request counts among: its caller's, or those of a shared link."""
    token = http.query_params.get("token")
    owner: str = http.scope.get("state", {}).get("owner", "")
    return f"share:{token}" if token and not owner else owner


def _preload() -> None:
    """Load what the first answer would wait for: the HTTP client and the price list."""
    importlib.import_module("unbroken.transport.http_async")
    prices.load()


def _labels(asked: AnswerRequest) -> dict[str, str]:
    """What an answer is found by: its model, and how the question begins."""
    questions = (m.text for m in reversed(asked.request.messages) if m.role == "user")
    return {"model": asked.models[0], "question": next(questions, "")[:200]}


def _is_same(record: bytes, asked: AnswerRequest) -> bool:
    return decode_request(record).same(decode_request(encode_request(asked)))


def is_exhausted(stream: StreamInfo, after: int) -> bool:
    """Whether a reader at `after` has had everything. OffsetUnknown if there is no such place."""
    if after > stream.tail + (stream.end is not None):  # the end has an offset of its own
        raise OffsetUnknown(f"stream {stream.id!r} has no offset {after}")
    return after > stream.tail


def gateway_of(http: HTTPConnection) -> Gateway:
    """The gateway that a request came to."""
    gateway: Gateway = http.app.state.gateway
    return gateway
