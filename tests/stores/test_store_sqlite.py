"""SQLite's own: the file, its version, its errors, recent records, and work in small steps."""

import asyncio
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.errors import OffsetUnknown, StoreError, StreamMissing
from unbroken.stores.base import End, NewStream, Record, Search
from unbroken.stores.counters import Charge
from unbroken.stores.sqlite import SqliteStore
from unbroken.stores.sqlite.file import APPLICATION
from unbroken.stores.sqlite.migrations import MIGRATIONS
from unbroken.stores.sqlite.rows import Head
from unbroken.stores.sqlite.watch import Watch, Watches
from unbroken.stores.tail import IDLE_ENTRIES, RECENT_BYTES


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "s.db")


def run(path, story, **settings):
    """Run a story with an open store."""

    async def opened():
        async with SqliteStore(path, **settings) as store:
            return await story(store)

    return asyncio.run(opened())


async def nothing(store):
    pass


def test_a_store_opened_again_knows_everything(path):
    async def before(store):
        await store.create(NewStream("s", "ann", {"title": "ü"}, "k"), [b"a", b"b"], "p")
        await store.close("s", End("complete", b"\0"), 2, 1, [b"c"])
        return await store.info("s"), await store.read("s")

    async def after(store):
        return await store.info("s"), await store.read("s")

    assert run(path, before) == run(path, after)


def test_a_file_of_the_first_version_is_brought_up_to_date(path):
    with sqlite3.connect(path) as database:
        for statement in MIGRATIONS[0].split(";"):
            database.execute(statement)
        database.execute(f"PRAGMA application_id = {APPLICATION}")
        database.execute("PRAGMA user_version = 1")
        database.execute(
            "INSERT INTO streams (id, owner, labels, created, changed) VALUES ('s', '', '{}', 1, 1)"
        )
    database.close()

    async def use(store):
        await store.announce_readers(["s"], 1e10)
        return await store.reader_leases(["s"])

    assert run(path, use)["s"] > 1e9


def test_a_file_of_the_second_version_is_brought_up_to_date(path):
    today = str(int(time.time()) // 86_400)
    script = (Path(__file__).parent / "data/version2.sql").read_text("utf-8")
    with sqlite3.connect(path) as database:
        database.executescript(script.replace("DAY", today))
    database.close()

    async def use(store):
        await store.heartbeat("p", 10)
        leases = await store.adopt("p")
        keys = (await store.find("_keys")).streams
        key = keys[0].id
        done = await store.read("done")
        await store.close(key, End("revoked"), 0, keys[0].fence)
        same = await store.create(NewStream("other", "ann", key="k"))
        sums = await store.usage([key])
        while (await store.prune(size=9)).more:
            pass
        left = [info.id for info in (await store.find(None, Search())).streams]
        return leases, [info.producer for info in keys], done.end, same, sums, left

    leases, producers, end, same, sums, left = run(path, use)

    assert [(lease.stream, lease.tail, lease.takeovers) for lease in leases] == [("open", 2, 1)]
    assert (producers, end) == (["", ""], End("complete", b"fin"))
    assert (same.fresh, same.stream.id) == (False, "open")
    assert sums == [{"requests": 3, "tokens": 31, "usd": 250_001}]
    assert left == ["unproduced", "open", "key_ever"]  # a closed one goes, of open ones none


def test_a_newer_file_is_left_alone(path):
    run(path, nothing)
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    database.close()

    with pytest.raises(
        StoreError,
        match=r"newer unbroken: it has version \d+, this one reads \d+. Upgrade unbroken",
    ):
        run(path, nothing)


def test_another_programs_database_is_left_alone(path):
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE theirs (a)")
    database.close()

    with pytest.raises(StoreError, match="another program's file"):
        run(path, nothing)
    with sqlite3.connect(path) as database:
        tables = database.execute("SELECT name FROM sqlite_master").fetchall()
        assert (tables, database.execute("PRAGMA journal_mode").fetchone()) == (
            [("theirs",)],
            ("delete",),
        )
    database.close()


def test_what_is_no_database_is_left_alone(tmp_path):
    place = tmp_path / "notes.txt"
    place.write_text("dear diary, " * 100)

    with pytest.raises(StoreError, match="not a database. Name another file"):
        run(str(place), nothing)
    assert place.read_text() == "dear diary, " * 100


def test_a_place_that_can_not_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreError, match="file/s.db"):
        run(str(tmp_path / "file" / "s.db"), nothing)


def test_many_may_open_a_new_file_at_once(path):
    async def story():
        async def one(number):
            async with SqliteStore(path) as store:
                return (await store.create(NewStream(f"s{number}"))).fresh

        return await asyncio.gather(*map(one, range(8)))

    assert asyncio.run(story()) == [True] * 8


