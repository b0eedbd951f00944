"""What is the Redis store's own: outages, losses, clusters, replicas, TLS, and what it costs."""

import asyncio
import contextlib
import itertools
import os
import shutil
import ssl
import subprocess
import time

import pytest
from redis_server import RedisServer, ask, cut_off, fresh, listeners, program, sharded, shared_url

from unbroken.errors import (
    ConfigurationError,
    OffsetConflict,
    OffsetUnknown,
    StoreError,
    StreamMissing,
)
from unbroken.stores import registry, testing
from unbroken.stores.base import Ack, End, NewStream, Page, Record, Search
from unbroken.stores.counters import Charge
from unbroken.stores.redis.nodes import Settings, settings_of, shards_of
from unbroken.stores.redis.replay_buffer import KEPT_BYTES, ReplayBuffer
from unbroken.stores.redis.watch import Head, Message, Watch, message
from unbroken.stores.tail import IDLE_ENTRIES, RECENT_BYTES

ALWAYS = ("--appendonly", "yes", "--appendfsync", "always")
DONE = End("complete")


@pytest.fixture
def server(tmp_path):
    with RedisServer(tmp_path, *ALWAYS) as running:
        yield running


async def whole(store, stream):
    records, page = [], await store.read(stream)
    while page.records:
        records += page.records
        page = await store.read(stream, page.next)
    return [record.data for record in records]


async def followed(store, stream):
    """What a follower sees, from the beginning to the end."""
    found, page = [], await store.read(stream)
    while True:
        found += page.records
        if page.closed:
            return [record.data for record in found]
        await store.wait(stream, page.next, 30)
        page = await store.read(stream, page.next)


async def produced(store, lease, count, pause=0.005):
    """Numbers, each when the one before is stored."""
    at = lease.tail
    for number in range(count):
        at = (await store.append(lease.stream, [b"%d" % number], at, lease.fence)).tail
        await asyncio.sleep(pause)
    await store.close(lease.stream, DONE, at, lease.fence)


NUMBERS = [b"%d" % number for number in range(60)]


# Outages


@pytest.mark.parametrize("away", [0.0, 0.7])
def test_a_killed_redis_comes_back_unnoticed(server, away):
    async def story():
        async with fresh(url=server.url) as here, fresh(url=server.url, prefix="x") as one:
            async with fresh(url=server.url, prefix="x") as other:
                lease = (await one.create(NewStream("s"), (), "p")).lease
                reading = asyncio.gather(*(followed(store, "s") for store in (one, other, other)))
                writing = asyncio.ensure_future(produced(one, lease, 60))
                for _ in range(3):
                    await asyncio.sleep(0.06)
                    await asyncio.to_thread(server.kill)
                    await asyncio.sleep(away)
                    await asyncio.to_thread(server.start)
                await writing
                assert await asyncio.wait_for(reading, 30) == [NUMBERS] * 3
                assert (await here.find(None)).streams == []

    asyncio.run(story())


def test_a_redis_that_stays_away_is_told_to_everybody(server):
    async def story():
        async with fresh(url=server.url, patience=1) as store:
            lease = (await store.create(NewStream("s"), (), "p")).lease
            waiting = asyncio.ensure_future(store.wait("s", 0, 30))
            await asyncio.sleep(0.05)
            await asyncio.to_thread(server.kill)
            for call in (store.append("s", [b"a"], 0, lease.fence), store.read("s"), waiting):
                with pytest.raises(StoreError, match="away for 1 s"):
                    await asyncio.wait_for(call, 20)

    asyncio.run(story())


def test_a_store_that_can_not_be_opened_says_so():
    async def story():
        with pytest.raises(StoreError, match="away"):
            async with fresh(url="redis://127.0.0.1:1", patience=0.2):
                pass

    asyncio.run(story())


