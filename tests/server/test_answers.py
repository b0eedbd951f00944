"""Producers and their leases, in one process whose clock can jump."""

import asyncio
import contextlib
import json
import time
import urllib.request

import msgspec
import pytest
from starlette.requests import HTTPConnection

from unbroken import AsyncClient
from unbroken.errors import Overloaded
from unbroken.events import MessageStart, ToolCallStart
from unbroken.messages import Request, messages_from
from unbroken.server.answers import LEASE_SECONDS, Answers
from unbroken.server.gateway import Gateway
from unbroken.server.records import (
    AnswerRequest,
    Outcome,
    decode_outcome,
    encode_events,
    encode_outcome,
    encode_request,
)
from unbroken.simulator.scenario import Scenario
from unbroken.simulator.transport import AsyncSimulatorTransport
from unbroken.stores.base import End, NewStream
from unbroken.stores.counters import Charge, QuotaReached
from unbroken.stores.memory import MemoryStore
from unbroken.stores.sqlite import SqliteStore

SCENARIOS = {"slow": Scenario(ttft=0.05, tps=60, tokens=120)}
ASKED = AnswerRequest(
    models=["sim/slow"],
    request=Request(model="sim/slow", messages=messages_from("Tell me about cats.")),
    created=0,
)


class Jumping:
    """The wall clock of a machine that is suspended now and then."""

    def __init__(self):
        self.slept = 0.0

    def __call__(self):
        return time.time() + self.slept


async def whole(answers, stream):
    """All text of an answer, read to its end, and how it ended."""
    text = ""
    async for item in answers.follow(stream, 0):
        if not isinstance(item, list):
            return text, item.state
        events = [event for batch in item for event in batch.events]
        text += "".join(event.text for event in events if hasattr(event, "text"))
    return text, "left"


def test_a_process_keeps_its_answers_when_it_was_asleep():
    """Its leases are over, nobody else has them: it must not take them over from itself."""
    clock = Jumping()

    async def main():
        transport = AsyncSimulatorTransport(SCENARIOS, real_time=True)
        client = AsyncClient(api_key="k", transport=transport)
        async with Answers(MemoryStore(clock=clock), client) as answers:
            streams = [(await answers.start(ASKED)).stream.id for _ in range(8)]
            reading = [asyncio.create_task(whole(answers, stream)) for stream in streams]
            for _ in range(6):
                await asyncio.sleep(0.2)
                clock.slept += 60.0
            return await asyncio.gather(*reading), len(transport.log)

    read, questions = asyncio.run(main())

    assert {state for _, state in read} == {"complete"}
    assert len({text for text, _ in read}) == 1
    assert questions == 8


def test_a_fault_of_ours_fails_an_answer_once(caplog):
    class Broken(AsyncSimulatorTransport):
        opened = 0

        async def open(self, request, deadlines):
            self.opened += 1
            raise RuntimeError("nobody thought of that")

    async def main():
        transport = Broken()
        client = AsyncClient(api_key="k", transport=transport)
        async with Answers(MemoryStore(), client) as answers:
            stream = (await answers.start(ASKED)).stream.id
            read = await whole(answers, stream)
            return read, transport.opened, answers.producers

    read, opened, left = asyncio.run(main())

    assert read == ("", "failed")
    assert (opened, left) == (1, {})
    assert "nobody thought of that" in caplog.text


async def taken_over(question, follow):
    """What becomes of an answer that a dead process has begun, and of one that is begun after."""
    store = MemoryStore()
    await store.heartbeat("dead", 0.01)
    created = await store.create(NewStream("ans_lost"), [question], "dead")
    assert created.fresh
    transport = AsyncSimulatorTransport(SCENARIOS, real_time=True)
    async with Answers(store, AsyncClient(transport=transport)) as answers:
        lost = await asyncio.wait_for(follow(answers, "ans_lost"), 10)
        new = (await answers.start(ASKED)).stream.id
        return lost, await whole(answers, new), (await store.info(new)).closed


