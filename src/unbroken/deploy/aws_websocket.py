"""Answers over an API Gateway WebSocket: the pieces are pushed back to the connection.

    handler = WebSocketAnswers("bedrock/anthropic.claude-haiku-4-5", system="Be brief.")

is the function of three routes (docs.aws.amazon.com/apigateway: apigateway-websocket-api.html):

    $connect, $disconnect    nothing is kept; who has left is known from the next push (410)
    sendMessage              {"action": "sendMessage", "message": "...", "id": "..."}, or the turns
                             so far as "messages": [{"role": "user", "content": "..."}, ...]

An integration has 29 seconds, and no answer may hang on that, so `sendMessage` only starts an
asynchronous invocation of the same function, which has the function's own time (up to 15 minutes).
If that runs out in mid-answer, the next invocation goes on from what was delivered. It works in
AWS's own Python runtime: nothing here needs a streamed response.

What a client gets, in order by `seq` (one that it has seen is the same message again):

    {"id", "run", "seq", "type": "text", "text"}       more of the answer
    {"id", "run", "seq", "type": "restart"}            forget the text so far, it begins again
    {"id", "run", "seq", "type": "end", "finish_reason", "usage"}
    {"id", "run", "seq", "type": "error", "error": {"message", "type"}}

Lambda may start an asynchronous invocation twice (lambda/latest/api: API_Invoke.html); the two
differ in their `run`, and a client stays with the first it hears of.
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
    Gone,
    Pusher,
    PushFailed,
    TooLarge,
    again,
    endpoint_of,
)
from unbroken.engine.policy import RecoveryPolicy
from unbroken.errors import ConfigurationError, TimedOut, UnbrokenError
from unbroken.events import CONTENT, Event, Restarted, TextDelta
from unbroken.ready import ready

MARGIN = 3.0
"""Seconds before the function's timeout at which it hands over, or says that time is up."""

LAST_TRY = 1.0
"""Seconds before the timeout after which no message waits for another try. It is less than MARGIN,
so that a throttled connection still hears how it goes on."""

GATHER = 0.2
"""Seconds of text in one message. Every message is paid for, up to 32 KB the same
(aws.amazon.com/api-gateway/pricing, WebSocket APIs), and a token is four bytes."""

LEGS = 4
"""Invocations that one answer may take, each of them as long as the function's timeout."""

REWIND = RecoveryPolicy(rewind=True)
"""A client of ours can take back what it has shown, so a second answer that differs from the first
is no failure. Models that can't go on with a text of their own need that at a hand-over."""

Json = dict[str, Any]

_log = logging.getLogger(__name__)


class Running(Protocol):
    """What is used of Lambda's context object."""

    invoked_function_arn: str

    def get_remaining_time_in_millis(self) -> int: ...


class Turn(Struct, frozen=True):
    """What was said so far. A client has no say in the system prompt."""

    role: Literal["user", "assistant"]
    content: str


@ready
class Asked(Struct, frozen=True):
    """The body of `sendMessage`."""

    message: str = ""
    messages: list[Turn] = []
    id: Annotated[str, Meta(max_length=100)] = ""


@ready
class Job(Struct, frozen=True, kw_only=True):
    """What an asynchronous invocation has to do; `events` were delivered by the one before."""

    connection: str
    endpoint: str
    id: str
    turns: list[Turn]
    run: str = ""
    seq: int = 0
    leg: int = 1
    events: list[Event] = []


_OK: Json = {"statusCode": 200}


class WebSocketAnswers:
    """The function. `model` and `parameters` are those of `AsyncClient.stream`, the recovery being
    `REWIND` if there is none; `endpoint` is the management API's, if the event's own address is
    not to be used; `client` makes the client.
    """

    def __init__(
        self,
        model: Models,
        *,
        endpoint: str = "",
        client: Callable[[], AsyncClient] = AsyncClient,
        gather: float = GATHER,
        **parameters: Unpack[Parameters],
    ) -> None:
        if parameters.get("tools"):
            raise ConfigurationError("an answer over a WebSocket is text: it can't call tools")
        parameters.setdefault("recovery", REWIND)
        self._model, self._parameters = model, parameters
        self._endpoint, self._client, self._gather = endpoint, client, gather

    def __call__(self, event: Json, context: Running) -> Json:
        """Lambda's entry. Only who may invoke the function itself can send a job."""
        if "requestContext" not in event:
            asyncio.run(self._work(msgspec.convert(event["answer"], Job), context))
        elif event["requestContext"]["routeKey"] not in _SILENT:
            asyncio.run(self._start(event, context))
        return _OK

    async def _start(self, event: Json, context: Running) -> None:
        """Pass the question on, so that the integration is over at once."""
        request = event["requestContext"]
        job = Job(
            connection=request["connectionId"],
            endpoint=self._endpoint or endpoint_of(request),
            id=request["requestId"],
            turns=[],
        )
        try:
            await again(context.invoked_function_arn, _payload(_asked(job, event)))
        except Exception as error:
            await _Talk(job, _end(context)).error(error)
            if not isinstance(error, _TELLABLE):
                raise

    async def _work(self, job: Job, context: Running) -> None:
        """Answer one question. What goes wrong is told to the client."""
        end = _end(context)
        talk = _Talk(job, end)
        try:
            async with self._client() as client, self._stream(client, job) as stream:
                late = await talk.tell(stream, end - MARGIN, self._gather)
            if late:
                await self._hand_over(talk, context)
        except (Gone, PushFailed) as left:
            # Nobody listens: the stream is closed, and with it the provider's connection.
            _log.warning("%s: connection %s: %s", job.id, job.connection, left)
        except Exception as error:
            await talk.error(error)
            if not isinstance(error, _TELLABLE):
                raise  # for the function's own log

    def _stream(self, client: AsyncClient, job: Job) -> AsyncStream:
        prompt = [{"role": turn.role, "content": turn.content} for turn in job.turns]
        if job.events:
            return client.resume(job.events, self._model, prompt, **self._parameters)
        return client.stream(self._model, prompt, **self._parameters)

    async def _hand_over(self, talk: "_Talk", context: Running) -> None:
        """The next invocation goes on; there is none for what has no content yet, or too much."""
        job = talk.rest()
        payload = _payload(job)
        begun = any(type(event) in CONTENT for event in job.events)
        if job.leg > LEGS or not begun or len(payload) > ASYNC_PAYLOAD:
            raise TimedOut("the function's time is up")
        await again(context.invoked_function_arn, payload)