class Road:
    """A road to Redis that can break behind the next command: it gets there, no answer comes."""

    def __init__(self, port):
        self.port, self.broken = port, 0
        self._break, self._carriers = False, set()

    async def __aenter__(self):
        self._front = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._front.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self._front.close()
        await asyncio.gather(*self._carriers)

    def break_behind_the_next(self):
        self._break = True

    async def _carry(self, reader, writer):
        self._carriers.add(asyncio.current_task())
        inner, outer = await asyncio.open_connection("127.0.0.1", self.port)
        back = asyncio.ensure_future(self._back(inner, writer))
        while data := await reader.read(65536):
            breaks, self._break = self._break, False
            if breaks:
                back.cancel()
            outer.write(data)
            if breaks:
                await asyncio.sleep(0.05)
                self.broken += 1
                break
        back.cancel()
        for end in (outer, writer):
            end.close()
            await end.wait_closed()

    async def _back(self, inner, writer):
        while data := await inner.read(65536):
            writer.write(data)


def test_a_call_whose_answer_was_lost_is_not_done_twice(server):
    calls = (
        lambda store: store.create(NewStream("s"), [b"a"], "p"),
        lambda store: store.append("s", [b"b", b"c"], 1, 1),
        lambda store: store.close("s", DONE, 3, 1, [b"d"], [Charge("k", {"n": 1})]),
        lambda store: store.charge([Charge("k", {"n": 1})]),
        lambda store: store.delete("t"),
    )

    async def story():
        results = []
        async with Road(server.port) as road, fresh(url=road.url) as store:
            await store.create(NewStream("t"))
            for call in calls:
                road.break_behind_the_next()
                results.append(await call(store))
            results[0] = (results[0].fresh, results[0].lease.tail)
            return results, await whole(store, "s"), await store.usage(["k"]), road.broken

    assert asyncio.run(story()) == (
        [(True, 1), Ack(3), Ack(4), None, None],
        [b"a", b"b", b"c", b"d"],
        [{"n": 2}],
        5,
    )


def test_after_an_outage_there_are_no_orphans_until_heartbeats_could_be_sent(server):
    async def story():
        async with fresh(url=server.url) as store:
            for name in ("s", "t"):
                await store.create(NewStream(name), (), "p")
            await store.heartbeat("q", 60)
            before = await store.adopt("q", 1)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            return len(before), await store.adopt("q", 1)

    assert asyncio.run(story()) == (1, [])


def test_a_key_is_claimed_for_a_while_until_its_stream_is_made_and_then_for_its_life():
    new = NewStream("s", "ann", key="k")

    async def story():
        async with fresh() as store:
            _, place = store._index._claim("ann", "k")
            await store._index.claim("ann", "k", "s")  # and its process dies
            before = await ask(store, "TTL", place)
            made = await store.create(NewStream("t", "ann", key="k"))
            after = await ask(store, "TTL", place)
            again = await store.create(NewStream("u", "ann", key="k"))
            return 0 < before <= 600, made.stream.id, after, again.stream.id, again.fresh

    async def late():
        async with fresh() as store:
            await store._index.claim("ann", "k", "s")
            await ask(store, "DEL", store._index._claim("ann", "k")[1])  # its time is over
            await store.create(NewStream("t", "ann", key="k"))
            return await store._create(new, "s", (), "", ())

    assert asyncio.run(story()) == (True, "s", -1, "s", False)
    assert asyncio.run(late()) == [b"gone"]


def test_a_key_whose_id_another_owner_has_stays_free():
    async def story():
        async with fresh() as store:
            await store.create(NewStream("s", "ann", key="k"))
            with pytest.raises(StoreError, match="taken"):
                await store.create(NewStream("s", "bob", key="k"))
            return (await store.create(NewStream("t", "bob", key="k"))).stream.id

    assert asyncio.run(story()) == "t"


# Charges of a cluster, whose counters may be in other shards


def test_charges_that_a_killed_process_left_are_settled_once():
    charges = [Charge(f"k{n}", {"n": 1}) for n in range(8)]  # some of them in other shards

    async def story():
        async with sharded(prefix="due") as one, sharded(prefix="due") as two:
            await one.create(NewStream("s"), (), "p")
            shard = one._client.nodes.shard("s")
            wrote = Message(b"a", 0, 0, 1, DONE)
            here, elsewhere = one._counters.split(shard, charges)
            await one._close("s", wrote, here, elsewhere)  # and its process dies
            left = await one.usage([charge.counter for charge in charges])
            due = (await ask(one, "HGETALL", shard.key("due")))[1]
            await one._counters._settle(shard, "s", due)  # and dies again before it is noted
            await ask(one, "HSET", shard.key("due"), "s", due)
            await two.adopt("q")
            await one.close("s", DONE, 0, 1, (), charges)
            counted = await two.usage([charge.counter for charge in charges])
            return len(elsewhere), left.count({}), counted, await ask(one, "HLEN", shard.key("due"))

    elsewhere, left, counted, due = asyncio.run(story())
    assert elsewhere == left > 0
    assert (counted, due) == ([{"n": 1}] * 8, 0)


