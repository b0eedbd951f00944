"""What keys have used: by many at once, in several processes, in every store."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from redis_server import fresh_url

from unbroken import AsyncClient
from unbroken.events import MessageEnd, MessageStart, TextDelta, Usage
from unbroken.messages import Request, messages_from
from unbroken.server.answers import Answers
from unbroken.server.records import AnswerRequest, decode_outcome, encode_events, encode_request
from unbroken.server.usage import (
    UsageTotals,
    answer_charges,
    quota_error,
    read_totals,
    request_charges,
)
from unbroken.stores import registry
from unbroken.stores.base import NewStream
from unbroken.stores.counters import QuotaReached
from unbroken.stores.memory import MemoryStore

KEY = "key_small"
ONE = request_charges(KEY, {"day": {"requests": 5}})
ASKED = AnswerRequest(
    models=["sim/slow"],
    request=Request(model="sim/slow", messages=messages_from("Tell me about cats.")),
    created=0,
    owner=KEY,
)
WHOLE = [
    MessageStart("x", "slow"),
    TextDelta("hello " * 100),
    MessageEnd("stop", Usage(input_tokens=10, output_tokens=100)),
]


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
def test_a_limit_holds_for_all_that_ask_at_once_in_all_processes(kind, tmp_path):
    async def live(one, other):
        asked = [store.charge(ONE) for store in [one, other] * 30]
        results = await asyncio.gather(*asked, return_exceptions=True)
        return results, await read_totals(one, [KEY, "key_other"])

    results, totals = living(processes(kind, tmp_path), live)

    assert results.count(None) == 5
    assert all(isinstance(error, QuotaReached) for error in results if error)
    assert totals == [UsageTotals(requests=5), UsageTotals()]


@every_store
def test_money_is_counted_in_the_day_and_in_the_minute(kind, tmp_path):
    async def live(one, other):
        used = Usage(input_tokens=3, output_tokens=4)
        for store in (one, other) * 5:
            await store.charge(answer_charges(KEY, used, 0.1))
        return [(await read_totals(one, [KEY], window))[0] for window in ("day", "minute")]

    day, minute = living(processes(kind, tmp_path), live)

    assert day == UsageTotals(tokens=70, usd=1.0)
    assert minute.tokens <= 70  # the minute may have ended meanwhile


@pytest.mark.parametrize("usd", [float("inf"), float("nan"), -5.0, 1e300, None])
def test_no_price_can_keep_an_answer_from_being_closed(usd):
    async def live(store, _):
        await store.charge(answer_charges(KEY, Usage(input_tokens=-9, output_tokens=1), usd))
        return (await read_totals(store, [KEY]))[0]

    assert living(processes("memory", None), live).tokens == 0


def test_a_refusal_names_the_key_and_the_limit_and_when_it_ends():
    async def live(store, _):
        limited = request_charges(KEY, {"day": {"usd": 0.5}})
        await store.charge(answer_charges(KEY, Usage(), 0.5))
        with pytest.raises(QuotaReached) as caught:
            await store.charge(limited)
        return quota_error(caught.value, "phone")

    error = living(processes("memory", None), live)

    assert error.status == 429
    assert "Key 'phone' has reached its daily limit of $0.50; it resets at 00:00" in error.message
    assert 0 < error.retry_after <= 86_400


@every_store
@pytest.mark.parametrize(
    ("events", "cancelled", "state", "tokens"),
    [
        (WHOLE, False, "complete", 110),
        (WHOLE[:2], True, "cancelled", 150 + 12),
    ],
    ids=["whole but for its end", "stopped while it was an orphan"],
)
def test_an_answer_that_a_takeover_merely_closes_is_charged_and_reported_once(
    kind, tmp_path, events, cancelled, state, tokens
):
    reported = []

    async def live(one, other):
        await one.heartbeat("dead", 0.01)
        records = [encode_request(ASKED), encode_events(events)]
        await one.create(NewStream("ans_lost", owner=KEY), records, "dead")
        if cancelled:
            await one.cancel("ans_lost")
        answers = [
            Answers(store, AsyncClient(), lambda *ended: reported.append(ended))
            for store in dict.fromkeys((one, other))
        ]
        for each in answers:
            await each._beat()
        await asyncio.sleep(0.02)
        for each in (*answers, *answers):
            await each._takeover.adopt()
        return (await one.info("ans_lost")).end, (await read_totals(one, [KEY]))[0]

    end, totals = living(processes(kind, tmp_path), live)

    assert end.state == decode_outcome(end.final).state == state
    assert totals.tokens == pytest.approx(tokens, abs=12)
    assert [(request.owner, stream) for request, stream, _ in reported] == [(KEY, "ans_lost")]
    assert reported[0][2].response.usage == decode_outcome(end.final).usage
