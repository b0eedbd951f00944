"""The fault matrix: what servers really send, on real sockets, sync and async.

Each row is a body as it was seen on the wire. The same rows make other clients lose text, glue
tool calls or report a cut answer as whole.
"""

import asyncio
import json
from typing import NamedTuple

import pytest

from unbroken import AsyncClient, Client, StreamInterrupted, Timeouts, UnbrokenError
from unbroken.simulator.app import running
from unbroken.simulator.scenario import Fault, Scenario


def chunk(delta=None, finish=None, index=0, **more):
    choice = {"index": index, "delta": delta or {}, "finish_reason": finish}
    body = {
        "id": "c1",
        "object": "chat.completion.chunk",
        "model": "m",
        "choices": [choice],
        **more,
    }
    return b"data: %b\n\n" % json.dumps(body).encode()


def raw(**body):
    return b"data: %b\n\n" % json.dumps({"id": "c1", "model": "m", **body}).encode()


def call(arguments, **more):
    function = {"arguments": arguments} | ({"name": more.pop("name")} if "name" in more else {})
    return chunk({"tool_calls": [{**more, "function": function}]})


HELLO = (
    chunk({"role": "assistant", "content": ""})
    + chunk({"content": "hel"})
    + chunk({"content": "lo"})
)
STOP, DONE = chunk(finish="stop"), b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 2, "completion_tokens": 3}


class Row(NamedTuple):
    """A body, and what must come of it. `cut`: what the cause of the interruption says."""

    name: str
    body: bytes
    text: str = "hello"
    end: str = "complete"
    cut: str = ""
    calls: tuple = ()
    partial: int = 0
    reasoning: str = ""
    choices: int = 1
    usage: int | None = None
    skipped: int = 0


ROWS = [
    Row("usage-only chunk", HELLO + STOP + raw(choices=[], usage=USAGE) + DONE, usage=3),
    Row(
        "azure's first chunk",
        raw(id="", choices=[], prompt_filter_results=[{}]) + HELLO + STOP + DONE,
    ),
    Row("a delta that is null", raw(choices=[{"index": 0, "delta": None}]) + HELLO + STOP + DONE),
    Row("clean end, no finish reason", HELLO, end="truncated", cut="own end"),
    Row("[DONE] but no finish reason", HELLO + DONE, end="truncated", cut="own end"),
    Row("finish reason but no [DONE]", HELLO + STOP),
    Row(
        "a tool call cut in its arguments",
        HELLO + call('{"a": 1', index=0, id="c1", name="f"),
        end="truncated",
        cut="own end",
        partial=1,
    ),
    Row(
        "error after the 200", HELLO + raw(error={"message": "kaputt"}), end="failed", cut="kaputt"
    ),
    Row(
        "error after the 200 with an event name",
        HELLO + b'event: error\ndata: {"message": "kaputt"}\n\n' + DONE,
        end="failed",
        cut="kaputt",
    ),
    Row(
        "openrouter's error",
        HELLO + chunk({"content": ""}, "error", error={"code": 502, "message": "upstream"}),
        end="failed",
        cut="502 ServerError",
    ),
    Row("one malformed event", HELLO + b'data: {"id": "c1", "cho\n\n' + STOP + DONE, skipped=1),
    Row(
        "two parallel calls without an index",
        call('{"a":1}', id="c1", name="f")
        + call('{"b":2}', id="c2", name="g")
        + chunk(finish="tool_calls"),
        text="",
        calls=(("c1", "f", {"a": 1}), ("c2", "g", {"b": 2})),
    ),
    Row(
        "two parallel calls, both index 0",
        call('{"a":1}', index=0, id="c1", name="f")
        + call('{"b":2}', index=0, id="c2", name="g")
        + chunk(finish="tool_calls"),
        text="",
        calls=(("c1", "f", {"a": 1}), ("c2", "g", {"b": 2})),
    ),
    Row(
        "fragments that only have an index",
        call('{"a"', index=0, id="c1", name="f")
        + call('{"b"', index=1, id="c2", name="f")
        + call(":1}", index=0)
        + call(":2}", index=1)
        + chunk(finish="tool_calls"),
        text="",
        calls=(("c1", "f", {"a": 1}), ("c2", "f", {"b": 2})),
    ),
    Row(
        "the id in every fragment",
        call('{"a"', index=0, id="c1", name="f")
        + call(":1}", index=0, id="c1")
        + chunk(finish="tool_calls"),
        text="",
        calls=(("c1", "f", {"a": 1}),),
    ),
    Row(
        "a call without arguments",
        call("", index=0, id="c1", name="f") + chunk(finish="tool_calls"),
        text="",
        calls=(("c1", "f", {}),),
    ),
    Row(
        "a call cut by the limit of tokens",
        call('{"a": "lo', index=0, id="c1", name="f") + chunk(finish="length"),
        text="",
        partial=1,
    ),
    Row(
        "cumulative usage in every chunk",
        b"".join(
            chunk({"content": t}, usage={**USAGE, "completion_tokens": n + 1})
            for n, t in enumerate(["h", "el", "lo"])
        )
        + chunk(finish="stop", usage=USAGE)
        + DONE,
        usage=3,
    ),
    Row(
        "two choices, interleaved",
        chunk({"content": "hel"})
        + chunk({"content": "bye"}, index=1)
        + chunk({"content": "lo"})
        + chunk(finish="stop")
        + chunk(finish="length", index=1)
        + DONE,
        choices=2,
    ),
    Row("the finish reason twice", HELLO + STOP + STOP + DONE),
    Row(
        "data: without a space and CRLF",
        (HELLO + STOP + DONE).replace(b"data: ", b"data:").replace(b"\n", b"\r\n"),
    ),
    Row("keep-alive comments", HELLO.replace(b"\n\n", b"\n\n: keepalive\n\n") + STOP + DONE),
    Row(
        "reasoning under both names, and with content",
        chunk({"reasoning": "I "})
        + chunk({"reasoning_content": "think", "content": "hello"})
        + STOP
        + DONE,
        reasoning="I think",
    ),
    Row(
        "content null, and a role in every delta",
        HELLO.replace(b'{"content"', b'{"role": "assistant", "content"')
        + chunk({"content": None})
        + STOP
        + DONE,
    ),
    Row(
        "obfuscation padding",
        HELLO.replace(b'"model"', b'"obfuscation": "xxx", "model"') + STOP + DONE,
    ),
    Row("comments for ever after [DONE]", HELLO + STOP + DONE + b": hi\n\n" * 5),
]


