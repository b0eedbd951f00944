"""One answer: from the provider into the log.

One read is one record. While it is being stored nothing is read, so what arrives meanwhile comes
with the next read, and a store that is slow slows the provider down instead of filling the memory.
Followers see a record when the store has acknowledged it.
"""

import asyncio
from itertools import groupby

import msgspec

from unbroken.client._async import AsyncStream
from unbroken.errors import (
    OffsetConflict,
    StoreError,
    StreamClosed,
    StreamMissing,
    UnbrokenError,
)
from unbroken.events import Event, TextDelta
from unbroken.response import Response
from unbroken.server.finish import Ending, Finisher, result_of
from unbroken.server.log import LOGGER
from unbroken.server.records import AnswerRequest, as_unbroken_error, encode_events
from unbroken.server.tail import LiveTail
from unbroken.server.wording import public
from unbroken.stores.base import Lease, Store

RETRY_CLOSE = 1.0
"""Seconds until an answer that is whole, but whose end the store did not take, is closed again."""


class Producer:
    """Writes the answer to `request` behind what is in the log already, while `lease` holds."""

    def __init__(
        self,
        store: Store,
        finisher: Finisher,
        lease: Lease,
        request: AnswerRequest,
        stream: AsyncStream,
    ) -> None:
        self.live = LiveTail(lease.tail)
        self._store, self._finisher, self._stream = store, finisher, stream
        self._lease, self.request = lease, request
        self._stopped: Ending | None = None

    @property
    def lease(self) -> Lease:
        """The lease with the tail as it is now. Takeovers count since the last new record."""
        tail = self.live.tail
        takeovers = self._lease.takeovers if tail == self._lease.tail else 0
        return msgspec.structs.replace(self._lease, tail=tail, takeovers=takeovers)

    @property
    def response(self) -> Response:
        """The answer as far as it has come."""
        return self._stream.response

    async def run(self) -> None:
        """Write the answer to its end. StoreError if the store does not take it, or another
        process has taken over.
        """
        try:
            error = await self._produce()
            await self._finish(error)
        finally:
            await self._stream.close()
            self.live.wake()  # there is an end, or the store knows more

    async def stop(self, state: str, reason: str = "") -> None:
        """End the answer here, for every follower. The first call counts."""
        if self._stopped is None:
            self._stopped = Ending(state, reason)
        await self._stream.abort()

    async def _produce(self) -> UnbrokenError | None:
        """Store what comes; return the provider's failure, if it ends with one."""
        try:
            async for batch in self._stream.batches():
                await self._write(public(coalesce_text(batch)))
        except StoreError:
            raise
        except UnbrokenError as error:
            return error
        except Exception as error:  # noqa: BLE001  # else it would be taken over, again and again
            LOGGER.exception("internal_error", extra={"fields": {"stream": self._lease.stream}})
            return as_unbroken_error(error)
        return None

    async def _write(self, events: list[Event]) -> None:
        live, lease, record = self.live, self._lease, encode_events(events)
        ack = await self._store.append(lease.stream, [record], live.tail, lease.fence)
        live.push(events, record)
        live.wake()
        if ack.cancelled:
            await self.stop("cancelled", "stopped")

    async def _finish(self, error: UnbrokenError | None) -> None:
        """Close the stream. The answer is whole in memory, so while the store is away nothing is
        given up that would have to be asked of the provider again.
        """
        ending = self._stopped or Ending("failed" if error else "complete", "", error)
        response, metrics = self._stream.response, self._stream.metrics
        result = result_of(self.request, response, metrics, ending)
        while self.live.end is None:
            try:
                finished = await self._finisher.finish(self.lease, self.request, result)
            except (OffsetConflict, StreamClosed, StreamMissing):
                raise
            except StoreError:
                await asyncio.sleep(RETRY_CLOSE)
            else:
                self.live.end = finished


def coalesce_text(events: list[Event]) -> list[Event]:
    """Join neighbouring pieces of text: a burst is stored and sent as one."""
    if len(events) == 1:
        return events
    joined: list[Event] = []
    for choice, run in groupby(events, _text_choice):
        if choice is None:
            joined += run
        else:
            text = "".join([event.text for event in run])  # type: ignore[union-attr]
            joined.append(TextDelta(text, choice))
    return joined


def _text_choice(event: Event) -> int | None:
    return event.choice if type(event) is TextDelta else None
