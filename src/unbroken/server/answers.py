"""All answers that this process takes part in: started here, taken over, followed.

Any process of a store may start an answer, follow any, and finish what a dead one has begun. A
process proves that it lives by one heartbeat for all its answers; those of a process whose
heartbeat has run out are taken over by the others.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Self

from unbroken.client._async import AsyncClient, AsyncStream
from unbroken.errors import OffsetUnknown, StoreError, StreamMissing
from unbroken.server.finish import Finisher, OnFinished
from unbroken.server.large_requests import delete_request, store_request
from unbroken.server.log import log_event
from unbroken.server.maintenance import PRUNE_INTERVAL, Background, Retention
from unbroken.server.presence import PRESENCE_TTL, ReaderPresence
from unbroken.server.producer import Producer
from unbroken.server.records import (
    AnswerRequest,
    Failure,
    Outcome,
    detached,
    encode_outcome,
)
from unbroken.server.tail import RecordBatch
from unbroken.server.takeover import ANSWER_PREFIX, Takeover, parameters_of, read_all
from unbroken.stores.base import Created, End, Lease, NewStream, Store
from unbroken.stores.counters import Charge, QuotaReached

LEASE_SECONDS = 2.0
"""Seconds until a process without a heartbeat counts as dead. It beats four times as often."""

RETRY_INTERVAL = 1.0
"""Seconds until an answer that the store has refused is tried again."""

EXPIRE_INTERVAL = 0.1
"""Seconds between two looks at answers without readers."""

POLL_TIMEOUT = 30.0
"""Seconds that a follower waits for the store at a time."""


class Answers:
    """The producers of this process, and the followers of any."""

    def __init__(
        self, store: Store, client: AsyncClient, on_finished: OnFinished | None = None
    ) -> None:
        self.store, self._client = store, client
        self.name = secrets.token_hex(8)
        self.producers: dict[str, Producer] = {}
        self.readers = ReaderPresence(store, self._abandon)
        self._finisher = Finisher(store, on_finished)
        self._takeover = Takeover(store, self.name, client, self._finisher, self._produce)
        self._retention = Retention(store, self.name)
        self._background = Background()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._closing = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self.store.__aenter__()
        try:
            await self._beat()  # before the first answer: its process must be known
        except BaseException:
            await self.store.__aexit__(None, None, None)
            raise
        self._background.repeat("heartbeat", LEASE_SECONDS / 4, self._beat)
        self._background.repeat("takeover", LEASE_SECONDS / 4, self._takeover.adopt)
        self._background.repeat("retry", RETRY_INTERVAL, self._takeover.retry)
        self._background.repeat("expire_readers", EXPIRE_INTERVAL, self.readers.expire)
        self._background.repeat("publish_readers", PRESENCE_TTL / 4, self.readers.publish)
        self._background.repeat("retention", PRUNE_INTERVAL, self._retention.run)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Hand over what is open, and close."""
        await self._hand_over()
        await self._client.close()
        await self.store.__aexit__(None, None, None)

    def set_retention(self, days: float | None, size: int | None) -> None:
        """Keep closed answers for so many days, all together within so many bytes."""
        self._retention.age = None if days is None else days * 86_400
        self._retention.size = size

    @property
    def closing(self) -> bool:
        """Whether this process takes no new answers."""
        return self._closing.is_set()

    async def drain(self, seconds: float) -> None:
        """Give open answers so long to finish; then hand over the rest, and send every reader
        away, to come back elsewhere.
        """
        self._takeover.paused = True
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=seconds)
        await self._hand_over()

    async def _hand_over(self) -> None:
        """Stop producing. Other processes can go on at once: one step for all answers."""
        self._closing.set()
        self.readers.close()
        await self._background.stop()
        tasks = [*self._tasks.values()]
        for task in tasks:
            task.cancel()
        with contextlib.suppress(StoreError):  # then the heartbeat runs out by itself
            await self.store.release_all(self.name)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def start(
        self,
        request: AnswerRequest,
        owner: str = "",
        key: str = "",
        labels: Mapping[str, str] | None = None,
        charges: Sequence[Charge] = (),
    ) -> Created:
        """Begin an answer; the same owner and key give the one that has been begun.

        What is wrong with the request is raised at once, and QuotaReached if a limit of `charges`
        is reached: nothing has been stored or sent then. A caller that is cancelled meanwhile has
        started the answer all the same.
        """
        stream = self._client.stream(request.models, request.request, **parameters_of(request))
        id = f"{ANSWER_PREFIX}{secrets.token_urlsafe(16)}"
        new = NewStream(id=id, owner=owner, labels={**(labels or {})}, key=key)
        creating = self._create(new, request, stream, charges)
        return await asyncio.shield(self._background.spawn(creating))

    async def _create(
        self,
        new: NewStream,
        request: AnswerRequest,
        stream: AsyncStream,
        charges: Sequence[Charge],
    ) -> Created:
        first = await store_request(self.store, new.id, request)
        try:
            created = await self.store.create(new, [first], self.name, charges)
        except QuotaReached:
            await delete_request(self.store, new.id)
            raise
        except StoreError as error:  # it may have been created: then it must not wait for ever
            self._takeover.stall(Lease(new.id, self.name, 1, 1), error)
            raise
        if created.lease is not None:
            self._produce(created.lease, request, stream)
        if not created.fresh:
            await delete_request(self.store, new.id)
        return created

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
        after = max(after, 1)  # the first record is the request
        self.readers.join(stream)
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
                    await self._wait_for_records(stream, after)
            yield detached(stream, "this server is restarting")
        except (StreamMissing, OffsetUnknown) as error:
            failure = Failure.from_error(error)
            yield End("failed", encode_outcome(Outcome(state="failed", error=failure)))
        except StoreError as error:
            log_event("store_unavailable", stream=stream, error=str(error))
            yield detached(stream, "the store does not answer")
        finally:
            self.readers.leave(stream)

    async def poll(
        self, stream: str, after: int, seconds: float
    ) -> tuple[list[RecordBatch], End | None]:
        """Return what comes after `after`, waited for up to so many seconds."""
        self.readers.join(stream)
        try:
            found = await self._stored(stream, after)
            if any(found) or not seconds:
                return found
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wait_for_records(stream, after), seconds)
            return await self._stored(stream, after)
        finally:
            self.readers.leave(stream)

    async def records(self, stream: str) -> list[bytes]:
        """Return all that is stored of an answer, the request first."""
        return await read_all(self.store, stream)

    async def delete(self, stream: str) -> None:
        """Delete an answer that has ended, with its request."""
        await self.store.delete(stream)
        await delete_request(self.store, stream)

    # Producing

    def _produce(self, lease: Lease, request: AnswerRequest, stream: AsyncStream) -> None:
        if self.closing:
            return  # it was created or adopted while this process handed over
        producer = Producer(self.store, self._finisher, lease, request, stream)
        self.producers[lease.stream] = producer
        self.readers.track(lease.stream, request)
        self._tasks[lease.stream] = asyncio.create_task(self._run(producer, lease.stream))

    async def _run(self, producer: Producer, stream: str) -> None:
        stalled: StoreError | None = None
        try:
            await producer.run()
        except StoreError as error:
            stalled = error
        finally:
            self.readers.untrack(stream)
            del self.producers[stream], self._tasks[stream]
        if stalled is not None:
            self._takeover.stall(producer.lease, stalled)

    async def _beat(self) -> None:
        """Prove that this process lives; learn what is to be stopped, and what was lost while it
        did not beat, as after a suspend.
        """
        before = {stream: producer.lease.fence for stream, producer in self.producers.items()}
        beat = await self.store.heartbeat(self.name, LEASE_SECONDS)
        for stream in beat.cancelled:
            self._stop_soon(stream, "cancelled", "stopped")
        if beat.lapsed:
            for stream, fence in before.items():
                if beat.held.get(stream) != fence:
                    self._stop_soon(stream, "failed")

    def _stop_soon(self, stream: str, state: str, reason: str = "") -> None:
        """Stop a producer without waiting for it: closing its connection may take long."""
        producer = self.producers.get(stream)
        if producer is not None:
            self._background.spawn(producer.stop(state, reason))

    async def _abandon(self, stream: str) -> None:
        """Stop an answer without readers, as its policy says."""
        self._stop_soon(stream, "cancelled", "left")

    # Following

    def _live(self, stream: str, after: int) -> tuple[list[RecordBatch] | None, End | None]:
        """Return what this process still has in memory; None if that is not enough."""
        producer = self.producers.get(stream)
        return (None, None) if producer is None else (producer.live.since(after), producer.live.end)

    async def _stored(self, stream: str, after: int) -> tuple[list[RecordBatch], End | None]:
        page = await self.store.read(stream, after)
        return [RecordBatch(record.offset, record.data) for record in page.records], page.end

    async def _wait_for_records(self, stream: str, after: int) -> None:
        """Wait until there may be more, or this process closes."""
        producer = self.producers.get(stream)
        if producer is not None:
            if producer.live.tail <= after and producer.live.end is None:
                await producer.live.wait()
            return
        more = asyncio.ensure_future(self.store.wait(stream, after, POLL_TIMEOUT))
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait((more, closing), return_when=asyncio.FIRST_COMPLETED)
            if more.done():
                more.result()  # a store that has lost what was read raises it here, and only here
        finally:
            more.cancel()
            closing.cancel()