@pytest.fixture(scope="module")
def server():
    scenarios = {str(at): Scenario(ttft=0, body=row.body) for at, row in enumerate(ROWS)}
    with running(scenarios) as url:
        yield url


def sync_answer(url, model, n):
    with Client(base_url=f"{url}/v1", api_key="k") as client:
        stream = client.stream(f"openai/{model}", "hi", n=n)
        return settled(stream, lambda: list(stream))


def async_answer(url, model, n):
    async def ask():
        async with AsyncClient(base_url=f"{url}/v1", api_key="k") as client:
            stream = client.stream(f"openai/{model}", "hi", n=n)
            try:
                async for _ in stream:
                    pass
            except UnbrokenError as error:
                return stream.response, error
            return stream.response, None

    return asyncio.run(ask())


def settled(stream, run):
    try:
        run()
    except UnbrokenError as error:
        return stream.response, error
    return stream.response, None


@pytest.mark.parametrize("answer", [sync_answer, async_answer])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_row(row, answer, server):
    response, error = answer(server, ROWS.index(row), row.choices)

    assert response.text == row.text
    assert response.end == row.end
    assert response.reasoning == row.reasoning
    assert len(response.choices) == row.choices
    assert response.skipped_events == row.skipped
    assert (response.usage and response.usage.output_tokens) == row.usage
    assert tuple((c.id, c.name, c.arguments) for c in response.tool_calls) == row.calls
    assert len(response.partial_tool_calls) == row.partial
    assert (type(error) is StreamInterrupted) == bool(row.cut)
    assert row.cut in str(error and error.__cause__)


@pytest.mark.parametrize("answer", [sync_answer, async_answer])
@pytest.mark.parametrize("how", ["reset", "close"])
def test_a_connection_that_breaks_in_mid_body(how, answer):
    fault = Fault(kind="cut", events=4, how=how)
    with running({"m": Scenario(ttft=0, tps=0, faults=(fault,))}) as url:
        response, error = answer(url, "m", 1)

    assert response.end == "failed"
    assert len(response.text) > 0
    assert error.response == response


def test_keepalives_do_not_hold_off_the_idle_clock():
    fault = Fault(kind="stall", events=2, seconds=20, keepalive=True)
    with running({"m": Scenario(ttft=0, tps=0, faults=(fault,))}) as url:
        with Client(base_url=f"{url}/v1", api_key="k", timeouts=Timeouts(idle=1.5)) as client:
            stream = client.stream("openai/m", "hi")
            _, error = settled(stream, lambda: list(stream))

    assert error.__cause__.phase == "idle"
