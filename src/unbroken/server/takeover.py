"""Finishes answers whose producer is gone: those of dead processes, and own ones that the store
has refused for a while.

A takeover is bounded: an answer of which MAX_TAKEOVERS in a row have stored nothing new is closed
as failed. Something about it may be what kills its producers, and the provider is paid each time.
"""

import asyncio
from collections.abc import Callable, Sequence
from itertools import islice

import msgspec

from unbroken.client._async import AsyncClient, AsyncStream
from unbroken.client._plan import Parameters, price
from unbroken.engine.accumulate import Accumulator
from unbroken.errors import ServerError, StoreError, StreamMissing
from unbroken.events import CONTENT, ChoiceEnd, Event, FellBack, MessageEnd
from unbroken.messages import Request
from unbroken.metrics.timing import StreamMetrics
from unbroken.response import Attempt, Response
from unbroken.server.finish import Ending, Finisher, result_of
from unbroken.server.large_requests import load_record
from unbroken.server.log import LOGGER, log_event
from unbroken.server.records import (
    AnswerRequest,
    as_unbroken_error,
    decode_events,
    decode_request,
    encode_events,
)
from unbroken.stores.base import Lease, Store

CONCURRENCY = 20
"""Answers that are taken over at a time."""

MAX_TAKEOVERS = 3
"""Takeovers of an answer in a row without a new record."""

ANSWER_PREFIX = "ans_"
"""What the id of every answer begins with. Other streams of the store are not answers."""

Produce = Callable[[Lease, AnswerRequest, AsyncStream], None]
"""Starts to write the rest of an answer."""

UNREADABLE = AnswerRequest(
    models=["unknown"], request=Request(model="unknown", messages=()), created=0
)
"""Stands for a request that can't be decoded, in the report of its failure."""


