"""The client and its streams, for callers that await."""

import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self, Unpack
from weakref import WeakValueDictionary

from unbroken.client._map import AsyncPrompts, Results, map_async
from unbroken.client._plan import (
    Models,
    OneOrEach,
    Parameters,
    closed,
    host,
    plan,
    reloaded,
    settings,
)
from unbroken.client._run_async import AsyncRun
from unbroken.client.tool_loop import ToolLoop
from unbroken.engine.delivery import Delivery
from unbroken.engine.limits import Limits
from unbroken.engine.policy import RecoveryPolicy, Timeouts
from unbroken.errors import TimedOut, UnbrokenError
from unbroken.events import Event, TextDelta
from unbroken.messages import Prompt, ToolLike
from unbroken.metrics.answered import Observer, Watch
from unbroken.metrics.timing import StreamMetrics
from unbroken.providers.base import Provider
from unbroken.response import Response
from unbroken.transport.base import AsyncBody, AsyncTransport, HttpRequest
from unbroken.transport.split import AsyncSplitTransport


class AsyncStream:
    """One answer as it comes. Iterate over it, its `text` or its `batches`, once.

    Leaving the `with` block, or closing, ends the answer and closes the connection at once.
    Iterating raises an UnbrokenError whose `response` holds what arrived.
    """

    def __init__(self, driver: "_Driver", transport: AsyncTransport) -> None:
        self._driver = driver
        self._transport = transport
        self._batches = self._driver.batches()
        self._events: deque[Event] = deque()  # read, and not taken yet

    @property
    def response(self) -> Response:
        """The answer as far as it has come."""
        return self._driver.delivery.response

    @property
    def partial(self) -> Any:
        """The answer as data, as far as it has come; None until there is some."""
        return self.response.partial

    @property
    def parsed(self) -> Any:
        """The answer as what `response_format` asked for; raises OutputMismatch."""
        return self.response.parsed

    @property
    def metrics(self) -> StreamMetrics:
        """The timing as far as it is known."""
        return self._driver.delivery.metrics

    @property
    def text(self) -> AsyncIterator[str]:
        """The visible text of the first choice, piece by piece."""
        return self._text()

    async def batches(self) -> AsyncGenerator[list[Event], None]:
        """The events as they arrive, all that one read brought at a time."""
        while await self._more():
            batch = [*self._events]
            self._events.clear()
            yield batch

    async def __aiter__(self) -> AsyncGenerator[Event, None]:
        """Every event, one at a time. A loop that is left can be taken up by another one."""
        while await self._more():
            yield self._events.popleft()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop here, whatever is waited for. What had arrived stays in `response`.

        Another task may be reading: its loop just ends, and is not waited for.
        """
        await self._driver.abandon()
        if not self._batches.ag_running:  # type: ignore[attr-defined]  # of the generator's own
            with contextlib.suppress(RuntimeError, ValueError):  # it has just been read on
                await self._batches.aclose()
                self._driver.delivery.cancel(self._transport.now())

    async def abort(self) -> None:
        """Close the connection at once, also while another task reads: its loop just ends."""
        await self._driver.abandon()

    async def _text(self) -> AsyncGenerator[str, None]:
        self._driver.delivery.forbid_restart()
        async for event in self:
            if type(event) is TextDelta and event.choice == 0:
                yield event.text

    async def _more(self) -> bool:
        """Return whether there are events to take; read on if none are left."""
        if self._driver.left:
            self._events.clear()
        while not self._events:
            try:
                batch = await anext(self._batches, None)
            except (RuntimeError, ValueError):  # closed by another reader at this moment
                if not self._driver.left:
                    raise
                return False
            if batch is None:
                return False
            self._events.extend(batch)
        return True


class _Driver:
    """Carries a delivery out. It has no reference to the stream, so that a stream without
    references is collected at once, and its connection is closed.
    """

    def __init__(self, delivery: Delivery, transport: AsyncTransport, watch: Watch) -> None:
        self.delivery = delivery
        self._transport = transport
        self._watch = watch
        self._body: AsyncBody | None = None
        self._asked: HttpRequest | None = None
        self._lanes: list[_Driver] = []
        self.left = False

    async def batches(self) -> AsyncGenerator[list[Event], None]:
        try:
            if self.delivery.hedge_after is not None:
                yield await self._race(self.delivery.hedge_after)
            while not (self.delivery.is_over or self.left):
                if events := await self._step():
                    yield events
        finally:
            try:
                await self._hang_up()
            finally:  # also if this task is cancelled meanwhile: the answer has ended
                self.delivery.cancel(self._transport.now())
                self._watch.over(self.delivery)
        self.delivery.conclude()

    async def first(self) -> list[Event]:
        """As a lane of a race: everything until there is content, or nothing."""
        events: list[Event] = []
        while not (self.left or self.delivery.is_over or self.delivery.has_content):
            events += await self._step()
        if self.left:
            await self._hang_up()
        return events if self.delivery.has_content else []

    async def abandon(self) -> None:
        """Close immediately: the hedge lost, or the caller left."""
        self.left = True
        await self._hang_up()
        if self._asked is not None:
            self._transport.give_up(self._asked)
        for lane in self._lanes:
            await lane.abandon()

    async def _race(self, after: float) -> list[Event]:
        """Start a hedge if there is no content in time; go on with the first that has some."""
        rivals = (self.delivery, self.delivery.hedge())
        lanes = self._lanes = [_Driver(one, self._transport, self._watch) for one in rivals]
        won, events = 0, list[Event]()
        try:
            won, events = await self._transport.race(lanes[0], lanes[1], after)
        finally:  # also if neither has content: another call may probe then
            winner, loser = lanes[won], lanes[1 - won]
            self.delivery, self._body, self._lanes = winner.delivery, winner._body, []
            self.delivery.absorb(loser.delivery, self._transport.now())
        return events

    async def _step(self) -> list[Event]:
        """Wait for one thing, the connection or more of the answer, and tell the delivery."""
        delivery, now = self.delivery, self._transport.now
        body = self._body
        if self.left:  # looked at last: who leaves takes the body away after saying so
            return []
        try:
            if body is None or not delivery.reading:
                await self._open()
                return []
            data = await body.read(delivery.deadline)
        except UnbrokenError as error:
            return [] if self.left else delivery.lost(error, now())
        return [] if self.left else delivery.feed(data, now())

    async def _open(self) -> None:
        delivery, transport = self.delivery, self._transport
        await self._hang_up()
        attempt = delivery.next_attempt(transport.now())
        self._asked = attempt.http
        if attempt.delay:
            await transport.sleep(attempt.delay, attempt.http)
        if self.left:
            return
        latest = attempt.deadlines.headers
        if attempt.delay and latest is not None and transport.now() >= latest:
            raise TimedOut  # the whole wait for a turn was longer than the call may take
        body = self._body = await transport.open(attempt.http, attempt.deadlines)
        delivery.opened(body.status, body.headers, transport.now())

    async def _hang_up(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            await body.close(reusable=self.delivery.is_complete)


class AsyncClient:
    """Answers from any provider, for callers that await. Use it as an async context manager.

    `api_key` and `base_url` are for whatever provider is asked, or mappings by provider name;
    otherwise the environment and `.env` are asked. `routes` gives names to lists of models that
    stand in for each other, `limits` bounds what is asked of a provider, by its name; both may
    stand in `unbroken.toml`. `observers` are called with every answer at its end, OpenTelemetry's
    `unbroken.metrics.otel.Spans()` for one. `implied_finish`, for servers that never send a finish
    reason, takes a clean end for `stop`: of all providers, or of the named ones. `transport`
    replaces real HTTP. One client serves many tasks of one event loop.
    """

    def __init__(  # noqa: PLR0913  # settings, by keyword
        self,
        *,
        api_key: OneOrEach = None,
        base_url: OneOrEach = None,
        timeouts: Timeouts | None = None,
        recovery: RecoveryPolicy | None = None,
        routes: Mapping[str, Sequence[str]] | None = None,
        limits: Mapping[str, Limits] | None = None,
        observers: Sequence[Observer] = (),
        implied_finish: bool | Collection[str] = False,
        transport: AsyncTransport | None = None,
    ) -> None:
        self._options = partial(
            settings,
            api_key=api_key,
            base_url=base_url,
            timeouts=timeouts,
            recovery=recovery,
            routes=routes,
            limits=limits,
            observers=observers,
            implied_finish=implied_finish,
        )
        self._settings = self._options()
        self.routes = self._settings.routes
        self._given = transport
        self._closed = False
        self._open: WeakValueDictionary[int, _Driver] = WeakValueDictionary()
        self._made: dict[str, AsyncTransport] = {}

    def stream(
        self, model: Models, prompt: Prompt, **parameters: Unpack[Parameters]
    ) -> AsyncStream:
        """Ask, and get the answer as it comes. `model` is `provider/model`, the name of a route, or
        a list of them to fall back on; None: the default.

        Raises at once what is wrong with the request itself; everything else is raised while
        iterating.
        """
        providers, delivery, watch = plan(self._settings, model, prompt, parameters, stream=True)
        return self._streaming(delivery, self._transport(providers), watch)

    def resume(
        self,
        events: Sequence[Event],
        model: Models,
        prompt: Prompt,
        **parameters: Unpack[Parameters],
    ) -> AsyncStream:
        """Go on with an answer of which only `events` are left, since its process is gone.

        What had been delivered is not delivered again. The events must hold content, and no end.
        """
        providers, delivery, watch = plan(self._settings, model, prompt, parameters, stream=True)
        transport = self._transport(providers)
        delivery.restore([*events], transport.now())
        return self._streaming(delivery, transport, watch)

    async def complete(
        self, model: Models, prompt: Prompt, **parameters: Unpack[Parameters]
    ) -> Response:
        """Ask, and get the answer in one piece. Raises an UnbrokenError if there is none."""
        providers, delivery, watch = plan(self._settings, model, prompt, parameters, stream=False)
        async with self._streaming(delivery, self._transport(providers), watch) as stream:
            async for _ in stream.batches():
                pass
        if stream.response.end == "cancelled":
            raise closed(stream.response)
        return stream.response

    def run(
        self,
        model: Models,
        prompt: Prompt,
        *,
        tools: Sequence[ToolLike],
        max_turns: int = 10,
        **parameters: Any,
    ) -> AsyncRun:
        """Ask, call the Python functions among `tools` that the answer calls, and ask again, until
        an answer calls none. Iterate over the run for the events of every turn.
        """
        return AsyncRun(self.stream, model, ToolLoop(prompt, tools, max_turns), parameters)

    async def map(
        self,
        prompts: AsyncPrompts,
        *,
        model: Models = None,
        concurrency: int = 8,
        progress: bool | None = None,
        **parameters: Unpack[Parameters],
    ) -> Results:
        """Ask all prompts, `concurrency` at a time, and get what came of each, in their order.

        An error takes the place of the answer it is for; the others go on. `progress` shows a bar
        on standard error; by default where that is a terminal and `rich` is there.
        """
        return await map_async(
            self, prompts, model=model, concurrency=concurrency, progress=progress, **parameters
        )

    async def close(self) -> None:
        """Close the connections. Streams that are still open end, with the end `cancelled`."""
        self._closed = True
        for driver in self._open.valuerefs():
            if (still := driver()) is not None:
                await still.abandon()
        for transport in self._made.values():
            await transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def reload(self) -> None:
        """Read `unbroken.toml`, `.env` and the environment again, for the calls to come.

        What is known of providers, such as rate limits reached and failures, is kept. Raises
        ConfigurationError, and changes nothing then.
        """
        self._settings = reloaded(self._settings, self._options())
        self.routes = self._settings.routes

    def _streaming(
        self, delivery: Delivery, transport: AsyncTransport, watch: Watch
    ) -> AsyncStream:
        """A stream that ends when the client is closed. Only the caller holds it."""
        driver = _Driver(delivery, transport, watch)
        self._open[id(driver)] = driver
        return AsyncStream(driver, transport)

    def _transport(self, providers: Sequence[Provider]) -> AsyncTransport:
        """The world of a route: the network, this process, or both."""
        if self._closed:
            raise closed(Response())
        if self._given is not None:
            return self._given
        inside = {host(p): self._kind(p.name, p.in_process.aio) for p in providers if p.in_process}
        if len(inside) == 1 and all(provider.in_process for provider in providers):
            return next(iter(inside.values()))
        network = self._kind("", _http)
        return AsyncSplitTransport(inside, network) if inside else network

    def _kind(self, name: str, make: Callable[[], AsyncTransport]) -> AsyncTransport:
        return self._made.get(name) or self._made.setdefault(name, make())  # threads agree on one


def _http() -> AsyncTransport:
    """Imported when used: not every process asks over the network, and not in both ways."""
    from unbroken.transport.http_async import AsyncHttpTransport

    return AsyncHttpTransport()