def test_a_file_that_another_holds_for_too_long_is_an_error_and_then_works_again(path):
    async def story(store):
        await store.create(NewStream("s"))
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="database is locked. Another process holds the file"):
            await store.append("s", [b"a"], 0)
        other.execute("ROLLBACK")
        other.close()
        return await store.append("s", [b"a"], 0)

    assert run(path, story, busy=0.05).tail == 1


def test_only_the_append_that_can_not_be_stored_fails(path):
    async def story(store):
        for name in "abc":
            await store.create(NewStream(name))
        store._database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 10_000)
        calls = [
            store.append(name, [b"x" * n], 0) for name, n in zip("abc", (1, 20_000, 2), strict=True)
        ]
        results = await asyncio.gather(*calls, return_exceptions=True)
        tails = [(await store.info(name)).tail for name in "abc"]
        return [type(result).__name__ for result in results], tails

    assert run(path, story) == (["Ack", "StoreError", "Ack"], [1, 0, 1])


def test_a_full_disk_is_an_error_and_then_works_again(path):
    async def story(store):
        await store.create(NewStream("s"))
        pages = store._database.execute("PRAGMA page_count").fetchone()[0]
        store._database.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreError, match="full. The disk is full"):
            await store.append("s", [b"x" * 100_000], 0)
        store._database.execute("PRAGMA max_page_count = 1000000")
        return await store.append("s", [b"x" * 100_000], 0)

    assert run(path, story).tail == 1


@pytest.mark.parametrize("new", [NewStream("\ud800"), NewStream("s", labels={"title": "\ud800"})])
def test_text_that_can_not_be_stored_fails_alone(path, new):
    async def story(store):
        good, bad = store.create(NewStream("good")), store.create(new)
        results = await asyncio.gather(good, bad, return_exceptions=True)
        return [type(result).__name__ for result in results]

    assert run(path, story) == ["Created", "StoreError"]


def test_leaving_the_store_commits_what_was_asked_for_and_wakes_who_waits(path):
    async def story():
        async with SqliteStore(path) as store:
            await store.create(NewStream("s"))
            await store.create(NewStream("t"))
            wait = asyncio.ensure_future(store.wait("t", 0, 30))
            await asyncio.sleep(0.02)
            append = asyncio.ensure_future(store.append("s", [b"a"], 0))
            await asyncio.sleep(0)
        assert (await append).tail == 1
        (woken,) = await asyncio.gather(wait, return_exceptions=True)
        assert isinstance(woken, StoreError)
        with pytest.raises(StoreError, match="closed. Use it within"):
            await store.info("s")

    asyncio.run(story())


@pytest.mark.parametrize("call", ["info", "read", "cancel", "delete"])
def test_a_store_that_was_not_entered_says_so(path, call):
    with pytest.raises(StoreError, match="async with"):
        asyncio.run(getattr(SqliteStore(path), call)("s"))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_no_caller_waits_for_a_writer_that_is_gone(path):
    async def story(store):
        await store.create(NewStream("s"))
        with pytest.raises(StoreError, match="writer has ended"):
            await store._writer.do(lambda log: 1 / 0)
        with pytest.raises(StoreError, match="closed"):
            await store.append("s", [b"a"], 0)
        return (await store.info("s")).tail

    assert run(path, story) == 0


def test_a_caller_that_leaves_spoils_nothing(path):
    async def story(store):
        await store.create(NewStream("s"))
        appends = [asyncio.ensure_future(store.append("s", [b"a"], at)) for at in range(3)]
        await asyncio.sleep(0)
        appends[1].cancel()
        results = await asyncio.gather(*appends, return_exceptions=True)
        return [type(result).__name__ for result in results], (await store.info("s")).tail

    assert run(path, story) == (["Ack", "CancelledError", "Ack"], 3)


def test_what_another_writes_is_seen_even_by_those_who_followed_from_memory(path):
    async def story(here):
        async with SqliteStore(path) as there:
            await here.create(NewStream("s"))
            assert not await here.wait("s", 0, 0.001)
            for at in range(20):
                store = (here, there)[at % 2]
                await store.append("s", [b"%d" % at], at)
                assert await here.wait("s", at, 10)
                assert (await here.read("s", at)).records == [Record(at + 1, b"%d" % at)]
                assert await there.wait("s", at, 10)
                assert (await there.read("s", at)).records == [Record(at + 1, b"%d" % at)]

    run(path, story)


def test_old_news_wakes_no_waiter_for_good(path):
    async def story(store):
        await store.create(NewStream("s"))
        wait = asyncio.ensure_future(store.wait("s", 0, 30))
        await asyncio.sleep(0.02)
        for _ in range(3):
            store._watches.get("s").followers.notify_all()
            await asyncio.sleep(0.001)
        assert not wait.done()
        await store.append("s", [b"a"], 0)
        return await wait

    assert run(path, story)


