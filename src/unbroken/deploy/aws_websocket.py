"""Answers over an API Gateway WebSocket: the text is pushed back to the connection.

    handler = WebSocketAnswers("bedrock/anthropic.claude-haiku-4-5", system="Be brief.")

serves three routes (docs.aws.amazon.com/apigateway: apigateway-websocket-api.html):

    $connect, $disconnect    no state is kept; the next push detects a closed connection (410)
    sendMessage              {"action": "sendMessage", "message": "...", "id": "..."}, or the turns
                             so far as "messages": [{"role": "user", "content": "..."}, ...]

An integration times out after 29 seconds. Therefore `sendMessage` only starts an asynchronous
invocation of the same function, which may run for the function's own timeout (up to 15 minutes).
If that expires in mid-answer, the next invocation continues from what was delivered. This works in
AWS's own Python runtime: no streamed response is needed.

Messages to the client, ordered by `seq` (a repeated `seq` is the same message again):

    {"id", "run", "seq", "type": "text", "text"}       more of the answer
    {"id", "run", "seq", "type": "restart"}            discard the text so far, the answer restarts
    {"id", "run", "seq", "type": "end", "finish_reason", "usage"}
    {"id", "run", "seq", "type": "error", "error": {"message", "type"}}

Lambda may start an asynchronous invocation twice (lambda/latest/api: API_Invoke.html); the two
differ in `run`, and a client keeps to the first `run` it receives.
"""

import asyncio
import contextlib
import itertools
import logging
import secrets
from collections.abc import Callable
from typing import Annotated, Any, Literal, Protocol, Unpack

import msgspec
from msgspec import Meta, Struct

from unbroken.client._async import AsyncClient, AsyncStream
from unbroken.client._plan import Models, Parameters
from unbroken.deploy._aws_calls import (
    ASYNC_PAYLOAD,
    ConnectionGone,
    ConnectionSender,
    PushFailed,
    TooLarge,
    endpoint_of,
    invoke_async,
)
from unbroken.engine.policy import RecoveryPolicy
from unbroken.errors import ConfigurationError, TimedOut, UnbrokenError
from unbroken.events import CONTENT, Event, Restarted, TextDelta
from unbroken.ready import ready

MARGIN = 3.0
"""Seconds before the function's timeout at which it hands over, or reports a timeout."""

LAST_TRY = 1.0
"""Seconds before the timeout after which no message is retried. Less than MARGIN, so that a
throttled connection still receives the last message."""

BATCH_WINDOW = 0.2
"""Seconds of text per message. Every message is billed, up to 32 KB at the same price
(aws.amazon.com/api-gateway/pricing, WebSocket APIs), and a token is four bytes."""

MAX_INVOCATIONS = 4
"""Invocations per answer, each of at most the function's timeout."""

ALLOW_RESTART = RecoveryPolicy(allow_restart=True)
"""A client of this protocol can discard what it has shown (`restart`), so a different second answer
is acceptable. Models that can't continue their own text need this at a hand-over."""

Json = dict[str, Any]

_log = logging.getLogger(__name__)


class LambdaContext(Protocol):
    """The attributes of Lambda's context object that are used here."""

    invoked_function_arn: str

    def get_remaining_time_in_millis(self) -> int: ...


class Turn(Struct, frozen=True):
    """An earlier turn. A client can't set the system prompt."""

    role: Literal["user", "assistant"]
    content: str


@ready
class SendMessage(Struct, frozen=True):
    """The body of `sendMessage`."""

    message: str = ""
    messages: list[Turn] = []
    id: Annotated[str, Meta(max_length=100)] = ""


@ready
class Job(Struct, frozen=True, kw_only=True):
    """The payload of an asynchronous invocation; `events` were delivered by earlier ones."""

    connection: str
    endpoint: str
    id: str
    turns: list[Turn]
    run: str = ""
    seq: int = 0
    invocation: int = 1
    events: list[Event] = []


_OK: Json = {"statusCode": 200}


