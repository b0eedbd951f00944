"""The driver for callers that await. Its twin is `_sync.py`: change both, in the same order."""

from collections.abc import AsyncGenerator, AsyncIterator
from types import TracebackType
from typing import Self, Unpack

from unbroken.client._plan import OneOrEach, Parameters, Settings, environment, plan
from unbroken.engine.delivery import Delivery
from unbroken.engine.policy import RecoveryPolicy, Timeouts
from unbroken.errors import TransportError
from unbroken.events import Event, TextDelta
from unbroken.messages import Prompt
from unbroken.metrics.timing import StreamMetrics
from unbroken.providers.base import Provider
from unbroken.response import Response
from unbroken.transport.base import AsyncBody, AsyncTransport


class AsyncStream:
    """One answer as it comes. Iterate over it, its `text` or its `batches`, once.

    Leaving the `with` block, or closing, ends the answer and closes the connection at once.
    Iterating raises an UnbrokenError whose `response` holds what arrived.
    """

    def __init__(self, delivery: Delivery, transport: AsyncTransport) -> None:
        self._delivery = delivery
        self._transport = transport
        self._batches = _Driver(delivery, transport).batches()

    @property
    def response(self) -> Response:
        """The answer as far as it has come."""
        return self._delivery.response

    @property
    def metrics(self) -> StreamMetrics:
        """The timing as far as it is known."""
        return self._delivery.metrics

    @property
    def text(self) -> AsyncIterator[str]:
        """The visible text of the first choice, piece by piece."""
        return self._text()

    def batches(self) -> AsyncGenerator[list[Event], None]:
        """The events as they arrive, all that one read brought at a time."""
        return self._batches

    async def __aiter__(self) -> AsyncGenerator[Event, None]:
        """Every event, one at a time."""
        async for batch in self._batches:
            for event in batch:
                yield event

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
        """Stop here. What had arrived stays in `response`."""
        await self._batches.aclose()
        self._delivery.cancel(self._transport.now())

    async def _text(self) -> AsyncGenerator[str, None]:
        async for batch in self._batches:
            for event in batch:
                if type(event) is TextDelta and event.choice == 0:
                    yield event.text


class _Driver:
    """Carries a delivery out. It does not know the stream, so that a stream that nobody holds any
    more is gone at once, and its connection with it.
    """

    def __init__(self, delivery: Delivery, transport: AsyncTransport) -> None:
        self._delivery = delivery
        self._transport = transport
        self._body: AsyncBody | None = None

    async def batches(self) -> AsyncGenerator[list[Event], None]:
        try:
            while not self._delivery.over:
                if events := await self._step():
                    yield events
        finally:
            await self._hang_up()
        self._delivery.conclude()

    async def _step(self) -> list[Event]:
        """Wait for one thing, the connection or more of the answer, and tell the delivery."""
        delivery, now = self._delivery, self._transport.now
        try:
            if self._body is None or not delivery.reading:
                await self._open()
                return []
            data = await self._body.read(delivery.deadline)
            return delivery.feed(data, now())
        except TransportError as error:
            return delivery.lost(error, now())

    async def _open(self) -> None:
        delivery, transport = self._delivery, self._transport
        await self._hang_up()
        attempt = delivery.next_attempt(transport.now())
        if attempt.delay:
            await transport.sleep(attempt.delay)
        body = self._body = await transport.open(attempt.http, attempt.deadlines)
        delivery.opened(body.status, body.headers, transport.now())

    async def _hang_up(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            await body.close(reusable=self._delivery.whole)


class AsyncClient:
    """Answers from any provider, for callers that await. Use it as an async context manager.

    `api_key` and `base_url` are for whatever provider is asked, or mappings by provider name;
    otherwise the environment and `.env` are asked. `transport` replaces real HTTP. One client
    serves many tasks of one event loop.
    """

    def __init__(
        self,
        *,
        api_key: OneOrEach = None,
        base_url: OneOrEach = None,
        timeouts: Timeouts | None = None,
        recovery: RecoveryPolicy | None = None,
        transport: AsyncTransport | None = None,
    ) -> None:
        self._settings = Settings(
            api_key,
            base_url,
            timeouts or Timeouts(),
            recovery or RecoveryPolicy(),
            environment(),
        )
        self._given = transport
        self._made: dict[str, AsyncTransport] = {}

    def stream(
        self, model: str | None, prompt: Prompt, **parameters: Unpack[Parameters]
    ) -> AsyncStream:
        """Ask, and get the answer as it comes. `model` is `provider/model`; None: the default.

        Raises at once what is wrong with the request itself; everything else is raised while
        iterating.
        """
        provider, delivery = plan(self._settings, model, prompt, parameters, stream=True)
        return AsyncStream(delivery, self._transport(provider))

    async def complete(
        self, model: str | None, prompt: Prompt, **parameters: Unpack[Parameters]
    ) -> Response:
        """Ask, and get the answer in one piece. Raises an UnbrokenError if there is none."""
        provider, delivery = plan(self._settings, model, prompt, parameters, stream=False)
        async with AsyncStream(delivery, self._transport(provider)) as stream:
            async for _ in stream.batches():
                pass
        return stream.response

    async def close(self) -> None:
        """Close the connections."""
        for transport in self._made.values():
            await transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _transport(self, provider: Provider) -> AsyncTransport:
        if self._given is not None:
            return self._given
        kind = provider.name if provider.in_process else "http"
        if kind not in self._made:
            self._made[kind] = provider.in_process.aio() if provider.in_process else _http()
        return self._made[kind]


def _http() -> AsyncTransport:
    """Imported when used: not every process asks over the network, and not in both ways."""
    from unbroken.transport.http_async import AsyncHttpTransport

    return AsyncHttpTransport()
