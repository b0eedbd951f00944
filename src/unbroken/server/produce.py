"""One answer: from the provider into the log.

One read is one record. While it is being stored nothing is read, so what arrives meanwhile comes
with the next read, and a store that is slow slows the provider down instead of filling the memory.
Followers see a record when the store has acknowledged it.
"""

from collections.abc import Callable
from itertools import groupby
from typing import NamedTuple

from unbroken.client._async import AsyncStream
from unbroken.errors import ServerError, StoreError, UnbrokenError
from unbroken.events import Event, TextDelta
from unbroken.metrics.timing import StreamMetrics
from unbroken.response import Response
from unbroken.server.live import Live
from unbroken.server.log import LOGGER
from unbroken.server.records import Final, events_to, failure_of, final_to
from unbroken.stores.base import End, Lease, Store


class Outcome(NamedTuple):
    """What became of an answer."""

    state: str
    response: Response
    metrics: StreamMetrics
    reason: str = ""


class Producer:
    """Writes the answer of `stream` behind what is in the log already, while `lease` holds."""

    def __init__(self, store: Store, lease: Lease, open_: Callable[[], AsyncStream]) -> None:
        self.lease = lease
        self.live = Live(lease.tail)
        self._store, self._open = store, open_
        self._stream: AsyncStream | None = None
        self._stopped = ("", "")  # the state to end with, and why, if they are not its own

    async def run(self) -> Outcome | None:
        """To the end. None if that is another's to write: somebody has taken over, or the store
        is gone and whoever reaches it will.
        """
        stream = self._stream = self._open()
        try:
            error = await self._produce(stream)
            return await self._finish(stream, error)
        except StoreError:
            return None
        finally:
            await stream.close()
            self.live.wake()  # there is an end, or the store knows more

    async def stop(self, state: str, reason: str = "") -> None:
        """End the answer here; it will say so to every follower. The first word counts."""
        if not self._stopped[0]:
            self._stopped = (state, reason)
        if self._stream is not None:
            await self._stream.abort()

    async def _produce(self, stream: AsyncStream) -> UnbrokenError | None:
        """Store what comes; the provider's failure, if it ends with one."""
        try:
            async for batch in stream.batches():
                await self._write(joined(batch))
        except StoreError:
            raise
        except UnbrokenError as error:
            return error
        except Exception as error:  # noqa: BLE001  # else it would be taken over, for ever
            LOGGER.exception("a fault of ours", extra={"facts": {"stream": self.lease.stream}})
            return ServerError(f"a fault of the gateway: {type(error).__name__}", status=500)
        return None

    async def _write(self, events: list[Event]) -> None:
        live, lease, record = self.live, self.lease, events_to(events)
        ack = await self._store.append(lease.stream, [record], live.tail, lease.fence)
        live.push(events, record)
        live.wake()
        if ack.cancelled:
            await self.stop("cancelled", "stopped")

    async def _finish(self, stream: AsyncStream, error: UnbrokenError | None) -> Outcome:
        final = self._final(stream, error)
        end = End(final.state, final_to(final))
        await self._store.close(self.lease.stream, end, self.live.tail, self.lease.fence)
        self.live.end = end
        return Outcome(end.state, stream.response, stream.metrics, final.reason)

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
