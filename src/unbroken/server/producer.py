"""One answer: from the provider into the log.

One read is one record. While it is being stored nothing is read, so what arrives meanwhile comes
with the next read, and a store that is slow slows the provider down instead of filling the memory.
Followers see a record when the store has acknowledged it.
"""

from itertools import groupby
from typing import NamedTuple

from unbroken.client._async import AsyncStream
from unbroken.errors import StoreError, UnbrokenError
from unbroken.events import Event, TextDelta
from unbroken.metrics.timing import StreamMetrics
from unbroken.response import Response
from unbroken.server.estimate import cost_of, usage_of
from unbroken.server.log import LOGGER
from unbroken.server.records import (
    AnswerRequest,
    Failure,
    Outcome,
    as_unbroken_error,
    encode_events,
    encode_outcome,
)
from unbroken.server.tail import LiveTail
from unbroken.stores.base import End, Lease, Store


class Result(NamedTuple):
    """What became of an answer."""

    final: Outcome
    response: Response
    metrics: StreamMetrics


class Producer:
    """Writes the answer of `stream` behind what is in the log already, while `lease` holds."""

    def __init__(
        self, store: Store, lease: Lease, stream: AsyncStream, asked: AnswerRequest
    ) -> None:
        self.lease = lease
        self.live = LiveTail(lease.tail)
        self._store, self._stream, self._asked = store, stream, asked
        self._stopped = ("", "")  # the state to end with, and why, if they are not its own

    async def run(self) -> Result | None:
        """To the end. None if that is another's to write: somebody has taken over, or the store
        is gone and whoever reaches it will.
        """
        try:
            error = await self._produce()
            return await self._finish(error)
        except StoreError:
            return None
        finally:
            await self._stream.close()
            self.live.wake()  # there is an end, or the store knows more

    async def stop(self, state: str, reason: str = "") -> None:
        """End the answer here; it will say so to every follower. The first word counts."""
        if not self._stopped[0]:
            self._stopped = (state, reason)
        await self._stream.abort()

    async def _produce(self) -> UnbrokenError | None:
        """Store what comes; the provider's failure, if it ends with one."""
        try:
            async for batch in self._stream.batches():
                await self._write(coalesce_text(batch))
        except StoreError:
            raise
        except UnbrokenError as error:
            return error
        except Exception as error:  # noqa: BLE001  # else it would be taken over, for ever
            LOGGER.exception("internal_error", extra={"fields": {"stream": self.lease.stream}})
            return as_unbroken_error(error)
        return None

    async def _write(self, events: list[Event]) -> None:
        live, lease, record = self.live, self.lease, encode_events(events)
        ack = await self._store.append(lease.stream, [record], live.tail, lease.fence)
        live.push(events, record)
        live.wake()
        if ack.cancelled:
            await self.stop("cancelled", "stopped")

    async def _finish(self, error: UnbrokenError | None) -> Result:
        final = self._final(error)
        end = End(final.state, encode_outcome(final))
        await self._store.close(self.lease.stream, end, self.live.tail, self.lease.fence)
        self.live.end = end
        return Result(final, self._stream.response, self._stream.metrics)

    def _final(self, error: UnbrokenError | None) -> Outcome:
        response, metrics = self._stream.response, self._stream.metrics
        stopped, reason = self._stopped
        usage = usage_of(self._asked.request, response)
        return Outcome(
            state=stopped or ("failed" if error else "complete"),
            reason=reason,
            error=None if stopped or error is None else Failure.from_error(error),
            usage=usage,
            cost=cost_of(response, usage),
            provider=response.provider,
            model=response.model,
            attempts=len(response.attempts),
            metrics={
                "time_to_first_token": metrics.time_to_first_token,
                "tokens_per_second": metrics.tokens_per_second,
                "duration": metrics.duration,
            },
        )


def coalesce_text(events: list[Event]) -> list[Event]:
    """Pieces of text that came together are one piece: a burst is stored and sent as one."""
    if len(events) == 1:
        return events
    said: list[Event] = []
    for choice, run in groupby(events, _text_choice):
        if choice is None:
            said += run
        else:
            said.append(TextDelta("".join([event.text for event in run]), choice))  # type: ignore[union-attr]
    return said


def _text_choice(event: Event) -> int | None:
    return event.choice if type(event) is TextDelta else None