def test_who_takes_over_reads_to_the_very_tail(path):
    async def story(here):
        async with SqliteStore(path) as there:
            await here.heartbeat("p", 100)
            await there.heartbeat("q", 100)
            await here.create(NewStream("s"), (), "p")
            for at in range(0, 30, 2):
                await here.wait("s", at, 0.001)
                await here.release_all("p")
                [lease] = await there.adopt("q")
                await there.append("s", [b"a", b"b"], at, lease.fence)
                await there.release_all("q")
                await there.heartbeat("q", 100)
                await here.heartbeat("p", 100)
                [lease] = await here.adopt("p")
                assert (lease.tail, (await here.read("s", at)).next) == (at + 2, at + 2)

    run(path, story)


@given(st.lists(st.integers(0, RECENT_BYTES // 3), min_size=1, max_size=40), st.data())
def test_recent_records_are_a_bounded_and_true_piece_of_the_stream(sizes, data):
    records, watch = [Record(at, b"x" * size) for at, size in enumerate(sizes, 1)], Watch()
    at = 0
    while at < len(records):
        count = data.draw(st.integers(1, 5))
        watch.recent.add(at, [record.data for record in records[at : at + count]])
        at = min(at + count, len(records))
        watch.learn(Head(1, at, 0, 0, cancelled=False, takeovers=0, end=None))

    assert sum(len(record.data) for record in watch.recent._records) <= RECENT_BYTES
    for after in range(at + 1):
        page = watch.page(after, 3, current=True)
        assert page is None or page.records == records[after : after + 3]


def test_unused_watches_are_dropped_and_the_used_ones_stay():
    watches = Watches()

    with watches.acquire("kept") as kept:
        for number in range(2 * IDLE_ENTRIES):
            with watches.acquire(f"s{number}"):
                pass

        assert watches.get("kept") is kept
        assert [n for n in range(2 * IDLE_ENTRIES) if watches.get(f"s{n}")] == [
            *range(IDLE_ENTRIES, 2 * IDLE_ENTRIES)
        ]


def test_offsets_lost_in_a_power_failure_are_unknown(path):
    async def story(store):
        await store.create(NewStream("s"), [b"a"])
        with pytest.raises(OffsetUnknown):
            await store.read("s", 2)
        with pytest.raises(StreamMissing):
            await store.read("t", 2)

    run(path, story)


def test_a_refused_charge_in_a_shared_transaction_changes_nothing(path):
    async def story(store):
        await store.charge([Charge("k", {"n": 1})])
        limited = [Charge("j", {"n": 1}), Charge("k", {"n": 1}, limits={"n": 1})]
        calls = [store.create(NewStream(f"s{n}"), [b"x"], charges=limited) for n in range(3)]
        calls.append(store.create(NewStream("t")))
        results = await asyncio.gather(*calls, return_exceptions=True)
        return [type(result).__name__ for result in results], await store.usage(["j", "k"])

    outcomes = ["QuotaReached"] * 3 + ["Created"]
    assert run(path, story) == (outcomes, [{}, {"n": 1}])


def test_a_long_stream_is_pruned_in_steps_and_its_number_is_not_used_again(path):
    async def story(store):
        await store.create(NewStream("long"))
        for at in range(1200):
            await store.append("long", [b"x"], at)
        await store.close("long", End("complete"), 1200)
        steps = [await store.prune(size=0)]
        await store.create(NewStream("next"), [b"a"])
        while steps[-1].more:
            steps.append(await store.prune(size=0))
        rows = store._database.execute("SELECT stream, last FROM records").fetchall()
        return [step.deleted for step in steps], len(rows), (await store.read("next")).records

    deleted, rows, records = run(path, story, window=0, synchronous="normal")

    assert (deleted[0], sum(deleted), len(deleted) > 3) == (1, 1, True)
    assert (rows, records) == (1, [Record(1, b"a")])


def test_a_search_does_not_hold_up_reads(path):
    async def story(store):
        await store.create(NewStream("s"))
        release = threading.Event()
        slow = [store._ask(lambda _: release.wait(10), store._searcher) for _ in range(6)]
        searches = asyncio.gather(*slow)
        await asyncio.sleep(0)
        info = await asyncio.wait_for(store.info("s"), 5)
        release.set()
        return info.id, await searches

    assert run(path, story) == ("s", [True] * 6)


def test_many_records_of_one_call_are_read_in_pieces(path):
    records = [b"%d" % number for number in range(1000)]

    async def story(store):
        await store.create(NewStream("s"), records)
        rows = store._database.execute("SELECT last, length(data) FROM records").fetchall()
        page = await store.read("s", 500)
        return [last for last, _ in rows], [record.data for record in page.records]

    assert run(path, story) == ([256, 512, 768, 1000], records[500:])
