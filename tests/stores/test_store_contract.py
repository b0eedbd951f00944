"""Every store keeps the contract, and the checks find one that does not."""

import asyncio

import pytest

from unbroken.stores import contract, testing
from unbroken.stores.base import Ack, Page
from unbroken.stores.counters import Charge
from unbroken.stores.memory import MemoryStore


@pytest.mark.parametrize("check", testing.CHECKS, ids=lambda check: check.__name__)
def test_the_store_keeps_the_contract(check, factory):
    asyncio.run(check(factory))


def test_all_checks_run_at_once_without_a_framework():
    assert len(testing.CHECKS) > 30

    asyncio.run(testing.run(lambda clock: MemoryStore(clock=clock)))
    assert contract.run is testing.run  # the former name


class Unfenced(MemoryStore):
    async def append(self, stream, records, at, fence=0):
        return await super().append(stream, records, at, self._log(stream).fence)


class Deaf(MemoryStore):
    async def wait(self, stream, after, seconds):
        return self._log(stream).tail > after


class Forgetful(MemoryStore):
    async def create(self, new, records=(), producer="", charges=()):
        self._keys.clear()
        return await super().create(new, records, producer, charges)


class Generous(MemoryStore):
    def _orphans(self):
        return iter([*self._produced.values()])


class Endless(MemoryStore):
    async def read(self, stream, after=0, limit=1000):
        page = await super().read(stream, after, limit)
        return Page(page.records, page.next)


class Careless(MemoryStore):
    async def append(self, stream, records, at, fence=0):
        ack = await super().append(stream, records, at, fence)
        return Ack(ack.tail)


class Free(MemoryStore):
    async def close(self, stream, end, at, fence=0, records=(), charges=()):
        return await super().close(stream, end, at, fence, records)


class Greedy(MemoryStore):
    async def close(self, stream, end, at, fence=0, records=(), charges=()):
        await self.charge(charges)
        return await super().close(stream, end, at, fence, records)


class Unlimited(MemoryStore):
    async def create(self, new, records=(), producer="", charges=()):
        unlimited = [Charge(c.counter, c.amounts, c.window) for c in charges]
        return await super().create(new, records, producer, unlimited)


class Forgiving(MemoryStore):
    def _take_over(self, log, process):
        log.takeovers = 0
        return super()._take_over(log, process)


BROKEN = [Unfenced, Deaf, Forgetful, Generous, Endless, Careless]
BROKEN += [Free, Greedy, Unlimited, Forgiving]


@pytest.mark.parametrize("store", BROKEN, ids=lambda store: store.__name__)
def test_a_store_that_does_otherwise_is_found_out(store):
    with pytest.raises(testing.Broken, match="check_"):
        asyncio.run(testing.run(lambda clock: store(clock=clock)))
