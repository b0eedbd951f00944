"""Producers and their leases, in one process whose clock can jump."""

import asyncio
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
from unbroken.server.answers import PARTS, Answers
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
    created = await store.create(NewStream("ans_lost"), [question], "dead", 0.01)
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
        (b'{"models": ["sim/slow"], "request": {"weird": 1}}', "a fault of the gateway"),
        (b"not even JSON", "a fault of the gateway"),
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
        http = HTTPConnection({"type": "http", "headers": []})
        async with Gateway(MemoryStore(), client=AsyncClient()) as gateway:
            await gateway.answers.drain(0)
            with pytest.raises(Overloaded, match="restarting"):
                await gateway.begin(http, ASKED.request, "keep")
            return await gateway.answers.store.find("")

    assert asyncio.run(main()).streams == []


@pytest.mark.parametrize("fault", [Overloaded("full"), RuntimeError("nobody thought of that")])
def test_who_is_not_let_in_leaves_nothing_that_could_be_taken_over(fault):
    async def refuse():
        raise fault

    async def main():
        store = MemoryStore()
        async with Answers(store, AsyncClient()) as answers:
            with pytest.raises(type(fault)):
                await answers.start(ASKED, admit=refuse)
            return (await store.find("")).streams, answers.producers

    assert asyncio.run(main()) == ([], {})


def test_every_lease_is_renewed_in_time_whoever_ends_meanwhile():
    async def main():
        transport = AsyncSimulatorTransport(SCENARIOS, real_time=True)
        answers = Answers(MemoryStore(), AsyncClient(api_key="k", transport=transport))
        for _ in range(40):
            await answers.start(ASKED)
        before = {p: p.lease for p in answers.producers.values()}
        for turn in range(PARTS):
            await answers._turn(turn)
            oldest = next(iter(answers.producers))
            task = answers._tasks[oldest]
            await answers.stop(oldest)
            await task
        kept = [p for p in answers.producers.values() if p.lease is before[p]]
        await answers.drain(0)
        await answers.__aexit__()
        return len(kept)

    assert asyncio.run(main()) == 0


@pytest.mark.parametrize("drain", [0.0, 0.2])
def test_what_an_orderly_stop_leaves_open_can_be_taken_over_at_once(tmp_path, drain):
    file, transport = str(tmp_path / "a.db"), AsyncSimulatorTransport(SCENARIOS, real_time=True)

    async def main():
        client = AsyncClient(api_key="k", transport=transport)
        async with Answers(SqliteStore(file), client) as answers:
            stream = (await answers.start(ASKED)).stream.id
            await answers.drain(drain)
        async with SqliteStore(file) as store:
            return stream, [orphan.id for orphan in await store.orphans()]

    stream, orphans = asyncio.run(main())
    assert orphans == [stream]


CALL = ToolCallStart(0, "c1", "delete_files")


@pytest.mark.parametrize("state", ["cancelled", "failed", "complete"])
def test_a_tool_call_of_an_answer_that_was_cut_is_none(serve, state):
    """That nothing came of its arguments does not mean that it has none."""
    store = MemoryStore()

    async def written():
        lease = (await store.create(NewStream("s"), [encode_request(ASKED)], "p", 60)).lease
        said = encode_events([MessageStart("x", "sim/slow"), CALL])
        final = encode_outcome(Outcome(state=state))
        await store.append("s", [said], 1, lease.fence, End(state, final))

    asyncio.run(written())
    url = serve(Gateway(store))
    with urllib.request.urlopen(f"{url}/v1/streams/s") as answer:
        calls = json.loads(answer.read())["tool_calls"]
    with urllib.request.urlopen(f"{url}/v1/responses/s") as answer:
        items = json.loads(answer.read())["output"]

    assert len(calls) == len(items) == (1 if state == "complete" else 0)