def test_charges_of_a_day_that_is_over_change_no_newer_one():
    async def story():
        now = [1_000_000.0]
        async with sharded(lambda: now[0]) as store:
            await store._counters.charge([Charge("k", {"n": 1})], "a", ended="1000000")
            now[0] += 86_400
            await store._counters.charge([Charge("k", {"n": 2})], "b")
            await store._counters.charge([Charge("k", {"n": 4})], "c", ended="1000000")
            return await store.usage(["k"])

    assert asyncio.run(story()) == [{"n": 2}]


# Older and newer data


async def as_version_1(store, stream, owner, producer, expires, records):
    """Write a stream as the version before heartbeats did."""
    await store.create(NewStream(stream, owner, key=stream), records, producer)
    shard, (h, open_) = store._place(stream, "h", "open")
    await ask(store, "HDEL", h, "process")
    await ask(store, "HSET", h, "expires", expires, "fence", 1)
    await ask(store, "ZADD", open_, expires, stream)
    await ask(store, "DEL", shard.key("version"))


def test_data_of_the_first_version_is_converted():
    day = int(time.time()) // 86_400
    spent = [b'{"requests":2,"usd":0.25}', b'{"requests":1,"tokens":7}']

    async def story():
        async with fresh(prefix="v1") as old:
            ever = time.time() + 3e9
            await as_version_1(old, "key_a", "_keys", "keys", ever, [])
            await as_version_1(old, f"key_a_{day}", "_spent", "keys", ever, spent)
            await as_version_1(old, f"key_a_{day - 1}", "_spent", "keys", ever, spent)
            await as_version_1(old, "s", "ann", "dead", time.time() - 5, [b"q"])
        async with fresh(prefix="v1") as one, fresh(prefix="v1") as store:
            await store.heartbeat("p", 60)
            leases = await store.adopt("p")
            keys = (await store.find("_keys")).streams
            await store.close("key_a", End("revoked"), 0, keys[0].fence)
            sums = await store.usage(["key_a"])
            names = [info.id for info in (await one.find(None)).streams]
            for name in names:
                await store.delete(name)
            return [lease.stream for lease in leases], sums, names

    leases, sums, names = asyncio.run(story())
    assert leases == ["s"]
    assert sums == [{"requests": 3, "tokens": 7, "usd": 250_000}]
    assert names == ["s", "key_a"]


def test_data_of_a_newer_version_is_refused():
    async def story():
        async with fresh(prefix="v9") as store:
            key = store._client.nodes.shards[0].key("version")
            await ask(store, "SET", key, 9)
            with pytest.raises(StoreError, match="newer unbroken: it has version 9"):
                await fresh(prefix="v9").__aenter__()
            await ask(store, "DEL", key)

    asyncio.run(story())


# Losses


def test_a_producer_brings_back_what_redis_has_lost():
    async def story():
        async with fresh() as store:
            lease = (await store.create(NewStream("s"), [b"a"], "p")).lease
            await store.append("s", [b"b"], 1, lease.fence)
            await store.append("s", [b"c", b"d"], 2, lease.fence)
            await cut_off(store, "s", 3)
            assert await whole(store, "s") == [b"a"]
            assert await store.append("s", [b"e"], 4, lease.fence) == Ack(5)
            return await whole(store, "s")

    assert asyncio.run(story()) == [b"a", b"b", b"c", b"d", b"e"]


def test_a_producer_that_can_not_bring_it_back_is_told():
    async def story():
        async with fresh(prefix="lost") as one, fresh(prefix="lost") as other:
            await one.create(NewStream("s"), [b"a", b"b"], "p")
            await cut_off(one, "s", 1)
            with pytest.raises(OffsetConflict, match="not the tail 1"):
                await other.append("s", [b"c"], 2, 1)
            await one.delete("s")

    asyncio.run(story())


