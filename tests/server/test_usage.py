"""What keys have used: by many at once, in several processes, in every store."""

import asyncio
from contextlib import AsyncExitStack

import msgspec
import pytest
from redis_server import cut_off, fresh_url

from unbroken import AsyncClient
from unbroken.errors import QuotaExhausted, StoreError, UnbrokenError
from unbroken.events import Usage
from unbroken.messages import Image, Message, Request, Text, messages_from
from unbroken.metrics.prices import quote
from unbroken.server.estimate import cost_of, usage_of
from unbroken.server.auth import KeyLimits, Keys, NewKey, Principal
from unbroken.server.usage import DAY, SPENT, UsageLedger, UsageTotals
from unbroken.simulator.scenario import Fault, Scenario
from unbroken.simulator.transport import AsyncSimulatorTransport
from unbroken.stores import registry
from unbroken.stores.memory import MemoryStore

SMALL = Principal("key_small", "small", KeyLimits(requests=5))


def processes(kind, folder):
    """What two processes open: their ways to one store."""
    if kind == "memory":
        return [MemoryStore()] * 2
    url = fresh_url() if kind == "redis" else f"sqlite:///{folder}/answers.db"
    return [registry.open(url), registry.open(url)]


def living(stores, live):
    """`live` with the open stores."""

    async def main():
        async with AsyncExitStack() as stack:
            for store in dict.fromkeys(stores):
                await stack.enter_async_context(store)
            return await live(*stores)

    return asyncio.run(main())


every_store = pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])


@every_store
def test_a_limit_holds_for_all_who_ask_at_once_in_all_processes(kind, tmp_path):
    async def live(one, other):
        asked = [keys.admit(SMALL) for keys in [Keys(one), Keys(other)] * 30]
        told = await asyncio.gather(*asked, return_exceptions=True)
        return told, await Keys(one).spent(SMALL.owner)

    told, spent = living(processes(kind, tmp_path), live)

    assert told.count(None) == 5
    assert all(isinstance(error, QuotaExhausted) for error in told if error)
    assert spent.requests == 5


def test_who_is_known_to_be_past_a_limit_is_told_without_the_store():
    async def live(store, _):
        keys = Keys(store)
        keys.check(SMALL)
        for _ in range(5):
            keys.check(SMALL)
            await keys.admit(SMALL)
        with pytest.raises(QuotaExhausted, match="5 requests"):
            keys.check(SMALL)
        return await keys.spent(SMALL.owner)

    assert living(processes("memory", None), live) == UsageTotals(requests=5)


@every_store
def test_nothing_that_was_used_is_lost(kind, tmp_path):
    async def live(one, other):
        accounts = [UsageLedger(one), UsageLedger(other)]
        await asyncio.gather(
            *(accounts[turn % 2].charge("key_a", UsageTotals(tokens=turn)) for turn in range(200))
        )
        return [await book.spent("key_a") for book in (*accounts, UsageLedger(one))]

    assert living(processes(kind, tmp_path), live) == [UsageTotals(tokens=sum(range(200)))] * 3


def test_a_busy_key_costs_few_writes():
    async def live(store, _):
        accounts = UsageLedger(store)
        await asyncio.gather(
            *(accounts.charge("key_a", UsageTotals(requests=1)) for _ in range(1000))
        )
        return (await store.find(SPENT)).streams

    [stream] = living(processes("memory", None), live)

    assert stream.tail < 5


def test_who_leaves_while_it_is_written_takes_nothing_with_him():
    async def live(store, _):
        accounts = UsageLedger(store)
        asking = [
            asyncio.create_task(accounts.charge("a", UsageTotals(requests=1))) for _ in range(3)
        ]
        await asyncio.sleep(0)
        asking[0].cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        return await UsageLedger(store).spent("a")

    assert living(processes("memory", None), live) == UsageTotals(requests=3)


def test_a_new_day_begins_at_nothing_and_old_days_go(tmp_path):
    """Yesterday stays: somebody's clock may be late."""
    now = [DAY * 20_000.5]

    async def live(store, _):
        accounts, days = UsageLedger(store, clock=lambda: now[0]), []
        for _ in range(5):
            await accounts.charge("key_a", UsageTotals(requests=1))
            days.append((await accounts.spent("key_a")).requests)
            now[0] += DAY
        return days, sorted(stream.id for stream in (await store.find(SPENT)).streams)

    days, kept = living(processes("sqlite", tmp_path), live)

    assert days == [1] * 5
    assert kept == ["key_a_20003", "key_a_20004"]


def test_what_is_counted_is_never_taken_for_an_answer_or_pruned(tmp_path):
    async def live(store, _):
        accounts = UsageLedger(store)
        await accounts.charge("key_a", UsageTotals(requests=1))
        return await store.orphans(), await store.prune(age=0.0), await accounts.spent("key_a")

    orphans, gone, spent = living(processes("sqlite", tmp_path), live)

    assert (orphans, gone, spent.requests) == ([], 0, 1)


def test_a_day_that_somebody_deleted_begins_anew():
    async def live(store, _):
        accounts = UsageLedger(store)
        await accounts.charge("key_a", UsageTotals(requests=3))
        for stream in (await store.find(SPENT)).streams:
            await store.delete(stream.id)
        await UsageLedger(store).charge("key_a", UsageTotals(requests=1))
        await accounts.charge("key_a", UsageTotals(requests=1))
        return await accounts.spent("key_a")

    assert living(processes("memory", None), live) == UsageTotals(requests=2)


