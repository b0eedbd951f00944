"""Requests that are too large for one record: stored in pieces, found again, deleted."""

import asyncio

import pytest
from test_streams import ASK, SCENARIOS, Site

from unbroken import AsyncClient
from unbroken.errors import NotFound
from unbroken.messages import Message, Request, Text
from unbroken.server.gateway import Gateway
from unbroken.server.large_requests import OWNER, PIECE, load_record, store_request
from unbroken.server.records import AnswerRequest, decode_request
from unbroken.server.takeover import read_all
from unbroken.simulator.transport import AsyncSimulatorTransport
from unbroken.stores import registry
from unbroken.stores.base import NewStream
from unbroken.stores.memory import MemoryStore

LARGE = {"messages": [{"role": "user", "content": "long words " * 200_000}]}


def request(size):
    asked = Request(model="sim/quick", messages=(Message("user", (Text("x" * size),)),))
    return AnswerRequest(models=["sim/quick"], request=asked, created=1, on_disconnect="cancel")


@pytest.mark.parametrize("size", [1, PIECE - 1000, PIECE, 3 * PIECE + 1])
def test_a_request_is_read_as_it_was_stored(size):
    async def stored():
        async with MemoryStore() as store:
            record = await store_request(store, "ans_1", request(size))
            await store.create(NewStream("ans_1"), [record, b"[]"])
            records = await read_all(store, "ans_1")
            assert len(record) <= PIECE
            assert decode_request(record).on_disconnect == "cancel"
            assert decode_request(records[0]) == request(size)
            assert records[1:] == [b"[]"]

    asyncio.run(stored())


def test_a_request_that_was_deleted_is_named():
    async def missing():
        async with MemoryStore() as store:
            record = await store_request(store, "ans_1", request(PIECE))
            await store.delete("req_ans_1")
            with pytest.raises(NotFound, match="has been deleted"):
                await load_record(store, record)

    asyncio.run(missing())


@pytest.fixture
def site(serve, tmp_path):
    transport = AsyncSimulatorTransport(SCENARIOS, real_time=True)
    client = AsyncClient(api_key="k", transport=transport)
    url = f"sqlite:///{tmp_path}/answers.db"
    site = Site(serve(Gateway(registry.open_store(url), client=client)), transport)
    site.store_url = url
    return site


def test_a_large_request_is_repeated_shown_and_deleted_like_any_other(site):
    body = {"model": "sim/quick", **LARGE}
    first = site.json("POST", "/v1/streams", body, idempotency_key="a")
    again = site.json("POST", "/v1/streams", body, idempotency_key="a")
    other = site.json("POST", "/v1/streams", {"model": "sim/quick", **ASK}, idempotency_key="a")
    stream = first[1]["id"]
    site.follow(stream)
    whole = site.json("GET", f"/v1/streams/{stream}")[1]

    assert (first[0], again[0], other[0]) == (201, 200, 422)
    assert again[1]["id"] == stream
    assert whole["request"]["messages"][0]["content"] == LARGE["messages"][0]["content"]
    assert stored(site) == [f"req_{stream}"]
    site.json("DELETE", f"/v1/streams/{stream}")
    assert stored(site) == []


def stored(site):
    """The streams that hold requests."""

    async def found():
        async with registry.open_store(site.store_url) as store:
            return [info.id for info in (await store.find(OWNER)).streams]

    return asyncio.run(found())
