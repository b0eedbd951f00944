"""Any sequence of calls gives what a simple model says, in every store."""

import asyncio
import itertools
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from redis_server import fresh

from unbroken.errors import OffsetConflict, StreamClosed
from unbroken.stores.base import End, Lease, NewStream, Search
from unbroken.stores.memory import MemoryStore
from unbroken.stores.sqlite import SqliteStore

IDS = st.sampled_from(["a", "b", "c"])
OWNERS = st.sampled_from(["ann", "bob"])
KEYS = st.sampled_from(["", "k", "l"])
PRODUCERS = st.sampled_from(["p", "q"])
RECORDS = st.lists(st.binary(max_size=6), max_size=4)
ENDS = st.none() | st.builds(End, st.sampled_from(["complete", "failed"]), st.binary(max_size=3))


@dataclass
class Model:
    """One stream, in the plainest way."""

    number: int
    owner: str
    key: str
    changed: float
    records: list = field(default_factory=list)
    end: End | None = None
    cancelled: bool = False
    producer: str = ""
    fence: int = 0
    expires: float = 0.0


class Machine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.place = Path(tempfile.mkdtemp())
        self.runner = asyncio.Runner()
        self.now = 1000.0
        self.models = {}
        self.leases = []
        self.numbers = itertools.count()
        self.store = self.open(lambda: self.now)
        self.do(self.store.__aenter__())

    def do(self, call):
        return self.runner.run(asyncio.wait_for(call, 10))

    def refused(self, call):
        """The error that a call raised, by its name."""
        try:
            return self.do(call)
        except (OffsetConflict, StreamClosed) as error:
            return type(error).__name__

    def teardown(self):
        self.do(self.store.__aexit__())
        self.runner.close()
        shutil.rmtree(self.place)

    def chosen(self, data):
        """A stream that is there."""
        id = data.draw(st.sampled_from(sorted(self.models)))
        return id, self.models[id]

    def leased(self, data):
        """A lease that was given out, and its stream."""
        lease = data.draw(st.sampled_from(self.leases))
        return lease, self.models[lease.stream]

    @rule(id=IDS, owner=OWNERS, key=KEYS, records=RECORDS, producer=st.just("") | PRODUCERS)
    def create(self, id, owner, key, records, producer):
        same = [i for i, m in self.models.items() if key and (m.owner, m.key) == (owner, key)]
        known = same[0] if same else id
        if known in self.models and self.models[known].owner != owner:
            return
        created = self.do(self.store.create(NewStream(id, owner, {}, key), records, producer, 10))

        assert (created.stream.id, created.fresh) == (known, known not in self.models)
        if created.fresh:
            model = Model(next(self.numbers), owner, key, self.now, list(records))
            self.models[id] = model
            if producer:
                self.granted(model, created.lease, producer, 10)

    def granted(self, model, lease, producer, seconds):
        model.fence, model.producer, model.expires = lease.fence, producer, self.now + seconds
        self.leases.append(lease)
        assert (lease.producer, lease.expires) == (producer, model.expires)
        assert (lease.tail, lease.cancelled) == (len(model.records), model.cancelled)

    @precondition(lambda self: self.models)
    @rule(
        data=st.data(),
        records=RECORDS,
        end=ENDS,
        off=st.sampled_from([0, 0, 0, -1, 1]),
        old=st.booleans(),
    )
    def append(self, data, records, end, off, old):
        id, model = self.chosen(data)
        at, fence = len(model.records) + off, model.fence - old
        again = end is not None and model.end == end and not records
        result = self.refused(self.store.append(id, records, at, fence, end))

        if model.end is not None and not again:
            assert result == "StreamClosed"
        elif not again and (off or old):
            assert result == "OffsetConflict"
        else:
            model.records += records
            if end is not None and model.end is None:
                model.end, model.changed = end, self.now
            assert not isinstance(result, str), result
            assert (result.tail, result.cancelled) == (len(model.records), model.cancelled)

    @precondition(lambda self: self.models)
    @rule(data=st.data(), limit=st.integers(1, 5))
    def read(self, data, limit):
        id, model = self.chosen(data)
        after = data.draw(st.integers(0, len(model.records)))
        page = self.do(self.store.read(id, after, limit))

        assert [record.data for record in page.records] == model.records[after : after + limit]
        assert page.next == after + len(page.records)
        assert page.end == (model.end if page.next == len(model.records) else None)

    @precondition(lambda self: self.models)
    @rule(data=st.data())
    def wait(self, data):
        id, model = self.chosen(data)
        after = data.draw(st.integers(0, len(model.records)))

        more = after < len(model.records) or model.end is not None
        assert self.do(self.store.wait(id, after, 0.001)) == more

    @precondition(lambda self: self.models)
    @rule(data=st.data(), producer=PRODUCERS)
    def acquire(self, data, producer):
        id, model = self.chosen(data)
        lease = self.refused(self.store.acquire(id, producer, 10))

        if model.end is not None:
            assert lease == "StreamClosed"
        elif model.producer != producer and model.expires > self.now:
            assert lease is None
        else:
            assert lease.fence > model.fence
            self.granted(model, lease, producer, 10)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), seconds=st.integers(1, 20))
    def renew(self, data, seconds):
        lease, model = self.leased(data)
        renewed = self.refused(self.store.renew(lease, seconds))

        if model.end is not None:
            assert renewed == "StreamClosed"
        elif lease.fence != model.fence:
            assert renewed == "OffsetConflict"
        else:
            model.expires = self.now + seconds
            assert isinstance(renewed, Lease)
            assert (renewed.expires, renewed.tail) == (model.expires, len(model.records))

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def release(self, data):
        lease, model = self.leased(data)
        self.do(self.store.release(lease))
        if model.end is None and lease.fence == model.fence:
            model.fence = self.do(self.store.info(lease.stream)).fence
            model.producer, model.expires = "", 0.0

            assert model.fence > lease.fence

    @precondition(lambda self: self.models)
    @rule(data=st.data())
    def cancel(self, data):
        id, model = self.chosen(data)
        model.cancelled |= model.end is None

        assert self.do(self.store.cancel(id)) == (model.end is None)
        assert self.do(self.store.cancelled(id, 0.001)) == model.cancelled

    @precondition(lambda self: self.models)
    @rule(data=st.data())
    def delete(self, data):
        id, _ = self.chosen(data)
        self.forget([id])
        self.do(self.store.delete(id))

    def forget(self, ids):
        for id in ids:
            del self.models[id]
        self.leases = [lease for lease in self.leases if lease.stream not in ids]

    @rule(age=st.integers(0, 30))
    def prune(self, age):
        since = {
            id: model.changed if model.end else max(model.changed, model.expires)
            for id, model in self.models.items()
        }
        old = [id for id, over in since.items() if over <= self.now - age]
        self.forget(old)

        assert self.do(self.store.prune(age=age)) == len(old)

    @rule(seconds=st.integers(1, 15))
    def time_goes_by(self, seconds):
        self.now += seconds

    @invariant()
    def the_lists_are_right(self):
        found = self.do(self.store.find("ann", Search())).streams
        lost = self.do(self.store.orphans())

        mine = [id for id, model in self.models.items() if model.owner == "ann"]
        open_ = {id for id, m in self.models.items() if m.end is None and m.expires <= self.now}
        assert [i.id for i in found] == sorted(mine, key=lambda name: -self.models[name].number)
        assert {info.id for info in lost} == open_
        assert all(info.size == sum(map(len, self.models[info.id].records)) for info in found)


class Memory(Machine):
    def open(self, clock):
        return MemoryStore(clock=clock)


class Sqlite(Machine):
    def open(self, clock):
        return SqliteStore(str(self.place / "s.db"), "normal", 0, clock=clock)


class Redis(Machine):
    def open(self, clock):
        return fresh(clock)


SETTINGS = settings(
    max_examples=80,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestMemory, TestSqlite, TestRedis = Memory.TestCase, Sqlite.TestCase, Redis.TestCase
TestMemory.settings = TestSqlite.settings = TestRedis.settings = SETTINGS


def test_the_model_notices_a_store_that_forgets():
    class Forgetful(MemoryStore):
        async def append(self, stream, records, at, fence=0, end=None):
            return await super().append(stream, records[:1], at, fence, end)

    class Broken(Memory):
        def open(self, clock):
            return Forgetful(clock=clock)

    Broken.TestCase.settings = settings(
        SETTINGS, max_examples=200, database=None, phases=[Phase.generate]
    )
    with pytest.raises(AssertionError):
        Broken.TestCase().runTest()