def test_followers_of_what_was_lost_wait_for_it_or_are_told(server):
    async def story():
        async with (
            fresh(url=server.url, prefix="x") as one,
            fresh(url=server.url, prefix="x") as two,
        ):
            lease = (await one.create(NewStream("s"), [b"a", b"b", b"c"], "p")).lease
            assert not await two.wait("s", 3, 0.01)
            await cut_off(one, "s", 2)
            two._followers._failed([one._place("s", "h")[1][0]])  # as after a broken connection
            waiting = asyncio.ensure_future(two.wait("s", 3, 30))
            await asyncio.sleep(0.1)
            assert not waiting.done()
            await one.append("s", [b"d"], 3, lease.fence)
            assert await asyncio.wait_for(waiting, 10)
            assert await whole(two, "s") == [b"a", b"b", b"c", b"d"]

            await cut_off(one, "s", 2)
            two._followers._failed([one._place("s", "h")[1][0]])
            with pytest.raises(OffsetUnknown, match="lost it from 2 on"):
                await asyncio.wait_for(two.wait("s", 4, 30), 20)

    asyncio.run(story())


def test_followers_are_told_when_another_producer_has_written_other_records():
    async def story():
        async with fresh(prefix="y") as one, fresh(prefix="y") as two:
            await one.create(NewStream("s"), [b"a", b"b", b"c"], "p")
            assert not await two.wait("s", 3, 0.01)
            waiting = asyncio.ensure_future(two.wait("s", 3, 30))
            await cut_off(one, "s", 2)
            lease = await taken(one, "q")
            await one.append("s", [b"B", b"C", b"D"], 1, lease.fence)
            with pytest.raises(OffsetUnknown, match="others now"):
                await asyncio.wait_for(waiting, 20)
            assert await followed_to(two, "s", 4) == [b"a", b"B", b"C", b"D"]
            await one.delete("s")

    asyncio.run(story())


async def taken(store, process):
    await store.heartbeat(process, 60)
    [lease] = await store.adopt(process)
    return lease


async def followed_to(store, stream, tail):
    assert await store.wait(stream, 0, 10)
    found = await whole(store, stream)
    assert len(found) == tail
    return found


def test_other_records_are_found_out_after_a_broken_connection_as_well():
    async def story():
        async with fresh(prefix="z") as one, fresh(prefix="z") as two:
            await one.create(NewStream("s"), [b"a", b"b", b"c"], "p")
            assert not await two.wait("s", 3, 0.01)
            for listener in two._followers._readers.values():
                listener.leave(one._place("s", "h")[1][0])
            await cut_off(one, "s", 2)
            lease = await taken(one, "q")
            await one.append("s", [b"B", b"C", b"D"], 1, lease.fence)
            two._followers._watches.fail(["s"])
            with pytest.raises(OffsetUnknown, match="others now"):
                await asyncio.wait_for(two.wait("s", 3, 5), 20)
            await one.delete("s")

    asyncio.run(story())


def test_a_redis_without_persistence_forgets_and_everybody_is_told(tmp_path):
    async def story(server):
        async with fresh(url=server.url) as store:
            lease = (await store.create(NewStream("s"), [b"a"], "p")).lease
            waiting = asyncio.ensure_future(store.wait("s", 1, 30))
            await asyncio.sleep(0.05)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            calls = (waiting, store.append("s", [b"b"], 1, lease.fence), store.read("s", 1))
            for call in calls:
                with pytest.raises(StreamMissing):
                    await asyncio.wait_for(call, 20)

    with RedisServer(tmp_path) as server:
        asyncio.run(story(server))


def test_records_that_were_dropped_out_of_the_middle_are_told():
    async def story():
        async with fresh() as store:
            await store.create(NewStream("s"), [b"a", b"b", b"c"])
            await ask(store, "XDEL", store._place("s", "s")[1][0], "2-0")
            with pytest.raises(StoreError, match="gone from Redis"):
                await store.read("s")

    asyncio.run(story())


