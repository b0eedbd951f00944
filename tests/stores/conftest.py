"""Every store by name, on empty ground."""

import itertools

import pytest
from redis_server import fresh, sharded

from unbroken.stores.memory import MemoryStore
from unbroken.stores.sqlite import SqliteStore

OPENERS = {
    "memory": lambda path: lambda clock: MemoryStore(clock=clock),
    "sqlite": lambda path: lambda clock: SqliteStore(str(path), clock=clock),
    "sqlite-normal": lambda path: lambda clock: SqliteStore(str(path), "normal", 0, clock=clock),
    "redis": lambda path: fresh,
    "redis-shards": lambda path: sharded,
}


@pytest.fixture(params=OPENERS)
def factory(request, tmp_path):
    """A factory as the contract wants it."""
    numbers = itertools.count()

    def open_store(clock):
        return OPENERS[request.param](tmp_path / f"{next(numbers)}.db")(clock)

    return open_store
