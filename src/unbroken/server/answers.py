"""All answers that this process has a hand in: started here, taken over, followed.

Any process of a store may start an answer, follow any, and finish what a dead one has begun. A
producer proves that it lives by renewing its leases; whoever finds one expired takes over.
"""

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Self

from unbroken.client._async import AsyncClient, AsyncStream
from unbroken.client._plan import Parameters
from unbroken.errors import OffsetConflict, OffsetUnknown, StoreError, StreamMissing
from unbroken.events import CONTENT, ChoiceEnd, Event, MessageEnd
from unbroken.server.log import LOGGER, log_event
from unbroken.server.presence import ReaderPresence
from unbroken.server.producer import Producer, Result
from unbroken.server.records import (
    AnswerRequest,
    Failure,
    Outcome,
    as_unbroken_error,
    decode_events,
    decode_request,
    detached,
    encode_events,
    encode_outcome,
    encode_request,
)
from unbroken.server.tail import RecordBatch
from unbroken.stores.base import Created, End, Lease, NewStream, Store, StreamInfo

LEASE_SECONDS = 2.0
"""Seconds until a silent producer counts as dead; renewed four times as often."""

PARTS = 8
"""A renewal is spread over so many turns: hundreds of leases at once would hold up every token."""

SWEEP = 60
"""Renewals between two looks at what is too old to keep."""

ASK = 30.0
"""Seconds that a follower waits for the store at a time."""

Told = Callable[[AnswerRequest, str, Result], Awaitable[None]]