def test_a_redis_that_drops_what_it_likes_is_refused(tmp_path):
    with RedisServer(tmp_path, "--maxmemory-policy", "allkeys-lru") as server:
        with pytest.raises(ConfigurationError, match="noeviction"):
            asyncio.run(fresh(url=server.url).__aenter__())


# Followers


def test_many_followers_share_one_connection_and_one_subscription():
    async def story():
        async with fresh() as store:
            for number in range(20):
                await store.create(NewStream(f"s{number}"), (), "p")
            before = await ask(store, "CLIENT", "LIST")
            names = [f"s{number % 20}" for number in range(200)]
            reading = asyncio.gather(*(followed(store, name) for name in names))
            while not all([await listeners(store, f"s{number}") for number in range(20)]):
                await asyncio.sleep(0.01)
            during = await ask(store, "CLIENT", "LIST")
            for number in range(20):
                await store.close(f"s{number}", DONE, 0, 1, [b"a"])
            assert await asyncio.wait_for(reading, 20) == [[b"a"]] * 200
            return len(during.splitlines()) - len(before.splitlines())

    assert asyncio.run(story()) == 1


def test_followers_that_keep_up_ask_redis_nothing():
    async def story():
        async with fresh(prefix="q") as one, fresh(prefix="q") as two:
            lease = (await one.create(NewStream("s"), (), "p")).lease
            await two.wait("s", 0, 0.01)
            before, at = two._client.nodes.all[0].reads.round_trips, 0
            for _ in range(20):
                waiting = asyncio.ensure_future(two.wait("s", at, 10))
                at = (await one.append("s", [b"x"], at, lease.fence)).tail
                assert await waiting
                assert (await two.read("s", at - 1)).records == [Record(at, b"x")]
            await one.delete("s")
            return two._client.nodes.all[0].reads.round_trips - before

    assert asyncio.run(story()) == 0


def test_many_appends_share_round_trips():
    async def story():
        async with fresh() as store:
            for number in range(100):
                await store.create(NewStream(f"s{number}"))
            before = store._client.nodes.all[0].writes.round_trips
            await asyncio.gather(*(store.append(f"s{n}", [b"a"], 0) for n in range(100)))
            return store._client.nodes.all[0].writes.round_trips - before

    assert asyncio.run(story()) <= 3


def test_who_asks_for_what_no_utf8_says_is_told_and_those_on_the_same_trip_are_served():
    async def story():
        async with fresh() as store:
            await store.create(NewStream("s"))
            calls = (
                store.find("\ud800"),
                store.close("s", End("\ud800"), 0),
                store.info("s"),
            )
            *wrong, info = await asyncio.gather(*calls, return_exceptions=True)
            return [type(error) for error in wrong], info.id

    assert asyncio.run(story()) == ([StoreError] * 2, "s")


def test_streams_without_followers_are_not_subscribed():
    async def story():
        async with fresh() as store:
            for number in range(IDLE_ENTRIES + 5):
                await store.create(NewStream(f"s{number}"))
                await store.wait(f"s{number}", 0, 0)
            (reader,) = store._followers._readers.values()
            followers = store._followers
            return len(reader), len(followers._watches), len(followers._streams)

    assert asyncio.run(story()) == (IDLE_ENTRIES,) * 3


def test_followed_streams_are_subscribed_however_many_they_are():
    names = [f"s{number}" for number in range(IDLE_ENTRIES + 76)]

    async def story():
        async with fresh() as store:
            await asyncio.gather(*(store.create(NewStream(name)) for name in names))
            waits = asyncio.gather(*(store.wait(name, 0, 120) for name in names))
            await asyncio.sleep(0.02)
            while store._followers._refreshing:
                await asyncio.sleep(0.02)
            await asyncio.gather(*(store.append(name, [b"a"], 0) for name in names))
            return await asyncio.wait_for(waits, 20)

    assert all(asyncio.run(story()))


def test_long_records_are_announced_and_read_from_redis():
    async def story():
        async with fresh(prefix="long") as one, fresh(prefix="long") as two:
            await one.create(NewStream("s"))
            reading = asyncio.ensure_future(followed(two, "s"))
            await asyncio.sleep(0.05)
            await one.append("s", [b"x" * 100_000, b"y"], 0)
            await one.close("s", DONE, 2, 0, [b"z"])
            found = await asyncio.wait_for(reading, 20)
            await one.delete("s")
            return [len(data) for data in found]

    assert asyncio.run(story()) == [100_000, 1, 1]


