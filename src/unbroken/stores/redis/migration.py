"""Conversion of a store that was written by an older unbroken.

Version 1 had leases of streams where there are heartbeats of processes now, kept keys of the
gateway open by a lease without end, and kept accounts in streams where there are counters now.
Several processes may convert at once: every step can be repeated.
"""

import time
from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from unbroken.errors import StoreError, StreamMissing
from unbroken.stores.base import EVERYTHING, Found, Page, Search
from unbroken.stores.counters import Charge
from unbroken.stores.redis import scripts
from unbroken.stores.redis.client import RetryingClient
from unbroken.stores.redis.counters import END_PAID, Counters

VERSION = 2
_ACCOUNTS = "_spent"  # the owner of the streams that had accounts, one a key and day
_DAY = 86_400


class _Store(Protocol):
    async def find(self, owner: str | None, search: Search = ..., /) -> Found: ...

    async def read(self, stream: str, after: int = ...) -> Page: ...

    async def delete(self, stream: str) -> None: ...


async def migrate(client: RetryingClient, counters: Counters, store: _Store) -> None:
    """Bring a store to this version. StoreError if a newer unbroken has written it."""
    shard = client.nodes.shards[0]
    keys = [shard.key("version")]
    found = (await client.read(shard, scripts.GET, keys))[1]
    version = int(found) if found else 1
    if version > VERSION:
        raise StoreError(
            f"this store was written by a newer unbroken: it has version {version}, this one"
            f" reads {VERSION}",
            hint="Upgrade unbroken, or name another prefix.",
        )
    if version < VERSION:
        await _convert_leases(client)
        await _convert_accounts(counters, store)
        await client.run(shard, scripts.PUT, keys, VERSION)


async def _convert_leases(client: RetryingClient) -> None:
    for shard in client.nodes.shards:
        answer = await client.read(shard, scripts.RANGES, [shard.key("open")], -1, "-inf", "+inf")
        for name in answer[1][0][::2]:
            keys = [shard.key("h", name.decode()), shard.key("open")]
            await client.run(shard, scripts.CONVERT, keys, name)


async def _convert_accounts(counters: Counters, store: _Store) -> None:
    """Make counters of today's accounts, so that an upgrade gives no key a second day."""
    today = str(int(time.time()) // _DAY)
    async for stream in _streams(store):
        counter, _, day = stream.rpartition("_")
        if day == today:
            charge = Charge(counter, await _used(store, stream))
            await counters.charge([charge], f"migrated:{stream}", END_PAID)
        await _delete(store, stream)


async def _streams(store: _Store) -> AsyncIterator[str]:
    search: Search | None = EVERYTHING
    while search is not None:
        found = await store.find(_ACCOUNTS, search)
        for info in found.streams:
            yield info.id
        search = Search(before=found.next) if found.next else None


async def _delete(store: _Store, stream: str) -> None:
    try:
        await store.delete(stream)
    except StreamMissing:
        return  # another process was faster


async def _used(store: _Store, stream: str) -> dict[str, int]:
    """Sum up an account: records with requests, tokens and USD."""
    sums = {"requests": 0.0, "tokens": 0.0, "usd": 0.0}
    page = await store.read(stream)
    while page.records:
        for record in page.records:
            for field, amount in msgspec.json.decode(record.data).items():
                sums[field] += amount
        page = await store.read(stream, page.next)
    return {field: round(n * 1e6 if field == "usd" else n) for field, n in sums.items()}
