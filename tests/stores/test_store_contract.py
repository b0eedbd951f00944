"""Every store keeps the contract, and the contract notices one that does not."""

import asyncio

import pytest

from unbroken.stores import contract
from unbroken.stores.memory import MemoryStore


@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda check: check.__name__)
def test_the_store_keeps_the_contract(check, factory):
    asyncio.run(check(factory))


def test_all_checks_run_at_once_without_a_framework():
    assert len(contract.CHECKS) > 30

    asyncio.run(contract.run(lambda clock: MemoryStore(clock=clock)))