def test_who_waits_when_the_store_is_closed_is_woken():
    async def story():
        async with fresh() as store:
            await store.create(NewStream("s"))
            waiting = asyncio.ensure_future(store.wait("s", 0, 30))
            await asyncio.sleep(0.05)
        with pytest.raises(StoreError, match="closed"):
            await asyncio.wait_for(waiting, 10)
        with pytest.raises(StoreError, match="closed"):
            await store.info("s")

    asyncio.run(story())


# Messages and watches


def test_a_message_is_read_as_it_was_written():
    assert message(b"a 3 5 7 -1 0 2 0\n\0x") == Message(b"a", 3, 5, 7, None, (b"\0x", b""))
    assert message(b"a 3 3 7 4 2\ndoneok") == Message(b"a", 3, 3, 7, End("done", b"ok"))
    assert message(b"g\n").kind == b"g"


def test_recent_records_are_bounded():
    watch = Watch()
    watch.live = True
    for at in range(200):
        watch.hear(Message(b"a", at, at + 1, 1, None, (b"x" * 1000,)))

    assert watch.page(0, 10) is None
    assert watch.page(199, 10) == Page([Record(200, b"x" * 1000)], 200)
    assert sum(len(record.data) for record in watch.recent._records) <= RECENT_BYTES


def test_a_head_that_was_asked_for_before_the_last_message_takes_nothing_back():
    watch = Watch()
    asked = watch.position
    watch.hear(Message(b"a", 0, 2, 1, None, (b"a", b"b")))
    watch.catch_up(Head(1, None, seen=None, last=1), asked)

    assert (watch.tail, watch.lost) == (2, "")


def test_old_news_of_a_producer_before_is_no_loss_and_new_records_at_old_offsets_are():
    watch = Watch()
    watch.catch_up(Head(7, None, seen=None, last=2), watch.position)
    watch.hear(Message(b"a", 5, 6, 1, None, (b"old",)))
    assert (watch.tail, watch.lost) == (7, "")

    watch.hear(Message(b"a", 6, 7, 3, None, (b"new",)))
    assert "behind 6" in watch.lost


def test_what_was_sent_is_bounded_and_belongs_to_its_fence():
    sent, data = ReplayBuffer(), b"x" * 1000
    for at in range(100):
        sent.record("s", 1, at, [data])

    assert sent.slice("s", 1, 98, 100) == [data, data]
    assert sent.slice("s", 2, 98, 100) is None
    assert sent.slice("s", 1, 98, 99) is None
    assert sent.slice("s", 1, 0, 100) is None
    assert sent._tails["s"].size <= KEPT_BYTES


# Ways to Redis


def test_the_url_says_it_all():
    found = settings_of("valkeys+cluster://ann:p%20w@h:7/0?shards=4&replicas=1&ssl_ca_certs=ca")

    assert found == Settings(
        url="rediss://ann:p%20w@h:7/0?ssl_ca_certs=ca", cluster=True, shards=4, replicas=1
    )


@pytest.mark.parametrize(
    "url",
    [
        "redis+file://h",
        "redis://h?shards=0",
        "redis://h?replicas=x",
        "redis://h?nonsense=1",
        "redis://h?prefix={}",
        "redis://h:port",
    ],
)
def test_a_url_that_can_not_be_read_says_what_to_write(url):
    with pytest.raises(ConfigurationError, match="Write redis://"):
        registry.open_store(url)


def test_every_name_opens_it():
    for scheme in ("redis", "rediss", "valkey", "valkeys", "redis+cluster", "rediss+cluster"):
        assert type(registry.open_store(f"{scheme}://localhost")).__name__ == "RedisStore"