class Answers:
    """The producers of this process, and the followers of any."""

    def __init__(self, store: Store, client: AsyncClient, told: Told | None = None) -> None:
        self.store, self._client, self._told = store, client, told
        self.name = secrets.token_hex(8)
        self.producers: dict[str, Producer] = {}
        self.readers = ReaderPresence(store, self._abandon)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._keeper: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._kept: tuple[float | None, int | None] = (None, None)

    async def __aenter__(self) -> Self:
        await self.store.__aenter__()
        self._keeper = asyncio.create_task(self._keep())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Hand everything over: what is open can be taken over at once."""
        tasks = [*self._tasks.values(), *([self._keeper] if self._keeper else [])]
        open_ = [*self.producers.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(StoreError):  # then the leases run out by themselves
            for producer in open_:
                await self.store.release(producer.lease)
        await self._client.close()
        await self.store.__aexit__(None, None, None)

    def keep(self, days: float | None, size: int | None) -> None:
        """Closed answers are kept for so many days, all together within so many bytes."""
        self._kept = (None if days is None else days * 86_400, size)

    @property
    def closing(self) -> bool:
        """This process takes no new answers."""
        return self._closing.is_set()

    async def drain(self, seconds: float) -> None:
        """Give open answers so long to finish; then let every reader go, to come back elsewhere."""
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=seconds)
        self._closing.set()
        self.readers.close()
        for producer in self.producers.values():
            producer.live.wake()

    async def start(
        self,
        asked: AnswerRequest,
        owner: str = "",
        key: str = "",
        labels: dict[str, str] | None = None,
        admit: Callable[[], Awaitable[None]] | None = None,
    ) -> Created:
        """Begin an answer; the same owner and key give the one that has been begun.

        Raises what is wrong with the question at once: nothing has been stored or sent then.
        `admit` is asked only for an answer that is new; what it raises is all that becomes of it.
        """
        stream = self._client.stream(asked.models, asked.request, **_parameters(asked))
        new = NewStream(
            id=f"ans_{secrets.token_urlsafe(16)}", owner=owner, labels=labels or {}, key=key
        )
        created = await self.store.create(new, [encode_request(asked)], self.name, LEASE_SECONDS)
        if created.fresh and created.lease is not None:
            if admit is not None:
                await self._let_in(new.id, admit)
            self._produce(created.lease, asked, stream)
        return created

    async def _let_in(self, stream: str, admit: Callable[[], Awaitable[None]]) -> None:
        try:
            await admit()
        except BaseException:  # also a fault of ours: nobody may take it over unadmitted
            await self.store.delete(stream)
            raise

    async def stop(self, stream: str) -> None:
        """Stop an answer, wherever it is produced."""
        producer = self.producers.get(stream)
        if producer is not None:
            await producer.stop("cancelled", "stopped")
        await self.store.cancel(stream)

    async def follow(
        self, stream: str, after: int
    ) -> AsyncGenerator[list[RecordBatch] | End, None]:
        """Yield the records after `after`, then new ones, then an end in any case: the answer's
        own, or DETACHED for a reader that must come back because this process closes or the store
        is unavailable. An answer that can't be read any more has failed for its reader.
        """
        after = max(after, 1)  # the first record is the question
        self.readers.enter(stream)
        try:
            while not self._closing.is_set():
                batches, end = self._live(stream, after)
                if batches is None:
                    batches, end = await self._stored(stream, after)
                if batches:
                    yield batches
                    after = batches[-1].offset
                elif end is not None:
                    yield end
                    return
                else:
                    await self._more(stream, after)
            yield detached(stream, "this server is restarting")
        except (StreamMissing, OffsetUnknown) as error:
            yield End(
                "failed", encode_outcome(Outcome(state="failed", error=Failure.from_error(error)))
            )
        except StoreError as error:
            log_event("store_unavailable", stream=stream, error=str(error))
            yield detached(stream, "the store does not answer")
        finally:
            self.readers.leave(stream)

    async def behind(
        self, stream: str, after: int, seconds: float
    ) -> tuple[list[RecordBatch], End | None]:
        """What stands behind `after`, waited for up to so many seconds; a reader for as long."""
        self.readers.enter(stream)
        try:
            found = await self._stored(stream, after)
            if any(found) or not seconds:
                return found
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._more(stream, after), seconds)
            return await self._stored(stream, after)
        finally:
            self.readers.leave(stream)

    async def records(self, stream: str) -> list[bytes]:
        """All that is stored of an answer, the question first."""
        found: list[bytes] = []
        while (page := await self.store.read(stream, len(found))).records:
            found += [record.data for record in page.records]
        return found

    # Producing

    def _produce(self, lease: Lease, asked: AnswerRequest, stream: AsyncStream) -> None:
        producer = self.producers[lease.stream] = Producer(self.store, lease, stream, asked)
        self.readers.produced(lease.stream, asked)
        self._tasks[lease.stream] = asyncio.create_task(self._run(producer, lease.stream, asked))

    async def _run(self, producer: Producer, stream: str, asked: AnswerRequest) -> None:
        try:
            outcome = await producer.run()
        finally:
            self.readers.over(stream)
            del self.producers[stream], self._tasks[stream]
        if outcome is not None and self._told is not None:
            await self._told(asked, stream, outcome)

    async def _keep(self) -> None:
        """Renew what is ours, take over what is nobody's, forget what is old."""
        for turn in itertools.count():
            await asyncio.sleep(LEASE_SECONDS / 4 / PARTS)
            try:
                await self._turn(turn)
            except StoreError:
                continue  # it may be back at the next turn
            except Exception:  # noqa: BLE001  # all answers depend on the turns that follow
                LOGGER.exception("internal_error")

    async def _turn(self, turn: int) -> None:
        await self.readers.look()
        part = [p for p in self.producers.values() if hash(p.lease.stream) % PARTS == turn % PARTS]
        await asyncio.gather(*map(self._renew, part))
        if turn % PARTS:
            return
        await self._adopt(await self.store.orphans())
        await self.readers.announce()
        if turn % (SWEEP * PARTS) == 0 and any(self._kept):
            await self.store.prune(*self._kept)

    async def _adopt(self, orphans: list[StreamInfo]) -> None:
        """What nobody ever produced is no answer. Our own are no orphans: a process that was asleep
        renews them, unless somebody was there meanwhile.
        """
        for orphan in orphans:
            if orphan.fence and orphan.id not in self.producers:
                await self._take_over(orphan)

    async def _renew(self, producer: Producer) -> None:
        try:
            producer.lease = await self.store.renew(producer.lease, LEASE_SECONDS)
        except (OffsetConflict, StreamMissing):
            await producer.stop("failed")  # somebody else writes now; nothing of ours gets in
            return
        if producer.lease.cancelled:
            await producer.stop("cancelled", "stopped")

    async def _take_over(self, orphan: StreamInfo) -> None:
        lease = await self.store.acquire(orphan.id, self.name, LEASE_SECONDS)
        if lease is None:
            return
        try:
            await self._go_on(orphan, lease)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001  # it fails, and takes no other answer with it
            LOGGER.exception("takeover_failed", extra={"fields": {"stream": orphan.id}})
            failure = Failure.from_error(as_unbroken_error(error))
            await self._close(lease, [], Outcome(state="failed", error=failure))

    async def _go_on(self, orphan: StreamInfo, lease: Lease) -> None:
        """Write what is missing: the end alone, or the rest and the end."""
        records = await self.records(orphan.id)
        asked = decode_request(records[0])
        events = [event for record in records[1:] for event in decode_events(record)]
        end = _missing_end(asked, events)
        if orphan.cancelled:
            await self._close(lease, [], Outcome(state="cancelled", reason="stopped"))
        elif end is not None:
            said = [] if end in events else [encode_events([end])]
            await self._close(lease, said, Outcome(state="complete", usage=end.usage))
        else:
            self._produce(lease, asked, self._resumed(asked, events))

    def _resumed(self, asked: AnswerRequest, events: Sequence[Event]) -> AsyncStream:
        if any(type(event) in CONTENT for event in events):
            return self._client.resume(events, asked.models, asked.request, **_parameters(asked))
        return self._client.stream(asked.models, asked.request, **_parameters(asked))

    async def _close(self, lease: Lease, records: list[bytes], final: Outcome) -> None:
        """All that was missing is the end."""
        end = End(final.state, encode_outcome(final))
        await self.store.append(lease.stream, records, lease.tail, lease.fence, end)

    # Following

    def _live(self, stream: str, after: int) -> tuple[list[RecordBatch] | None, End | None]:
        """What this process still has in memory; None if that is not enough."""
        producer = self.producers.get(stream)
        return (None, None) if producer is None else (producer.live.since(after), producer.live.end)

    async def _stored(self, stream: str, after: int) -> tuple[list[RecordBatch], End | None]:
        page = await self.store.read(stream, after)
        return [RecordBatch(record.offset, record.data) for record in page.records], page.end

    async def _more(self, stream: str, after: int) -> None:
        """Until there may be more, or this process closes."""
        producer = self.producers.get(stream)
        if producer is not None:
            if producer.live.tail <= after and producer.live.end is None:
                await producer.live.wait()
            return
        more = asyncio.ensure_future(self.store.wait(stream, after, ASK))
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait((more, closing), return_when=asyncio.FIRST_COMPLETED)
            if more.done():
                more.result()  # a store that has lost what was read says so here, and only here
        finally:
            more.cancel()
            closing.cancel()

    async def _abandon(self, stream: str) -> None:
        """Nobody reads it, and its policy says that it ends with its readers."""
        producer = self.producers.get(stream)
        if producer is not None:
            await producer.stop("cancelled", "left")


def _missing_end(asked: AnswerRequest, events: Sequence[Event]) -> MessageEnd | None:
    """The end of an answer whose choices are all finished; None if content is missing."""
    for event in reversed(events):
        if isinstance(event, MessageEnd):
            return event
    ends = [event for event in events if isinstance(event, ChoiceEnd)]
    if len({end.choice for end in ends}) < (asked.request.n or 1):
        return None
    return MessageEnd(ends[0].finish_reason, None, ends[0].raw, early=True)


def _parameters(asked: AnswerRequest) -> Parameters:
    return {} if asked.hedge_after is None else {"hedge_after": asked.hedge_after}