class WebSocketAnswers:
    """The Lambda function. `model` and `parameters` are those of `AsyncClient.stream`; `recovery`
    defaults to `ALLOW_RESTART`. `endpoint` replaces the management API's URL from the event;
    `client` creates the client; `gather` is the batch window in seconds.
    """

    def __init__(
        self,
        model: Models,
        *,
        endpoint: str = "",
        client: Callable[[], AsyncClient] = AsyncClient,
        gather: float = BATCH_WINDOW,
        **parameters: Unpack[Parameters],
    ) -> None:
        if parameters.get("tools"):
            raise ConfigurationError("tools can't be used over a WebSocket: answers are text only")
        parameters.setdefault("recovery", ALLOW_RESTART)
        self._model, self._parameters = model, parameters
        self._endpoint, self._client, self._batch_window = endpoint, client, gather

    def __call__(self, event: Json, context: LambdaContext) -> Json:
        """Handle an event. Only principals that may invoke the function itself can send a job."""
        if "requestContext" not in event:
            asyncio.run(self._work(msgspec.convert(event["answer"], Job), context))
        elif event["requestContext"]["routeKey"] not in _SILENT:
            asyncio.run(self._start(event, context))
        return _OK

    async def _start(self, event: Json, context: LambdaContext) -> None:
        """Start the asynchronous invocation, so that the integration returns at once."""
        request = event["requestContext"]
        job = Job(
            connection=request["connectionId"],
            endpoint=self._endpoint or endpoint_of(request),
            id=request["requestId"],
            turns=[],
        )
        try:
            await invoke_async(context.invoked_function_arn, _payload(_with_turns(job, event)))
        except Exception as error:
            await _Session(job, _end(context)).error(error)
            if not isinstance(error, _PUBLIC_ERRORS):
                raise

    async def _work(self, job: Job, context: LambdaContext) -> None:
        """Answer one request. Errors are sent to the client."""
        end = _end(context)
        session = _Session(job, end)
        try:
            async with self._client() as client, self._stream(client, job) as stream:
                late = await session.deliver(stream, end - MARGIN, self._batch_window)
            if late:
                await self._hand_over(session, context)
        except (ConnectionGone, PushFailed) as error:
            # The stream is closed, and with it the connection to the provider.
            _log.warning("%s: connection %s: %s", job.id, job.connection, error)
        except Exception as error:
            await session.error(error)
            if not isinstance(error, _PUBLIC_ERRORS):
                raise  # into the function's own log

    def _stream(self, client: AsyncClient, job: Job) -> AsyncStream:
        prompt = [{"role": turn.role, "content": turn.content} for turn in job.turns]
        if job.events:
            return client.resume(job.events, self._model, prompt, **self._parameters)
        return client.stream(self._model, prompt, **self._parameters)

    async def _hand_over(self, session: "_Session", context: LambdaContext) -> None:
        """Start the next invocation. Raises TimedOut with no content yet, or too much."""
        job = session.rest()
        payload = _payload(job)
        has_content = any(type(event) in CONTENT for event in job.events)
        if job.invocation > MAX_INVOCATIONS or not has_content or len(payload) > ASYNC_PAYLOAD:
            raise TimedOut("the function reached its timeout")
        await invoke_async(context.invoked_function_arn, payload)


def _end(context: LambdaContext) -> float:
    """Return the function's deadline on the event loop's clock, in seconds."""
    return asyncio.get_running_loop().time() + context.get_remaining_time_in_millis() / 1000


_SILENT = frozenset({"$connect", "$disconnect"})

_PUBLIC_ERRORS = (UnbrokenError, msgspec.DecodeError)
"""Errors whose message is sent to the client; others are only logged."""


def _with_turns(job: Job, event: Json) -> Job:
    """Return the job with the client's turns. Raises msgspec.DecodeError for an invalid body."""
    body = msgspec.json.decode(event.get("body") or "{}", type=SendMessage)
    turns = [*body.messages, *([Turn("user", body.message)] if body.message else [])]
    if not turns:
        raise msgspec.ValidationError("`message` or `messages` is required")
    return msgspec.structs.replace(job, id=body.id or job.id, turns=turns)