async def end_of(answers, stream):
    async for item in answers.follow(stream, 0):
        if not isinstance(item, list):
            return decode_outcome(item.final)


@pytest.mark.parametrize(
    ("question", "said"),
    [
        (
            encode_request(msgspec.structs.replace(ASKED, models=["openai/gpt-x"])),
            "no key for openai",
        ),
        (encode_request(msgspec.structs.replace(ASKED, models=["nobody/x"])), "nobody/x"),
        (b'{"models": ["sim/slow"], "request": {"weird": 1}}', "Internal gateway error"),
        (b"not even JSON", "Internal gateway error"),
    ],
    ids=["no key", "no provider", "another version", "damaged"],
)
def test_what_nobody_can_go_on_with_fails_by_itself(question, said):
    final, new, closed = asyncio.run(taken_over(question, end_of))

    assert final.state == "failed"
    assert said in final.error.message
    assert (new[1], closed) == ("complete", True)


def test_a_gateway_that_closes_takes_no_new_questions():
    async def main():
        http = HTTPConnection({"type": "http", "path": "/", "headers": []})
        async with Gateway(MemoryStore(), client=AsyncClient()) as gateway:
            await gateway.answers.drain(0)
            with pytest.raises(Overloaded, match="restarting"):
                await gateway.begin(http, ASKED.request, "keep")
            return await gateway.answers.store.find("")

    assert asyncio.run(main()).streams == []


def test_an_answer_past_a_quota_is_never_created():
    full = [Charge("key_a", {"requests": 1}, "day", {"requests": 2})]

    async def main():
        async with Answers(MemoryStore(), AsyncClient()) as answers:
            starting = [answers.start(ASKED, "key_a", "same", charges=full) for _ in range(3)]
            first = await asyncio.gather(*starting)
            await answers.start(ASKED, "key_a", charges=full)
            again = [answers.start(ASKED, "key_a", "other", charges=full) for _ in range(4)]
            refused = await asyncio.gather(*again, return_exceptions=True)
            return first, refused, len((await answers.store.find("key_a")).streams)

    first, refused, streams = asyncio.run(main())

    assert sorted(created.fresh for created in first) == [False, False, True]
    assert [type(error) for error in refused] == [QuotaReached] * 4
    assert streams == 2


def test_a_caller_that_leaves_while_its_answer_is_created_has_started_it():
    class Slow(MemoryStore):
        async def create(self, *args):
            created = await super().create(*args)
            await asyncio.sleep(0.05)
            return created

    async def main():
        transport = AsyncSimulatorTransport(SCENARIOS, real_time=True)
        client = AsyncClient(api_key="k", transport=transport)
        async with Answers(Slow(), client) as answers:
            starting = asyncio.create_task(answers.start(ASKED))
            await asyncio.sleep(0.01)
            starting.cancel()
            await asyncio.sleep(0.1)
            return len(answers.producers)

    assert asyncio.run(main()) == 1


def test_all_answers_of_a_process_cost_one_heartbeat():
    class Counting(MemoryStore):
        beats = 0

        async def heartbeat(self, *args):
            self.beats += 1
            return await super().heartbeat(*args)

    async def main():
        transport = AsyncSimulatorTransport(SCENARIOS, real_time=True)
        client = AsyncClient(api_key="k", transport=transport)
        async with Answers(Counting(), client) as answers:
            for _ in range(40):
                await answers.start(ASKED)
            before = answers.store.beats
            await asyncio.sleep(LEASE_SECONDS / 2)
            return answers.store.beats - before

    assert 1 <= asyncio.run(main()) <= 3


