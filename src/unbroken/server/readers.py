"""Who reads which answer, and what becomes of one that nobody reads any more.

Three things that look alike and are not: *stop* is a wish, told to `Answers.stop`, and ends the
answer for everybody; a reader that *leaves* lets the answer's policy decide; a reader that lost
its network *comes back*, to this process or to another, within the grace time.

A reader at another process counts as well: that process announces it in the store.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from unbroken.errors import StoreError, StreamMissing
from unbroken.server.records import Asked, asked_from
from unbroken.stores.base import Store

PRESENCE = 2.0
"""Seconds that an announcement holds; and that an answer's first reader has to come."""


class Readers:
    """The followers in this process. `abandon` is called for an answer that nobody reads."""

    def __init__(self, store: Store, abandon: Callable[[str], Awaitable[None]]) -> None:
        self._store, self._abandon = store, abandon
        self._counts: Counter[str] = Counter()
        self._here: dict[str, float | None] = {}  # what we produce: seconds to wait, None for ever
        self._elsewhere: dict[str, bool] = {}  # whether its producer cares who reads
        self._checks: set[asyncio.Task[None]] = set()

    @property
    def total(self) -> int:
        """All followers of this process."""
        return self._counts.total()

    def produced(self, stream: str, asked: Asked) -> None:
        """From now on this process writes the answer."""
        waits: dict[str, float | None] = {"keep": None, "cancel": 0.0, "grace": asked.grace}
        patience = self._here[stream] = waits[asked.on_disconnect]
        if patience is not None:
            self._look_after(max(patience, PRESENCE), stream)

    def over(self, stream: str) -> None:
        """This process writes it no more."""
        self._here.pop(stream, None)

    def enter(self, stream: str) -> None:
        """One reader more."""
        self._counts[stream] += 1

    def leave(self, stream: str) -> None:
        """One reader less; the last one may take the answer along."""
        self._counts[stream] -= 1
        if self._counts[stream]:
            return
        del self._counts[stream]
        self._elsewhere.pop(stream, None)
        patience = self._here.get(stream)
        if patience is not None:
            self._look_after(patience, stream)

    async def announce(self) -> None:
        """Tell the producers at other processes that their answers are read here."""
        far = [stream for stream in self._counts if stream not in self._here]
        await asyncio.gather(*map(self._attend, far))

    def close(self) -> None:
        """Nobody is abandoned any more: the readers are sent away, they did not leave."""
        self._here.clear()

    async def _attend(self, stream: str) -> None:
        try:
            if stream not in self._elsewhere:
                first = (await self._store.read(stream, limit=1)).records
                cares = bool(first) and asked_from(first[0].data).on_disconnect != "keep"
                self._elsewhere[stream] = cares
            if self._elsewhere[stream]:
                await self._store.attend(stream, PRESENCE)
        except StreamMissing:
            self._elsewhere.pop(stream, None)  # the follower hears of it by itself

    def _look_after(self, seconds: float, stream: str) -> None:
        asyncio.get_running_loop().call_later(seconds, self._look, stream)

    def _look(self, stream: str) -> None:
        if stream in self._here and not self._counts[stream]:
            task = asyncio.ensure_future(self._check(stream))
            self._checks.add(task)
            task.add_done_callback(self._checks.discard)

    async def _check(self, stream: str) -> None:
        try:
            elsewhere = await self._store.attended(stream)
        except StoreError:
            elsewhere = PRESENCE  # nobody is sent away because the store can't be asked
        if elsewhere:
            self._look_after(elsewhere, stream)
        elif not self._counts[stream]:
            await self._abandon(stream)
