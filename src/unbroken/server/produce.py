"""One answer: from the provider into the log.

Reading the provider and writing the store go on side by side: while one append is under way, what
arrives is collected for the next. Followers see a record when the store has acknowledged it.
"""

import asyncio
from collections.abc import Callable
from itertools import groupby
from typing import NamedTuple

from unbroken.client._async import AsyncStream
from unbroken.errors import OffsetConflict, StoreError, StreamClosed, UnbrokenError
from unbroken.events import Event, TextDelta
from unbroken.metrics.timing import StreamMetrics
from unbroken.response import Response
from unbroken.server.bell import Bell
from unbroken.server.live import Live
from unbroken.server.records import Final, events_to, failure_of, final_to
from unbroken.stores.base import End, Lease, Store


class Outcome(NamedTuple):
    """What became of an answer."""

    state: str
    response: Response
    metrics: StreamMetrics


class Producer:
    """Writes the answer of `stream` behind what is in the log already, while `lease` holds."""

    def __init__(self, store: Store, lease: Lease, open_: Callable[[], AsyncStream]) -> None:
        self.lease = lease
        self.live = Live(lease.tail)
        self._store, self._open = store, open_
        self._stream: AsyncStream | None = None
        self._waiting: list[Event] = []
        self._more = Bell()
        self._over = False
        self._stopped = ("", "")  # the state to end with, and why, if they are not its own

    async def run(self) -> Outcome | None:
        """To the end. None if another producer has taken over, or the store is gone."""
        stream = self._stream = self._open()
        writing = asyncio.create_task(self._write())
        error: UnbrokenError | None = None
        try:
            async for batch in stream.batches():
                self._waiting += batch
                self._more.ring()
                if writing.done():
                    break
        except UnbrokenError as caught:
            error = caught
        finally:
            self._over = True
            self._more.ring()
            await stream.close()
        return await self._finish(writing, stream, error)

    async def stop(self, state: str, reason: str = "") -> None:
        """End the answer here; it will say so to every follower. The first word counts."""
        if not self._stopped[0]:
            self._stopped = (state, reason)
        if self._stream is not None:
            await self._stream.abort()

    async def _finish(
        self, writing: "asyncio.Task[None]", stream: AsyncStream, error: UnbrokenError | None
    ) -> Outcome | None:
        try:
            await writing
            final = self._final(stream, error)
            end = End(final.state, final_to(final))
            await self._store.close(self.lease.stream, end, self.live.tail, self.lease.fence)
        except (OffsetConflict, StreamClosed):
            return None  # another producer goes on, followers will find it in the store
        except StoreError:
            return None  # an orphan: whoever can reach the store takes it over
        finally:
            self.live.wake()
        self.live.end = end
        self.live.wake()
        return Outcome(end.state, stream.response, stream.metrics)

    def _final(self, stream: AsyncStream, error: UnbrokenError | None) -> Final:
        response, metrics = stream.response, stream.metrics
        stopped, reason = self._stopped
        return Final(
            state=stopped or ("failed" if error else "complete"),
            reason=reason,
            error=None if stopped or error is None else failure_of(error),
            usage=response.usage,
            cost=response.cost,
            provider=response.provider,
            model=response.model,
            attempts=len(response.attempts),
            metrics={
                "time_to_first_token": metrics.time_to_first_token,
                "tokens_per_second": metrics.tokens_per_second,
                "duration": metrics.duration,
            },
        )

    async def _write(self) -> None:
        """Append what has arrived, all of it as one record each time."""
        live, lease = self.live, self.lease
        while self._waiting or not self._over:
            if not self._waiting:
                await self._more.wait()
                continue
            events, self._waiting = joined(self._waiting), []
            record = events_to(events)
            ack = await self._store.append(lease.stream, [record], live.tail, lease.fence)
            live.push(events, record)
            live.wake()
            if ack.cancelled:
                await self.stop("cancelled", "stopped")


def joined(events: list[Event]) -> list[Event]:
    """Pieces of text that came together are one piece: a burst is stored and sent as one."""
    if len(events) == 1:
        return events
    said: list[Event] = []
    for choice, run in groupby(events, _speaker):
        if choice is None:
            said += run
        else:
            said.append(TextDelta("".join([event.text for event in run]), choice))  # type: ignore[union-attr]
    return said


def _speaker(event: Event) -> int | None:
    return event.choice if type(event) is TextDelta else None