@pytest.mark.parametrize("drain", [0.0, 0.2])
def test_what_an_orderly_stop_leaves_open_can_be_taken_over_at_once(tmp_path, drain):
    file, transport = str(tmp_path / "a.db"), AsyncSimulatorTransport(SCENARIOS, real_time=True)

    async def main():
        client = AsyncClient(api_key="k", transport=transport)
        async with Answers(SqliteStore(file), client) as answers:
            stream = (await answers.start(ASKED)).stream.id
            await answers.drain(drain)
        async with SqliteStore(file) as store:
            await store.heartbeat("other", 60)
            return stream, [lease.stream for lease in await store.adopt("other")]

    stream, orphans = asyncio.run(main())
    assert orphans == [stream]


CALL = ToolCallStart(0, "c1", "delete_files")


@pytest.mark.parametrize("state", ["cancelled", "failed", "complete"])
def test_a_tool_call_of_an_answer_that_was_cut_is_none(serve, state):
    """That nothing came of its arguments does not mean that it has none."""
    store = MemoryStore()

    async def written():
        await store.heartbeat("p", 60)
        lease = (await store.create(NewStream("s"), [encode_request(ASKED)], "p")).lease
        record = encode_events([MessageStart("x", "sim/slow"), CALL])
        end = End(state, encode_outcome(Outcome(state=state)))
        await store.close("s", end, 1, lease.fence, [record])

    asyncio.run(written())
    url = serve(Gateway(store))
    with urllib.request.urlopen(f"{url}/v1/streams/s") as answer:
        calls = json.loads(answer.read())["tool_calls"]
    with urllib.request.urlopen(f"{url}/v1/responses/s") as answer:
        items = json.loads(answer.read())["output"]

    assert len(calls) == len(items) == (1 if state == "complete" else 0)


class Dying:
    """A store as a process sees it that is killed at one of its steps, before or after its effect."""

    def __init__(self, store, steps):
        self._store, self._left = store, steps
        self.killed = asyncio.Event()

    def __getattr__(self, name):
        method = getattr(self._store, name)
        return self._step(method) if name in {"create", "append", "close"} else method

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        pass

    def _step(self, method):
        async def step(*args):
            await self._live_or_hang()
            done = await method(*args)
            await self._live_or_hang()
            return done

        return step

    async def _live_or_hang(self):
        self._left -= 1
        if self._left < 0:
            self.killed.set()
            await asyncio.Event().wait()


@pytest.mark.parametrize("steps", range(14))
def test_an_answer_is_charged_once_wherever_its_process_is_killed(steps):
    """Created, stored record by record, closed; and the process ends before or after each step."""
    charge = [Charge("key_a", {"requests": 1})]
    asked = msgspec.structs.replace(ASKED, models=["sim/short"], owner="key_a")
    scenarios = {"short": Scenario(ttft=0.001, tps=300, tokens=4)}
    reports, clock = [], Jumping()

    def process(store):
        client = AsyncClient(transport=AsyncSimulatorTransport(scenarios, real_time=True))
        return Answers(store, client, lambda *ended: reports.append(ended))

    async def main():
        store = MemoryStore(clock=clock)
        dying = Dying(store, steps)
        doomed = process(dying)
        await doomed._beat()
        starting = asyncio.create_task(doomed.start(asked, "key_a", charges=charge))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(dying.killed.wait(), 0.3)
        for task in (starting, *doomed._tasks.values()):
            task.cancel()
        clock.slept += 60
        survivor = process(store)
        await survivor._beat()
        await survivor._takeover.adopt()
        await asyncio.gather(*survivor._tasks.values())
        ends = [stream.end for stream in (await store.find("key_a")).streams]
        return ends, (await store.usage(["key_a"]))[0]

    ends, used = asyncio.run(main())

    if not ends:  # killed before anything was created
        assert (steps, used, reports) == (0, {}, [])
        return
    [usage] = [decode_outcome(end.final).usage for end in ends]
    assert used == {"requests": 1, "tokens": usage.input_tokens + usage.output_tokens, "usd": 0}
    assert len(reports) <= 1
