"""Every store keeps the contract, and the contract notices one that does not."""

import asyncio

import pytest

from unbroken.stores import contract
from unbroken.stores.base import Ack, Page
from unbroken.stores.memory import MemoryStore


@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda check: check.__name__)
def test_the_store_keeps_the_contract(check, factory):
    asyncio.run(check(factory))


def test_all_checks_run_at_once_without_a_framework():
    assert len(contract.CHECKS) > 30

    asyncio.run(contract.run(lambda clock: MemoryStore(clock=clock)))


class Unfenced(MemoryStore):
    async def append(self, stream, records, at, fence=0, end=None):
        return await super().append(stream, records, at, self._log(stream).fence, end)


class Deaf(MemoryStore):
    async def wait(self, stream, after, seconds):
        return self._log(stream).tail > after


class Forgetful(MemoryStore):
    async def create(self, new, records=(), producer="", seconds=0.0):
        self._keys.clear()
        return await super().create(new, records, producer, seconds)


class Generous(MemoryStore):
    async def acquire(self, stream, producer, seconds):
        return self._grant(self._log(stream), producer, seconds)


class Endless(MemoryStore):
    async def read(self, stream, after=0, limit=1000):
        page = await super().read(stream, after, limit)
        return Page(page.records, page.next)


class Careless(MemoryStore):
    async def append(self, stream, records, at, fence=0, end=None):
        ack = await super().append(stream, records, at, fence, end)
        return Ack(ack.tail)


BROKEN = [Unfenced, Deaf, Forgetful, Generous, Endless, Careless]


@pytest.mark.parametrize("store", BROKEN, ids=lambda store: store.__name__)
def test_a_store_that_does_otherwise_is_found_out(store):
    with pytest.raises(contract.Broken, match="check_"):
        asyncio.run(contract.run(lambda clock: store(clock=clock)))