def test_a_redis_that_lost_the_last_records_counts_on():
    """As after a fail-over: two processes wrote in turn, so none can bring it back alone."""

    async def live(one, other):
        first, second = UsageLedger(one), UsageLedger(other)
        for accounts in (first, second, first):
            await accounts.charge("key_a", UsageTotals(requests=1))
        await cut_off(one, (await one.find(SPENT)).streams[0].id, 2)
        for accounts in (first, second):
            await accounts.charge("key_a", UsageTotals(tokens=1))
        return await first.spent("key_a")

    assert living(processes("redis", None), live) == UsageTotals(requests=1, tokens=2)


def test_a_database_of_an_older_version_still_counts(tmp_path):
    """It noted in the key's own stream; that is passed over."""

    async def live(store, _):
        key = await Keys(store).create(NewKey(name="old", limits=KeyLimits(requests=1)))
        caller = await Keys(store).principal(key)
        info = await store.info(caller.owner)
        record = b'{"day":20000,"requests":1,"tokens":0,"usd":0.0}'
        await store.append(caller.owner, [record], info.tail, info.fence)
        await Keys(store).admit(caller)
        with pytest.raises(QuotaExhausted, match="1 requests"):
            await Keys(store).admit(caller)

    living(processes("sqlite", tmp_path), live)


def test_a_store_that_is_full_refuses_the_request_and_keeps_the_note():
    async def live(store, _):
        keys = Keys(store)
        store.limit = 0
        noting = asyncio.create_task(keys.accounts.charge(SMALL.owner, UsageTotals(tokens=7)))
        with pytest.raises(StoreError, match="full"):
            await keys.admit(SMALL)
        store.limit = 1 << 20
        await noting
        return await keys.spent(SMALL.owner)

    assert living(processes("memory", None), live) == UsageTotals(tokens=7)


def test_closing_does_not_wait_for_a_store_that_is_away():
    async def live(store, _):
        accounts = UsageLedger(store)
        store.limit = 0
        noting = asyncio.create_task(accounts.charge("key_a", UsageTotals(tokens=7)))
        await asyncio.sleep(0)
        await accounts.close()
        return await asyncio.gather(noting, return_exceptions=True)

    [ended] = living(processes("memory", None), live)

    assert isinstance(ended, asyncio.CancelledError)


# Estimates

ASKED = Request(model="m", messages=messages_from("Tell me about cats. " * 20))
SLOW = Scenario(ttft=0.1, tps=50, tokens=100)


def answered(model, scenario=SLOW, stop=None):
    """The answer, or as far as it had come when `stop` characters were there."""

    async def main():
        client = AsyncClient(api_key="k", transport=AsyncSimulatorTransport({"*": scenario}))
        async with client, client.stream(model, ASKED) as stream:
            try:
                async for _ in stream:
                    if stop is not None and len(stream.response.text) >= stop:
                        await stream.abort()
            except UnbrokenError:
                assert stop is None
        return stream.response

    return asyncio.run(main())


def test_a_stopped_answer_is_priced_by_the_length_of_its_texts():
    response = answered("openai/gpt-4o", stop=100)
    usage = usage_of(ASKED, response)

    assert (response.end, response.usage) == ("cancelled", None)
    assert usage.source == "estimated"
    assert 100 <= usage.input_tokens < 120
    assert usage.output_tokens == -(-len(response.text.encode()) // 4) >= 25
    assert cost_of(response, usage) == quote("openai", "gpt-4o", usage) > 0


def test_what_was_reported_early_is_never_made_less():
    response = answered("anthropic/claude-sonnet-4-5", stop=100)
    usage = usage_of(ASKED, response)

    assert response.usage.source == "partial"
    assert usage.input_tokens >= response.usage.input_tokens > 0
    assert usage.output_tokens >= 25 > response.usage.output_tokens
    assert cost_of(response, usage) > response.cost


def test_one_token_that_was_reported_at_the_start_is_not_believed():
    stopped = answered("anthropic/claude-sonnet-4-5", stop=100)
    early = Usage(input_tokens=9000, output_tokens=1, source="partial")
    usage = usage_of(ASKED, msgspec.structs.replace(stopped, usage=early))

    assert (usage.input_tokens, usage.source) == (9000, "estimated")
    assert usage.output_tokens >= 25


def test_an_answer_that_broke_off_counts_as_far_as_it_came():
    stopped = answered("openai/gpt-4o", stop=100)
    broken = msgspec.structs.replace(stopped, end="failed")

    assert usage_of(ASKED, broken) == usage_of(ASKED, stopped)


def test_a_whole_answer_counts_as_reported():
    response = answered("openai/gpt-4o")

    assert usage_of(ASKED, response) is response.usage
    assert cost_of(response, response.usage) == response.cost > 0


def test_a_refused_request_used_nothing():
    refusal = Scenario(faults=(Fault(kind="status", status=401),))

    assert usage_of(ASKED, answered("openai/gpt-4o", refusal)) is None


def test_where_no_price_is_known_there_is_none():
    response = answered("sim/m", stop=100)

    assert cost_of(response, usage_of(ASKED, response)) is None


def test_whoever_stops_before_the_first_word_has_still_asked():
    response = answered("openai/gpt-4o", stop=0)

    assert usage_of(ASKED, response).input_tokens >= 100


def test_the_bytes_of_an_image_are_no_words():
    image = Image("data:image/png;base64," + "A" * 1_000_000)
    asked = Request(model="m", messages=(Message("user", (Text("What is this?"), image)),))

    assert 1000 < usage_of(asked, answered("openai/gpt-4o", stop=10)).input_tokens < 1100
