"""Who reads which answer, and what becomes of one that nobody reads any more.

Three things that look alike and are not: *stop* is a wish, told to `Answers.stop`, and ends the
answer for everybody; a reader that *leaves* lets the answer's policy decide; a reader that lost
its network *comes back*, to this process or to another, within the grace time.

A reader at another process counts as well: that process announces it in the store.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from unbroken.errors import StoreError, StreamMissing
from unbroken.server.records import AnswerRequest, decode_request
from unbroken.stores.base import Store

PRESENCE_TTL = 2.0
"""Seconds that an announcement holds; and that an answer's first reader has to come."""


class ReaderPresence:
    """The followers in this process. `abandon` is called for an answer that nobody reads."""

    def __init__(
        self,
        store: Store,
        abandon: Callable[[str], Awaitable[None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._abandon, self._clock = store, abandon, clock
        self._counts: Counter[str] = Counter()
        self._here: dict[str, float | None] = {}  # what we produce: seconds to wait, None for ever
        self._alone: dict[str, float] = {}  # when the wait for what nobody reads here is over
        self._next = 0.0
        self._elsewhere: dict[str, bool] = {}  # whether its producer cares who reads

    @property
    def total(self) -> int:
        """All followers of this process."""
        return self._counts.total()

    def produced(self, stream: str, asked: AnswerRequest) -> None:
        """From now on this process writes the answer."""
        waits: dict[str, float | None] = {"keep": None, "cancel": 0.0, "grace": asked.grace}
        self._here[stream] = waits[asked.on_disconnect]
        self._wait(stream, PRESENCE_TTL)

    def over(self, stream: str) -> None:
        """This process writes it no more."""
        self._here.pop(stream, None)
        self._alone.pop(stream, None)

    def enter(self, stream: str) -> None:
        """One reader more."""
        self._counts[stream] += 1
        self._alone.pop(stream, None)

    def leave(self, stream: str) -> None:
        """One reader less; the last one may take the answer along."""
        self._counts[stream] -= 1
        if self._counts[stream]:
            return
        del self._counts[stream]
        self._elsewhere.pop(stream, None)
        self._wait(stream)

    async def look(self) -> None:
        """Abandon what nobody has read for as long as its policy waits, here or elsewhere."""
        now = self._clock()
        late = [stream for stream, until in self._alone.items() if until <= now]
        if now >= self._next:
            self._next, late = now + PRESENCE_TTL / 2, [*self._alone]  # who is announced elsewhere?
        await asyncio.gather(*map(self._check, late))

    async def announce(self) -> None:
        """Tell the producers at other processes that their answers are read here."""
        far = [stream for stream in self._counts if stream not in self._here]
        await asyncio.gather(*map(self._attend, far))

    def close(self) -> None:
        """Nobody is abandoned any more: the readers are sent away, they did not leave."""
        self._here.clear()
        self._alone.clear()

    async def _attend(self, stream: str) -> None:
        try:
            if stream not in self._elsewhere:
                first = (await self._store.read(stream, limit=1)).records
                cares = bool(first) and decode_request(first[0].data).on_disconnect != "keep"
                self._elsewhere[stream] = cares
            if self._elsewhere[stream]:
                await self._store.attend(stream, PRESENCE_TTL)
        except StreamMissing:
            self._elsewhere.pop(stream, None)  # the follower hears of it by itself

    def _wait(self, stream: str, least: float = 0.0, ago: float = 0.0) -> None:
        """It was read last so many seconds ago. Wait as long as its policy says, or `least`."""
        patience = self._here.get(stream)
        if patience is not None and not self._counts[stream]:
            until = self._clock() + max(patience - ago, least)
            self._alone[stream] = max(until, self._alone.get(stream, 0.0))

    async def _check(self, stream: str) -> None:
        try:
            elsewhere = await self._store.attended(stream)
        except StoreError:
            elsewhere = PRESENCE_TTL  # nobody is sent away because the store can't be asked
        if stream not in self._alone:
            return  # somebody has come meanwhile
        if elsewhere:
            self._wait(stream, elsewhere, PRESENCE_TTL - elsewhere)
        elif self._alone[stream] <= self._clock():
            del self._alone[stream]
            await self._abandon(stream)