class Takeover:
    """Adopts orphans, and tries again what the store has refused to this process."""

    def __init__(
        self, store: Store, process: str, client: AsyncClient, finisher: Finisher, produce: Produce
    ) -> None:
        self._store, self._process, self._client = store, process, client
        self._finisher, self._produce = finisher, produce
        self._stalled: dict[str, tuple[Lease, str]] = {}
        self.paused = False

    async def adopt(self) -> None:
        """Take over what dead processes have left, until nothing is left."""
        leases = await self._orphans()
        while leases:  # the next ones are adopted while these are read
            _, leases = await asyncio.gather(self._take_over_all(leases), self._orphans())

    async def _orphans(self) -> list[Lease]:
        return [] if self.paused else await self._store.adopt(self._process, CONCURRENCY)

    async def _take_over_all(self, leases: Sequence[Lease]) -> None:
        await asyncio.gather(*map(self._take_over, leases))

    def stall(self, lease: Lease, error: StoreError) -> None:
        """Note an answer of this process that could not be stored, to be tried again.

        The store counts no takeover of a process from itself, so it is counted here.
        """
        counted = msgspec.structs.replace(lease, takeovers=lease.takeovers + 1)
        self._stalled[lease.stream] = counted, str(error)

    async def retry(self) -> None:
        """Go on with the stalled answers that still belong to this process."""
        stalled, self._stalled = self._stalled, {}
        waiting = iter(stalled.values())
        while some := [*islice(waiting, CONCURRENCY)]:
            await asyncio.gather(*(self._retry(lease, why) for lease, why in some))

    async def _retry(self, lease: Lease, why: str) -> None:
        try:
            found = await self._store.info(lease.stream)
        except StreamMissing:
            return  # deleted, or never created
        except StoreError:
            self._stalled[lease.stream] = lease, why
            return
        if found.end is None and found.producer == self._process:
            known = Lease(
                lease.stream,
                self._process,
                found.fence,
                found.tail,
                found.cancelled,
                lease.takeovers if found.tail <= lease.tail else 1,
            )
            await self._take_over(known, why)

    async def _take_over(self, lease: Lease, why: str = "") -> None:
        if not lease.stream.startswith(ANSWER_PREFIX):
            return
        try:
            await self._resume_or_fail(lease, why)
        except StoreError as error:  # the provider has not been asked: this does not count
            self._stalled[lease.stream] = lease, why or str(error)

    async def _resume_or_fail(self, lease: Lease, why: str) -> None:
        request, events = UNREADABLE, list[Event]()
        try:
            records = await read_all(self._store, lease.stream, lease.tail)
            request = decode_request(records[0])
            events = [event for record in records[1:] for event in decode_events(record)]
            await self._resume_or_close(lease, request, events, why)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001  # it fails, and takes no other answer with it
            LOGGER.exception("takeover_failed", extra={"fields": {"stream": lease.stream}})
            ending = Ending("failed", "", as_unbroken_error(error))
            await self._close(lease, request, events, ending)

    async def _resume_or_close(
        self, lease: Lease, request: AnswerRequest, events: list[Event], why: str
    ) -> None:
        """Write what is missing: the end alone, or the rest and the end."""
        end = _missing_end(request, events)
        if lease.cancelled:
            await self._close(lease, request, events, Ending("cancelled", "stopped"))
        elif end is not None:
            last = [] if end in events else [end]
            await self._close(lease, request, events, Ending("complete"), last)
        elif lease.takeovers > MAX_TAKEOVERS:
            log_event("takeover_gave_up", stream=lease.stream, takeovers=lease.takeovers, error=why)
            await self._close(lease, request, events, Ending("failed", "", _gave_up(why)))
        else:
            self._produce(lease, request, self._resumed(request, events))

    def _resumed(self, request: AnswerRequest, events: Sequence[Event]) -> AsyncStream:
        parameters = parameters_of(request)
        if any(type(event) in CONTENT for event in events):
            return self._client.resume(events, request.models, request.request, **parameters)
        return self._client.stream(request.models, request.request, **parameters)

    async def _close(
        self,
        lease: Lease,
        request: AnswerRequest,
        events: Sequence[Event],
        ending: Ending,
        last: Sequence[Event] = (),
    ) -> None:
        """End an answer of which nothing but the end is written here."""
        response = self._response(request, [*events, *last], ending.state)
        result = result_of(request, response, StreamMetrics(), ending)
        records = [encode_events([*last])] if last else []
        await self._finisher.finish(lease, request, result, records)

    def _response(self, request: AnswerRequest, events: list[Event], state: str) -> Response:
        """Return the answer that a log holds."""
        fold = Accumulator(request.request.n or 1)
        fold.add(events)
        ends = [event.usage for event in events if type(event) is MessageEnd]
        usage = (ends[-1] if ends else None) or fold.usage
        provider, _, model = self._served_by(request, events).partition("/")
        return Response(
            id=fold.id,
            provider=provider,
            model=model,
            end="complete" if state == "complete" else "failed",
            choices=fold.choices(complete=state == "complete"),
            usage=usage,
            attempts=(Attempt(provider, model, usage=usage, quote=price),),
        )

    def _served_by(self, request: AnswerRequest, events: Sequence[Event]) -> str:
        """Return `provider/model` of the model that wrote last."""
        fallbacks = [event.model for event in events if type(event) is FellBack]
        first = request.models[0]
        return fallbacks[-1] if fallbacks else [*self._client.routes.get(first, ()), first][0]


def _gave_up(why: str) -> ServerError:
    cause = f"the store refused it ({why})" if why else "each process that continued it ended"
    return ServerError(
        f"The answer was taken over {MAX_TAKEOVERS} times without a new token: {cause}.",
        status=502,
        code="takeover_failed",
    )


def _missing_end(request: AnswerRequest, events: Sequence[Event]) -> MessageEnd | None:
    """Return the end of an answer whose choices are all finished; None if content is missing."""
    for event in reversed(events):
        if isinstance(event, MessageEnd):
            return event
    ends = [event for event in events if isinstance(event, ChoiceEnd)]
    if len({end.choice for end in ends}) < (request.request.n or 1):
        return None
    return MessageEnd(ends[0].finish_reason, None, ends[0].raw, early=True)


def parameters_of(request: AnswerRequest) -> Parameters:
    """Return the parameters of the client's call that are not part of the request."""
    return {} if request.hedge_after is None else {"hedge_after": request.hedge_after}


async def read_all(store: Store, stream: str, tail: int | None = None) -> list[bytes]:
    """Return the records of an answer, the request first: to `tail` if it is known."""
    found: list[bytes] = []
    while tail is None or len(found) < tail:
        page = await store.read(stream, len(found))
        if not page.records:
            break
        found += [record.data for record in page.records]
    if found:
        found[0] = await load_record(store, found[0])
    return found