def test_the_tags_of_shards_are_spread_evenly_over_the_slots():
    shards = shards_of(Settings(url=""), 16)

    assert [shard.slot * 16 // 16384 for shard in shards] == [*range(16)]
    assert shards[3].key("h", "a}{b").count("{") == 2
    assert len({shard.tag for shard in shards}) == 16


def test_a_password_is_asked_for(tmp_path):
    async def story(server):
        async with fresh(url=server.url) as store:
            await store.create(NewStream("s"), [b"a"])
            assert await whole(store, "s") == [b"a"]
            assert not await store.wait("s", 1, 0.01)
        with pytest.raises(StoreError, match="password"):
            await fresh(url=server.url.replace("secret", "wrong")).__aenter__()
        with pytest.raises(StoreError, match="password"):
            await fresh(url=server.url.replace(":secret@", "")).__aenter__()

    with RedisServer(tmp_path, password="secret") as server:
        asyncio.run(story(server))


@contextlib.asynccontextmanager
async def tls_in_front(port, folder):
    """A TLS terminator: not every redis-server is built with TLS."""
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    subprocess.run(
        ["openssl", *command.split(), "-addext", "subjectAltName=DNS:localhost"]
        + ["-keyout", key, "-out", cert],
        check=True,
        capture_output=True,
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)

    async def pump(reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader, writer):
        inner = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, inner[1]), pump(inner[0], writer))

    front = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    yield front.sockets[0].getsockname()[1], cert
    front.close()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl")
def test_tls_is_checked(tmp_path, server):
    async def story():
        async with tls_in_front(server.port, tmp_path) as (port, cert):
            url = f"rediss://localhost:{port}"
            async with fresh(url=url, ssl_ca_certs=cert) as store:
                await store.create(NewStream("s"), [b"a"])
                waiting = asyncio.ensure_future(store.wait("s", 1, 20))
                await store.append("s", [b"b"], 1)
                assert await waiting
                assert await whole(store, "s") == [b"a", b"b"]
            with pytest.raises(StoreError, match="certificate"):
                await fresh(url=url, patience=0.2).__aenter__()

    asyncio.run(story())


# Replicas and clusters


def test_appends_wait_for_replicas_if_they_shall(tmp_path, server):
    async def story():
        async with fresh(url=server.url, replicas=1, patience=1) as store:
            await store.create(NewStream("s"))
            return await store.append("s", [b"a"], 0)

    with pytest.raises(StoreError, match="0 of 1 replicas"):
        asyncio.run(story())
    place = tmp_path / "replica"
    place.mkdir()
    with RedisServer(place, "--replicaof", "127.0.0.1", str(server.port)):
        assert asyncio.run(story()) == Ack(1)


def test_a_refused_wait_for_replicas_is_told_at_once(server):
    async def story():
        await say(server, "ACL", "SETUSER", "ann", "on", ">pw", "~*", "&*", "+@all", "-wait")
        url = server.url.replace("//", "//ann:pw@")
        async with fresh(url=url, replicas=1) as store:
            await store.create(NewStream("s"))

    with pytest.raises(StoreError, match="refuses: .*wait"):
        asyncio.run(story())


def test_a_server_that_is_made_a_replica_is_away(server):
    async def story():
        async with fresh(url=server.url, prefix="r"):
            pass  # its version is written, which waits for replicas as well
        async with fresh(url=server.url, prefix="r", replicas=1, patience=1) as store:
            await say(server, "REPLICAOF", "127.0.0.1", 1)
            await store.create(NewStream("s"))

    with pytest.raises(StoreError, match="away for 1 s: .*WAIT"):
        asyncio.run(story())


@pytest.fixture
def cluster(tmp_path):
    """Three masters, each with a third of the slots."""
    with contextlib.ExitStack() as stack:
        servers = []
        for number in range(3):
            folder = tmp_path / str(number)
            folder.mkdir()
            options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", *ALWAYS)
            servers.append(stack.enter_context(RedisServer(folder, *options)))
        asyncio.run(joined(servers))
        yield servers


async def say(server, *command):
    store = fresh(url=server.url)
    lane = store._client.nodes.all[0].reads
    try:
        return await lane.do(*command)
    finally:
        await lane.close()