def _payload(job: Job) -> bytes:
    return msgspec.json.encode({"answer": job})


class _Session:
    """One answer sent to one connection: a reader that never waits for the connection, and a
    writer that sends batches. A message in flight is never cancelled, since its delivery would be
    unknown.
    """

    def __init__(self, job: Job, end: float) -> None:
        self._job = job
        self._push = ConnectionSender(job.endpoint, job.connection, end - LAST_TRY)
        self._run = job.run or secrets.token_hex(4)
        self._seq = job.seq
        self._events = [*job.events]
        self._pending: list[str] = []
        self._restart = False
        self._more, self._finished = asyncio.Event(), asyncio.Event()

    async def deliver(self, stream: AsyncStream, until: float, batch_window: float) -> bool:
        """Send the answer; return True if the deadline came before its end."""
        reading = asyncio.ensure_future(self._read(stream))
        try:
            await self._write(until, batch_window)
            late = not self._finished.is_set()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        await self._flush()
        if not late:
            reading.result()
            response = stream.response
            usage = msgspec.to_builtins(response.usage)
            end = {"type": "end", "finish_reason": response.finish_reason, "usage": usage}
            await self._send(end)
        return late

    def rest(self) -> Job:
        """Return the job for the next invocation."""
        return msgspec.structs.replace(
            self._job,
            run=self._run,
            seq=self._seq,
            invocation=self._job.invocation + 1,
            events=_coalesced(self._events),
        )

    async def error(self, error: Exception) -> None:
        """Send an error as the end of the answer."""
        message = str(error) if isinstance(error, _PUBLIC_ERRORS) else "the function failed"
        with contextlib.suppress(ConnectionGone, PushFailed):
            facts = {"message": message, "type": type(error).__name__}
            await self._send({"type": "error", "error": facts})

    async def _read(self, stream: AsyncStream) -> None:
        try:
            async for batch in stream.batches():
                self._events += batch
                for event in batch:
                    self._take(event)
                self._more.set()
        finally:
            self._finished.set()
            self._more.set()

    def _take(self, event: Event) -> None:
        if type(event) is TextDelta and event.choice == 0:
            self._pending.append(event.text)
        elif type(event) is Restarted:
            self._pending, self._restart = [], True

    async def _write(self, until: float, batch_window: float) -> None:
        """Send batches until the end of the answer or the deadline."""
        now = asyncio.get_running_loop().time
        while not self._finished.is_set() and now() < until:
            await _wait(self._more, until - now())
            self._more.clear()
            await self._flush()
            await _wait(self._finished, min(batch_window, until - now()))

    async def _flush(self) -> None:
        pending, self._pending = "".join(self._pending), []
        if self._restart:
            self._restart = False
            await self._send({"type": "restart"})
        if pending:
            await self._send_text(pending)

    async def _send_text(self, text: str) -> None:
        """Send text, in several messages if it is too large for one."""
        try:
            await self._send({"type": "text", "text": text})
        except TooLarge:
            half = len(text) // 2
            if not half:
                raise
            await self._send_text(text[:half])
            await self._send_text(text[half:])

    async def _send(self, message: Json) -> None:
        known = {"id": self._job.id, "run": self._run, "seq": self._seq}
        await self._push(msgspec.json.encode({**known, **message}))
        self._seq += 1


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), max(0.0, seconds))


def _coalesced(events: list[Event]) -> list[Event]:
    """Coalesce adjacent text events."""
    merged: list[Event] = []
    for text, group in itertools.groupby(events, lambda e: type(e) is TextDelta and e.choice == 0):
        if text:
            merged.append(TextDelta("".join(e.text for e in group if isinstance(e, TextDelta))))
        else:
            merged += group
    return merged
