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
from unbroken.stores.base import End, NewStream, Search
from unbroken.stores.counters import Charge, QuotaReached
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
    released: float = 0.0
    takeovers: int = 0


class Machine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.place = Path(tempfile.mkdtemp())
        self.runner = asyncio.Runner()
        self.now = 1000.0
        self.models = {}
        self.processes = {}
        self.used = 0
        self.numbers = itertools.count()
        self.store = self.open(lambda: self.now)
        self.do(self.store.__aenter__())

    def do(self, call):
        return self.runner.run(asyncio.wait_for(call, 10))

    def refused(self, call):
        """The error that a call raised, by its name."""
        try:
            return self.do(call)
        except (OffsetConflict, StreamClosed, QuotaReached) as error:
            return type(error).__name__

    def teardown(self):
        self.do(self.store.__aexit__())
        self.runner.close()
        shutil.rmtree(self.place)

    def chosen(self, data):
        """A stream that is there."""
        id = data.draw(st.sampled_from(sorted(self.models)))
        return id, self.models[id]

    def alive(self, process):
        return self.processes.get(process, 0) > self.now

    def since(self, model):
        """When a stream lost its producer."""
        return (
            self.processes.get(model.producer, model.changed) if model.producer else model.released
        )

    def orphans(self):
        models = self.models.items()
        return [i for i, m in models if m.end is None and m.fence and not self.alive(m.producer)]

    @rule(
        id=IDS,
        owner=OWNERS,
        key=KEYS,
        records=RECORDS,
        producer=st.just("") | PRODUCERS,
        limit=st.none() | st.integers(0, 9),
    )
    def create(self, id, owner, key, records, producer, limit):
        same = [i for i, m in self.models.items() if key and (m.owner, m.key) == (owner, key)]
        known = same[0] if same else id
        if known in self.models and self.models[known].owner != owner:
            return
        charges = [] if limit is None else [Charge("k", {"n": 1}, limits={"n": limit})]
        new = NewStream(id, owner, {}, key)
        created = self.refused(self.store.create(new, records, producer, charges))

        if known not in self.models and limit is not None and self.used >= limit:
            assert created == "QuotaReached"
            return
        assert (created.stream.id, created.fresh) == (known, known not in self.models)
        if created.fresh:
            self.used += limit is not None
            model = Model(next(self.numbers), owner, key, self.now, list(records))
            model.producer, model.fence = producer, int(bool(producer))
            self.models[id] = model
            assert (created.lease is not None) == bool(producer)

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
        charges = [Charge("k", {"n": 1})]
        if end is None:
            result = self.refused(self.store.append(id, records, at, fence))
        else:
            result = self.refused(self.store.close(id, end, at, fence, records, charges))

        if model.end is not None and not again:
            assert result == "StreamClosed"
        elif not again and (off or old):
            assert result == "OffsetConflict"
        else:
            model.records += records
            model.takeovers *= not records
            if end is not None and model.end is None:
                model.end, model.changed = end, self.now
                self.used += 1
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

    @rule(process=PRODUCERS, seconds=st.integers(1, 20))
    def heartbeat(self, process, seconds):
        mine = {i: m for i, m in self.models.items() if m.end is None and m.producer == process}
        lapsed = not self.alive(process) and (process in self.processes or bool(mine))
        self.processes[process] = self.now + seconds
        beat = self.do(self.store.heartbeat(process, seconds))

        assert beat.lapsed == lapsed
        assert sorted(beat.cancelled) == sorted(i for i, m in mine.items() if m.cancelled)
        assert beat.held == ({i: m.fence for i, m in mine.items()} if lapsed else {})

    @rule(process=PRODUCERS, limit=st.integers(1, 3))
    def adopt(self, process, limit):
        lost = self.orphans() if self.alive(process) else []
        leases = self.do(self.store.adopt(process, limit))

        assert len(leases) == min(limit, len(lost))
        waiting = sorted(self.since(self.models[id]) for id in lost)[:limit]
        if all(self.models[id].producer in {"", *self.processes} for id in lost):
            assert [self.since(self.models[one.stream]) for one in leases] == waiting
        for lease in leases:
            model = self.models[lease.stream]
            assert lease.stream in lost
            assert lease.fence > model.fence
            assert (lease.tail, lease.cancelled) == (len(model.records), model.cancelled)
            model.takeovers += bool(model.producer)
            assert lease.takeovers == model.takeovers
            model.fence, model.producer = lease.fence, process

    @rule(process=PRODUCERS)
    def release(self, process):
        mine = {i: m for i, m in self.models.items() if m.end is None and m.producer == process}
        self.processes.pop(process, None)

        assert self.do(self.store.release_all(process)) == len(mine)
        for id, model in mine.items():
            fence, model.fence = model.fence, self.do(self.store.info(id)).fence
            model.producer, model.released = "", self.now
            assert model.fence > fence

    @precondition(lambda self: self.models)
    @rule(data=st.data())
    def cancel(self, data):
        id, model = self.chosen(data)
        model.cancelled |= model.end is None

        assert self.do(self.store.cancel(id)) == (model.end is None)
        assert self.do(self.store.info(id)).cancelled == model.cancelled

    @precondition(lambda self: self.models)
    @rule(data=st.data())
    def delete(self, data):
        id, _ = self.chosen(data)
        self.forget([id])
        self.do(self.store.delete(id))

    def forget(self, ids):
        for id in ids:
            del self.models[id]

    @rule(age=st.integers(0, 30))
    def prune(self, age):
        lost, before = self.orphans(), self.now - age
        old = [id for id, m in self.models.items() if m.end is not None and m.changed <= before]
        old += [
            id for id in lost if max(self.since(self.models[id]), self.models[id].changed) <= before
        ]
        self.forget(old)
        deleted, more = 0, True
        while more:
            step = self.do(self.store.prune(age=age))
            deleted, more = deleted + step.deleted, step.more

        assert deleted == len(old)

    @rule(seconds=st.integers(1, 15))
    def time_goes_by(self, seconds):
        self.now += seconds

    @invariant()
    def the_lists_are_right(self):
        found = self.do(self.store.find("ann", Search())).streams
        used = self.do(self.store.usage(["k"]))
        mine = [id for id, model in self.models.items() if model.owner == "ann"]
        assert [i.id for i in found] == sorted(mine, key=lambda name: -self.models[name].number)
        assert used == ([{"n": self.used}] if self.used else [{}])
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
        async def append(self, stream, records, at, fence=0):
            return await super().append(stream, records[:1], at, fence)

    class Broken(Memory):
        def open(self, clock):
            return Forgetful(clock=clock)

    Broken.TestCase.settings = settings(
        SETTINGS, max_examples=200, database=None, phases=[Phase.generate]
    )
    with pytest.raises(AssertionError):
        Broken.TestCase().runTest()