async def joined(servers):
    for number, server in enumerate(servers):
        first, last = 16384 * number // 3, 16384 * (number + 1) // 3
        await say(server, "CLUSTER", "ADDSLOTS", *range(first, last))
        await say(server, "CLUSTER", "MEET", "127.0.0.1", servers[0].port)
    for server in servers:
        while b"cluster_state:ok" not in await say(server, "CLUSTER", "INFO"):
            await asyncio.sleep(0.05)
        while len(await say(server, "CLUSTER", "SLOTS")) < 3:
            await asyncio.sleep(0.05)


def on(cluster, clock=None, **options):
    return fresh(clock, url=cluster[0].url.replace("redis:", "redis+cluster:"), **options)


@pytest.mark.slow
def test_a_cluster_keeps_the_contract(cluster):
    asyncio.run(testing.run(lambda clock: on(cluster, clock=clock)))


@pytest.mark.slow
def test_streams_of_a_cluster_are_on_all_its_servers_and_followed_there(cluster):
    names = [f"s{number}" for number in range(30)]

    async def story():
        async with on(cluster, prefix="c") as one, on(cluster, prefix="c", shards=5) as two:
            for name in names:
                await one.create(NewStream(name, "ann", key=name), (), "p")
            reading = asyncio.gather(*(followed(two, name) for name in names))
            await asyncio.sleep(0.2)
            for name in names:
                await one.close(name, DONE, 0, 1, [name.encode()])
            assert await asyncio.wait_for(reading, 20) == [[name.encode()] for name in names]
            assert len(two._client.nodes.shards) == 16
            found = (await two.find("ann", Search(limit=100))).streams
            assert [info.id for info in found] == names[::-1]
            return len(two._followers._readers)

    assert asyncio.run(story()) == 3
    sizes = [asyncio.run(say(server, "DBSIZE")) for server in cluster]
    assert min(sizes) > 10


@pytest.mark.slow
def test_a_server_of_a_cluster_that_is_killed_comes_back(cluster):
    async def story():
        async with on(cluster, prefix="c") as one, on(cluster, prefix="c") as two:
            names = [f"s{number}" for number in range(12)]
            leases = [(await one.create(NewStream(n), (), "p")).lease for n in names]
            reading = asyncio.gather(*(followed(two, name) for name in names))
            writing = asyncio.gather(*(produced(one, lease, 60) for lease in leases))
            await asyncio.sleep(0.1)
            await asyncio.to_thread(cluster[1].kill)
            await asyncio.sleep(0.3)
            await asyncio.to_thread(cluster[1].start)
            await asyncio.wait_for(writing, 40)
            assert await asyncio.wait_for(reading, 40) == [NUMBERS] * 12

    asyncio.run(story())


@pytest.mark.slow
def test_a_replica_that_is_promoted_goes_on(tmp_path, cluster):
    """An unplanned fail-over: the master is killed for good."""

    async def story(replica):
        master = (await say(cluster[1], "CLUSTER", "MYID")).decode()
        await say(replica, "CLUSTER", "MEET", "127.0.0.1", cluster[0].port)
        for _ in itertools.count():
            with contextlib.suppress(StoreError):
                await say(replica, "CLUSTER", "REPLICATE", master)
                break
            await asyncio.sleep(0.1)
        while b"master_link_status:up" not in await say(replica, "INFO", "replication"):
            await asyncio.sleep(0.05)
        while not any(len(row) > 3 for row in await say(cluster[0], "CLUSTER", "SLOTS")):
            await asyncio.sleep(0.05)
        async with on(cluster, prefix="c") as one, on(cluster, prefix="c") as two:
            names = [f"s{number}" for number in range(12)]
            leases = [(await one.create(NewStream(n), (), "p")).lease for n in names]
            reading = asyncio.gather(*(followed(two, name) for name in names))
            writing = asyncio.gather(*(produced(one, lease, 60) for lease in leases))
            await asyncio.sleep(0.1)
            await asyncio.to_thread(cluster[1].kill)
            await asyncio.wait_for(writing, 60)
            assert await asyncio.wait_for(reading, 60) == [NUMBERS] * 12

    place = tmp_path / "replica"
    place.mkdir()
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", *ALWAYS)
    with RedisServer(place, *options) as replica:
        asyncio.run(story(replica))


def test_the_tests_know_a_redis():
    assert os.access(program(), os.X_OK)
    assert shared_url().startswith("redis")
