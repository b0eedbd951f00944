"""Counters in Redis.

A counter is in the shard of its name. What a stream charges is charged in the step that creates or
closes it, where both are in one shard, as on a single server. In a cluster they may not be: then
the charges of an end are kept with it, in `due`, and settled right after; what a process that was
killed in between has left is settled by the next one that looks for orphans. A payment is known by
its name, so that it counts once however often it is sent.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec

from unbroken.stores.counters import WINDOW_SECONDS, Charge, QuotaReached, Window, check_charges
from unbroken.stores.redis import scripts
from unbroken.stores.redis.client import RetryingClient
from unbroken.stores.redis.nodes import Shard

END_PAID, CALL_PAID = 7 * 86_400, 600
"""Seconds for which a payment is remembered: of an end, of a call."""

_due = msgspec.json.Decoder(list[Charge])


def encode(charges: Sequence[Charge]) -> bytes:
    """Encode charges for the scripts."""
    rows = [(WINDOW_SECONDS[one.window], one.amounts, one.limits) for one in charges]
    return msgspec.json.encode(rows)


def encode_due(charges: Sequence[Charge]) -> bytes:
    """Encode charges to be settled later; nothing for none."""
    return msgspec.json.encode(charges) if charges else b""


def key(shard: Shard, charge: Charge) -> str:
    """Return the key of a counter."""
    return shard.key("c", f"{charge.window}:{charge.counter}")


def check_quota(charges: Sequence[Charge], answer: Any) -> None:
    """QuotaReached if a script says so."""
    if isinstance(answer, list) and answer[0] == b"quota":
        _, at, field, used, until = answer
        raise QuotaReached(charges[at - 1], field.decode(), int(used), float(until))


class Counters:
    """The counters of a store."""

    def __init__(self, client: RetryingClient) -> None:
        self._client = client

    def split(self, shard: Shard, charges: Sequence[Charge]) -> tuple[list[Charge], list[Charge]]:
        """Check charges; those whose counter is in a shard, and the others."""
        check_charges(charges)
        groups = self._grouped(charges)
        here = groups.pop(shard, [])
        return here, [charge for some in groups.values() for charge in some]

    def _grouped(self, charges: Sequence[Charge]) -> dict[Shard, list[Charge]]:
        groups: dict[Shard, list[Charge]] = defaultdict(list)
        for charge in charges:
            groups[self._client.nodes.shard(charge.counter)].append(charge)
        return groups

    async def charge(
        self, charges: Sequence[Charge], payment: str, seconds: int = CALL_PAID, ended: str = ""
    ) -> None:
        """Check and charge, once for each name of a payment. `ended`: the time that counts."""
        check_charges(charges)
        given = ("late" if ended else "", ended or self._client.now(), seconds)
        for shard, some in self._grouped(charges).items():
            keys = [shard.key("paid", payment), *(key(shard, charge) for charge in some)]
            answer = await self._client.run(shard, scripts.CHARGE, keys, *given, encode(some))
            check_quota(some, answer)

    async def usage(self, counters: Sequence[str], window: Window) -> list[dict[str, int]]:
        return await asyncio.gather(*(self._usage(counter, window) for counter in counters))

    async def _usage(self, counter: str, window: Window) -> dict[str, int]:
        shard = self._client.nodes.shard(counter)
        keys = [key(shard, Charge(counter, {}, window))]
        given = (self._client.now(), WINDOW_SECONDS[window])
        flat = (await self._client.read(shard, scripts.USAGE, keys, *given))[1]
        fields = zip(flat[::2], flat[1::2], strict=True)
        return {name[1:].decode(): int(n) for name, n in fields if name.startswith(b":")}

    async def settle_all(self, shards: Sequence[Shard]) -> None:
        """Settle what is due: all charges of ends that are kept in some shards."""
        await asyncio.gather(*map(self._settle_shard, shards))

    async def _settle_shard(self, shard: Shard) -> None:
        flat = (await self._client.read(shard, scripts.DUE, [shard.key("due")]))[1]
        for stream, due in zip(flat[::2], flat[1::2], strict=True):
            await self._settle(shard, stream.decode(), due)

    async def _settle(self, shard: Shard, stream: str, due: bytes) -> None:
        ended, _, charges = due.partition(b" ")
        await self.charge(_due.decode(charges), f"end:{stream}", END_PAID, ended.decode())
        await self._client.run(shard, scripts.SETTLED, [shard.key("due")], stream)
