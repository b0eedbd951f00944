"""The driver for callers that block. Its twin is `_async.py`: change both, in the same order."""

from collections.abc import Generator, Iterator
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
from unbroken.transport.base import Body, Transport


class Stream:
    """One answer as it comes. Iterate over it, its `text` or its `batches`, once.

    Leaving the `with` block, or closing, ends the answer and closes the connection at once.
    Iterating raises an UnbrokenError whose `response` holds what arrived.
    """

    def __init__(self, delivery: Delivery, transport: Transport) -> None:
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
    def text(self) -> Iterator[str]:
        """The visible text of the first choice, piece by piece."""
        return self._text()

    def batches(self) -> Generator[list[Event], None, None]:
        """The events as they arrive, all that one read brought at a time."""
        return self._batches

    def __iter__(self) -> Generator[Event, None, None]:
        """Every event, one at a time."""
        for batch in self._batches:
            for event in batch:
                yield event

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop here. What had arrived stays in `response`."""
        self._batches.close()
        self._delivery.cancel(self._transport.now())

    def _text(self) -> Generator[str, None, None]:
        for batch in self._batches:
            for event in batch:
                if type(event) is TextDelta and event.choice == 0:
                    yield event.text


class _Driver:
    """Carries a delivery out. It does not know the stream, so that a stream that nobody holds any
    more is gone at once, and its connection with it.
    """

    def __init__(self, delivery: Delivery, transport: Transport) -> None:
        self._delivery = delivery
        self._transport = transport
        self._body: Body | None = None

    def batches(self) -> Generator[list[Event], None, None]:
        try:
            while not self._delivery.over:
                if events := self._step():
                    yield events
        finally:
            self._hang_up()
        self._delivery.conclude()

    def _step(self) -> list[Event]:
        """Wait for one thing, the connection or more of the answer, and tell the delivery."""
        delivery, now = self._delivery, self._transport.now
        try:
            if self._body is None or not delivery.reading:
                self._open()
                return []
            data = self._body.read(delivery.deadline)
            return delivery.feed(data, now())
        except TransportError as error:
            return delivery.lost(error, now())

    def _open(self) -> None:
        delivery, transport = self._delivery, self._transport
        self._hang_up()
        attempt = delivery.next_attempt(transport.now())
        if attempt.delay:
            transport.sleep(attempt.delay)
        body = self._body = transport.open(attempt.http, attempt.deadlines)
        delivery.opened(body.status, body.headers, transport.now())

    def _hang_up(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.close(reusable=self._delivery.whole)


class Client:
    """Answers from any provider, for callers that block. Use it as a context manager.

    `api_key` and `base_url` are for whatever provider is asked, or mappings by provider name;
    otherwise the environment and `.env` are asked. `transport` replaces real HTTP. One client
    serves many threads.
    """

    def __init__(
        self,
        *,
        api_key: OneOrEach = None,
        base_url: OneOrEach = None,
        timeouts: Timeouts | None = None,
        recovery: RecoveryPolicy | None = None,
        transport: Transport | None = None,
    ) -> None:
        self._settings = Settings(
            api_key,
            base_url,
            timeouts or Timeouts(),
            recovery or RecoveryPolicy(),
            environment(),
        )
        self._given = transport
        self._made: dict[str, Transport] = {}

    def stream(self, model: str | None, prompt: Prompt, **parameters: Unpack[Parameters]) -> Stream:
        """Ask, and get the answer as it comes. `model` is `provider/model`; None: the default.

        Raises at once what is wrong with the request itself; everything else is raised while
        iterating.
        """
        provider, delivery = plan(self._settings, model, prompt, parameters, stream=True)
        return Stream(delivery, self._transport(provider))

    def complete(
        self, model: str | None, prompt: Prompt, **parameters: Unpack[Parameters]
    ) -> Response:
        """Ask, and get the answer in one piece. Raises an UnbrokenError if there is none."""
        provider, delivery = plan(self._settings, model, prompt, parameters, stream=False)
        with Stream(delivery, self._transport(provider)) as stream:
            for _ in stream.batches():
                pass
        return stream.response

    def close(self) -> None:
        """Close the connections."""
        for transport in self._made.values():
            transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _transport(self, provider: Provider) -> Transport:
        if self._given is not None:
            return self._given
        kind = provider.name if provider.in_process else "http"
        if kind not in self._made:
            self._made[kind] = provider.in_process.sync() if provider.in_process else _http()
        return self._made[kind]


def _http() -> Transport:
    """Imported when used: not every process asks over the network, and not in both ways."""
    from unbroken.transport.http_sync import HttpTransport

    return HttpTransport()
