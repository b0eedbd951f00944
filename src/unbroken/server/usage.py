"""What each key has used today, as all processes of a store agree on it.

A key has a stream for each day (UTC). What is used is appended at the tail that was read last, so
that of two processes that would take the last of a limit one is told of a conflict: it reads what
the other has written and decides again. Within a process one task writes for all who wait, as one
record: a busy key costs few writes, and nobody who leaves can tear one apart.
"""

import asyncio
import contextlib
import time
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from unbroken.errors import OffsetConflict, OffsetUnknown, StoreError, StreamMissing
from unbroken.stores.base import Clock, NewStream, Search, Store

SPENT = "_spent"
"""Whose the streams are; no caller is called so."""

DAY = 86_400
FOR_EVER = 100 * 365.0 * DAY
"""Seconds of a lease that keeps a stream from being an orphan, and from being pruned."""

PAUSE = 1.0
"""Seconds until a store that is away is asked again."""

Limits = Mapping[str, float]
"""How much there may be of a field of UsageTotals."""


class UsageTotals(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was used, at a time or in a day."""

    requests: int = 0
    tokens: int = 0
    usd: float = 0.0

    def __add__(self, other: "UsageTotals") -> "UsageTotals":
        return UsageTotals(
            requests=self.requests + other.requests,
            tokens=self.tokens + other.tokens,
            usd=self.usd + other.usd,
        )

    def exceeded(self, limits: Limits) -> str:
        """The name of a limit that is reached; empty if none is."""
        return next((kind for kind, most in limits.items() if getattr(self, kind) >= most), "")


_spent = msgspec.json.Decoder(UsageTotals).decode


class UsageLedger:
    """The accounts of a store's keys. `clock` says which day it is."""

    def __init__(self, store: Store, clock: Clock = time.time) -> None:
        self._store, self._clock = store, clock
        self._day, self._of = -1, dict[str, _Account]()

    async def charge(self, owner: str, used: UsageTotals, limits: Limits | None = None) -> str:
        """Add what is used, and return when it is written. If a limit is reached already nothing
        is added, and its name comes back.

        With `limits`, StoreError if the store does not take it. Without, what is told has happened,
        and is tried until the store takes it.
        """
        account = await self._account(owner)
        return await account.charge(_Entry(used, limits))

    async def spent(self, owner: str) -> UsageTotals:
        """What was used today."""
        try:
            return (await _read(self._store, _place(owner, self._today()), 0))[0]
        except StreamMissing:
            return UsageTotals()

    def cached(self, owner: str) -> UsageTotals:
        """What was used today as far as this process knows: that much, if not more."""
        known = self._day == self._today() and owner in self._of
        return self._of[owner].total if known else UsageTotals()

    async def close(self) -> None:
        """Write no more. What still waits for a store that is away is lost."""
        writers = [account.writer for account in self._of.values() if account.writer is not None]
        for writer in writers:
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)

    async def _account(self, owner: str) -> "_Account":
        if self._day != self._today():
            self._day, self._of = self._today(), {}
            with contextlib.suppress(StoreError):  # what stays today goes tomorrow
                await self._forget_old_days()
        return self._of.setdefault(owner, _Account(self._store, owner, self._day))

    async def _forget_old_days(self) -> None:
        """All but yesterday: another machine's clock may be late."""
        found = await self._store.find(SPENT, Search(limit=500))
        while found.streams:
            old = [s.id for s in found.streams if int(s.labels["day"]) < self._day - 1]
            for stream in old:
                with contextlib.suppress(StreamMissing):  # another process was faster
                    await self._store.delete(stream)
            if found.next is None:
                return
            found = await self._store.find(SPENT, Search(before=found.next, limit=500))

    def _today(self) -> int:
        return int(self._clock()) // DAY


class _Entry:
    """What somebody wants to be written, and a place for what becomes of it."""

    def __init__(self, used: UsageTotals, limits: Limits | None) -> None:
        self.used, self.limits = used, limits
        self.told = asyncio.get_running_loop().create_future()


class _Account:
    """One key's day: what has been read of it, and what is to be written."""

    def __init__(self, store: Store, owner: str, day: int) -> None:
        self._store = store
        self._new = NewStream(id=_place(owner, day), owner=SPENT, labels={"day": str(day)})
        self._waiting: list[_Entry] = []
        self.total, self._tail, self._fence, self._created = UsageTotals(), 0, 0, 0.0
        self._current = False  # as far as we know
        self.writer: asyncio.Task[None] | None = None

    async def charge(self, entry: _Entry) -> str:
        self._waiting.append(entry)
        if self.writer is None or self.writer.done():
            self.writer = asyncio.create_task(self._write())
        await asyncio.wait((entry.told, self.writer), return_when=asyncio.FIRST_COMPLETED)
        if not entry.told.done():
            self.writer.result()  # raises what the writer has died of
        found: str = entry.told.result()
        return found

    async def _write(self) -> None:
        """Until nobody waits."""
        while self._waiting:
            try:
                if not self._current:
                    await self._catch_up()
                await self._decide(self._waiting.copy())
            except (OffsetConflict, OffsetUnknown, StreamMissing):
                self._current = False
            except StoreError as error:
                self._let_down(error)
                await asyncio.sleep(PAUSE if self._waiting else 0)

    async def _catch_up(self) -> None:
        """Read what others have written; all of it, if what we have read is gone: the stream is
        another one, or its store has lost the end.
        """
        stream = (await self._store.create(self._new, (), "keys", FOR_EVER)).stream
        if stream.created != self._created or stream.tail < self._tail:
            self.total, self._tail, self._created = UsageTotals(), 0, stream.created
        more, self._tail = await _read(self._store, stream.id, self._tail)
        self.total, self._fence, self._current = self.total + more, stream.fence, True

    async def _decide(self, entries: list[_Entry]) -> None:
        """Tell everybody, in the order of asking, when it is written."""
        new, told = UsageTotals(), []
        for entry in entries:
            told.append((self.total + new).exceeded(entry.limits or {}))
            if not told[-1]:
                new += entry.used
        if new != UsageTotals():
            record = msgspec.json.encode(new)
            ack = await self._store.append(self._new.id, [record], self._tail, self._fence)
            self.total, self._tail = self.total + new, ack.tail
        del self._waiting[: len(entries)]
        for entry, limit in zip(entries, told, strict=True):
            entry.told.set_result(limit)

    def _let_down(self, error: StoreError) -> None:
        """Who asks hears of it; what has been used waits."""
        for entry in self._waiting:
            if entry.limits is not None:
                entry.told.set_exception(error)
        self._waiting = [entry for entry in self._waiting if entry.limits is None]


def _place(owner: str, day: int) -> str:
    return f"{owner}_{day}"


async def _read(store: Store, stream: str, after: int) -> tuple[UsageTotals, int]:
    """The sum of what stands behind an offset, and where that ends."""
    total = UsageTotals()
    while (page := await store.read(stream, after)).records:
        for record in page.records:
            total += _spent(record.data)
        after = page.next
    return total, after
