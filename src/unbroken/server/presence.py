"""Which answers have readers, and what happens to an answer that has none any more.

Three things look alike and are not: *stop* is an explicit request (`Answers.stop`) and ends the
answer for every reader; a reader that *leaves* lets the answer's policy decide; a reader that lost
its network *comes back*, to this process or to another, within the grace time.

A reader at another process counts as well: that process announces it in the store.
"""

import time
from collections import Counter
from collections.abc import Awaitable, Callable

from unbroken.errors import StoreError, StreamMissing
from unbroken.server.records import AnswerRequest, decode_request
from unbroken.stores.base import Store

PRESENCE_TTL = 2.0
"""Seconds that an announcement holds, and that the first reader of an answer has to come."""


class ReaderPresence:
    """The followers in this process. `abandon` is called for an answer without readers."""

    def __init__(
        self,
        store: Store,
        abandon: Callable[[str], Awaitable[None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._abandon, self._clock = store, abandon, clock
        self._counts: Counter[str] = Counter()
        self._patience: dict[str, float | None] = {}  # of answers produced here; None: for ever
        self._idle_until: dict[str, float] = {}  # of answers produced here without readers here
        self._next_look = 0.0
        self._remote_interest: dict[str, bool] = {}  # whether its producer needs to know

    @property
    def total(self) -> int:
        """The number of followers of this process."""
        return self._counts.total()

    def track(self, stream: str, request: AnswerRequest) -> None:
        """This process begins to produce the answer."""
        patience: dict[str, float | None] = {"keep": None, "cancel": 0.0, "grace": request.grace}
        self._patience[stream] = patience[request.on_disconnect]
        self._wait(stream, PRESENCE_TTL)

    def untrack(self, stream: str) -> None:
        """This process produces the answer no more."""
        self._patience.pop(stream, None)
        self._idle_until.pop(stream, None)

    def join(self, stream: str) -> None:
        """Count one reader more."""
        self._counts[stream] += 1
        self._idle_until.pop(stream, None)

    def leave(self, stream: str) -> None:
        """Count one reader less; after the last one the answer's policy decides."""
        self._counts[stream] -= 1
        if self._counts[stream]:
            return
        del self._counts[stream]
        self._remote_interest.pop(stream, None)
        self._wait(stream)

    async def expire(self) -> None:
        """Abandon what has had no reader for as long as its policy waits, here or elsewhere."""
        now = self._clock()
        idle = [stream for stream, until in self._idle_until.items() if until <= now]
        if now >= self._next_look:  # at all of them: is one announced elsewhere?
            self._next_look, idle = now + PRESENCE_TTL / 2, [*self._idle_until]
        if not idle:
            return
        try:
            elsewhere = await self._store.reader_leases(idle)
        except StoreError:  # no reader is sent away because the store does not answer
            elsewhere = dict.fromkeys(idle, PRESENCE_TTL)
        for stream in idle:
            await self._decide(stream, elsewhere.get(stream, 0.0))

    async def publish(self) -> None:
        """Announce the readers here to the producers at other processes, in one step."""
        remote = [stream for stream in self._counts if stream not in self._patience]
        wanted = [stream for stream in remote if await self._is_wanted(stream)]
        if wanted:
            await self._store.announce_readers(wanted, PRESENCE_TTL)

    def close(self) -> None:
        """Abandon nothing any more: readers are sent away, they do not leave."""
        self._patience.clear()
        self._idle_until.clear()

    async def _is_wanted(self, stream: str) -> bool:
        """Whether the policy of an answer elsewhere depends on its readers."""
        if stream not in self._remote_interest:
            try:
                first = (await self._store.read(stream, limit=1)).records
            except StreamMissing:  # its follower learns that by itself
                return False
            policy = decode_request(first[0].data).on_disconnect if first else "keep"
            self._remote_interest[stream] = policy != "keep"
        return self._remote_interest[stream]

    def _wait(self, stream: str, least: float = 0.0, ago: float = 0.0) -> None:
        """Wait as long as the policy says, or `least`. It was read last `ago` seconds ago."""
        patience = self._patience.get(stream)
        if patience is not None and not self._counts[stream]:
            until = self._clock() + max(patience - ago, least)
            self._idle_until[stream] = max(until, self._idle_until.get(stream, 0.0))

    async def _decide(self, stream: str, elsewhere: float) -> None:
        if stream not in self._idle_until:
            return  # a reader has come meanwhile
        if elsewhere:
            self._wait(stream, elsewhere, PRESENCE_TTL - elsewhere)
        elif self._idle_until[stream] <= self._clock():
            del self._idle_until[stream]
            await self._abandon(stream)