def _end(context: Running) -> float:
    """When Lambda kills the function, by the loop's clock."""
    return asyncio.get_running_loop().time() + context.get_remaining_time_in_millis() / 1000


_SILENT = frozenset({"$connect", "$disconnect"})

_TELLABLE = (UnbrokenError, msgspec.DecodeError)
"""Errors that a client may read; others are for the log."""


def _asked(job: Job, event: Json) -> Job:
    """The job, with what the client said. msgspec.DecodeError if that is nothing."""
    asked = msgspec.json.decode(event.get("body") or "{}", type=Asked)
    turns = [*asked.messages, *([Turn("user", asked.message)] if asked.message else [])]
    if not turns:
        raise msgspec.ValidationError("there is neither `message` nor `messages`")
    return msgspec.structs.replace(job, id=asked.id or job.id, turns=turns)


def _payload(job: Job) -> bytes:
    return msgspec.json.encode({"answer": job})


class _Talk:
    """What one connection is told of one answer: a reader that never waits for the connection, and
    a writer that says what has gathered. A message that is on its way is never cancelled, since
    nobody would know whether it arrived.
    """

    def __init__(self, job: Job, end: float) -> None:
        self._job = job
        self._push = Pusher(job.endpoint, job.connection, end - LAST_TRY)
        self._run = job.run or secrets.token_hex(4)
        self._seq = job.seq
        self._events = [*job.events]
        self._unsaid: list[str] = []
        self._restart = False
        self._more, self._over = asyncio.Event(), asyncio.Event()

    async def tell(self, stream: AsyncStream, until: float, gather: float) -> bool:
        """Say the answer; whether time was up before its end. Gone if nobody listens."""
        reading = asyncio.ensure_future(self._read(stream))
        try:
            await self._write(until, gather)
            late = not self._over.is_set()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        await self._catch_up()
        if not late:
            reading.result()
            response = stream.response
            usage = msgspec.to_builtins(response.usage)
            end = {"type": "end", "finish_reason": response.finish_reason, "usage": usage}
            await self._say(end)
        return late

    def rest(self) -> Job:
        """What is still to be done."""
        return msgspec.structs.replace(
            self._job,
            run=self._run,
            seq=self._seq,
            leg=self._job.leg + 1,
            events=_merged(self._events),
        )

    async def error(self, error: Exception) -> None:
        """The end of an answer that is none."""
        said = str(error) if isinstance(error, _TELLABLE) else "the function failed"
        with contextlib.suppress(Gone, PushFailed):
            told = {"message": said, "type": type(error).__name__}
            await self._say({"type": "error", "error": told})

    async def _read(self, stream: AsyncStream) -> None:
        try:
            async for batch in stream.batches():
                self._events += batch
                for event in batch:
                    self._take(event)
                self._more.set()
        finally:
            self._over.set()
            self._more.set()

    def _take(self, event: Event) -> None:
        if type(event) is TextDelta and event.choice == 0:
            self._unsaid.append(event.text)
        elif type(event) is Restarted:
            self._unsaid, self._restart = [], True

    async def _write(self, until: float, gather: float) -> None:
        """Say what has gathered, until the end or until time is up."""
        now = asyncio.get_running_loop().time
        while not self._over.is_set() and now() < until:
            await _wait(self._more, until - now())
            self._more.clear()
            await self._catch_up()
            await _wait(self._over, min(gather, until - now()))

    async def _catch_up(self) -> None:
        unsaid, self._unsaid = "".join(self._unsaid), []
        if self._restart:
            self._restart = False
            await self._say({"type": "restart"})
        if unsaid:
            await self._say_text(unsaid)

    async def _say_text(self, text: str) -> None:
        """In one message, or in as many as its size wants."""
        try:
            await self._say({"type": "text", "text": text})
        except TooLarge:
            half = len(text) // 2
            if not half:
                raise
            await self._say_text(text[:half])
            await self._say_text(text[half:])

    async def _say(self, told: Json) -> None:
        known = {"id": self._job.id, "run": self._run, "seq": self._seq}
        await self._push(msgspec.json.encode({**known, **told}))
        self._seq += 1


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), max(0.0, seconds))


def _merged(events: list[Event]) -> list[Event]:
    """The same answer in fewer events: text that follows on text is one."""
    merged: list[Event] = []
    for text, group in itertools.groupby(events, lambda e: type(e) is TextDelta and e.choice == 0):
        if text:
            merged.append(TextDelta("".join(e.text for e in group if isinstance(e, TextDelta))))
        else:
            merged += group
    return merged
