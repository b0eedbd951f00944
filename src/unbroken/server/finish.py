"""The one way in which an answer ends, whichever process ends it and why.

The end, the last records and what the answer cost are one step of the store: they are written
together exactly once, whatever is killed meanwhile. Then this process counts, logs and reports the
answer, once. A process that is killed between the two has charged the answer, and its line in the
log and its numbers in the metrics are missing: they are written at most once.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from unbroken.errors import StreamClosed, UnbrokenError
from unbroken.metrics.timing import StreamMetrics
from unbroken.response import Response
from unbroken.server.estimate import cost_of, usage_of
from unbroken.server.records import AnswerRequest, Failure, Outcome, encode_outcome
from unbroken.server.travel import provider_facts
from unbroken.server.usage import answer_charges
from unbroken.stores.base import End, Lease, Store


class Result(NamedTuple):
    """What became of an answer."""

    outcome: Outcome
    response: Response
    metrics: StreamMetrics


OnFinished = Callable[[AnswerRequest, str, Result], None]
"""Called with the request, the stream's id and the result, once for each answer that ended here."""


class Ending(NamedTuple):
    """How an answer ends: its state, why it was stopped, or the error that ended it."""

    state: str
    reason: str = ""
    error: UnbrokenError | None = None


def result_of(
    request: AnswerRequest, response: Response, metrics: StreamMetrics, ending: Ending
) -> Result:
    """Return the result of an answer, with its usage and its price as they are charged."""
    usage = usage_of(request.request, response, metrics)
    outcome = Outcome(
        state=ending.state,
        reason=ending.reason,
        error=None if ending.error is None else Failure.from_error(ending.error),
        usage=usage,
        cost=cost_of(request.request, response, usage),
        provider=response.provider,
        model=response.model,
        attempts=len(response.attempts),
        facts=provider_facts(response),
        metrics={
            "time_to_first_token": metrics.time_to_first_token,
            "tokens_per_second": metrics.tokens_per_second,
            "duration": metrics.duration,
        },
    )
    return Result(outcome, msgspec.structs.replace(response, usage=usage), metrics)


class Finisher:
    """Ends answers: closes their streams, charges their owners, reports them."""

    def __init__(self, store: Store, on_finished: OnFinished | None) -> None:
        self._store, self._on_finished = store, on_finished

    async def finish(
        self,
        lease: Lease,
        request: AnswerRequest,
        result: Result,
        records: Sequence[bytes] = (),
    ) -> End:
        """Close the stream of `lease` behind `lease.tail`, with its last records. StoreError if
        the store does not take it: then nothing has been reported, and it may be tried again.
        """
        end = End(result.outcome.state, encode_outcome(result.outcome))
        await self._close(lease, end, request, result.outcome, records)
        if self._on_finished is not None:
            self._on_finished(request, lease.stream, result)
        return end

    async def _close(
        self,
        lease: Lease,
        end: End,
        request: AnswerRequest,
        outcome: Outcome,
        records: Sequence[bytes],
    ) -> None:
        charges = answer_charges(request.owner, outcome.usage, outcome.cost)
        try:
            await self._store.close(lease.stream, end, lease.tail, lease.fence, records, charges)
        except StreamClosed:  # by an earlier try, whose acknowledgement was lost?
            if (await self._store.info(lease.stream)).end != end:
                raise
