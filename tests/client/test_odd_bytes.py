"""Odd bytes of real servers, read by both clients: what matters is read, and a hole is never silent.

Each row is a response as it was reported on a wire, or a neighbour of one.
"""

import asyncio
import json
import socketserver
import threading
from typing import NamedTuple

import pytest

from unbroken import AsyncClient, Client, RecoveryPolicy, Timeouts, UnbrokenError

ONCE = RecoveryPolicy(attempts=1, unknown_finish="accept")
SHORT = Timeouts(connect=5, first_event=5, idle=5)


def head(status="200 OK", kind="text/event-stream"):
    lines = [f"HTTP/1.1 {status}", "connection: close"]
    lines += [f"content-type: {kind}"] if kind else []
    return "\r\n".join([*lines, "", ""]).encode()


def sse(*chunks, done=True):
    frames = [c if isinstance(c, bytes) else json.dumps(c).encode() for c in chunks]
    body = b"".join(b"data: %b\n\n" % frame for frame in frames)
    return body + (b"data: [DONE]\n\n" if done else b"")


def named(*events):
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in events
    )


def chunk(finish=None, more=None, choice=None, **delta):
    inner = {"index": 0, "delta": delta, "finish_reason": finish, **(choice or {})}
    return {"id": "c", "model": "m", "choices": [inner], **(more or {})}


def call(text=None, name=None, index=0, **more):
    function = {k: v for k, v in (("name", name), ("arguments", text)) if v is not None}
    placed = {} if index is None else {"index": index}
    return chunk(tool_calls=[{**placed, "type": "function", "function": function, **more}])


def whole(message, finish="stop", **more):
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return json.dumps({"id": "c", "model": "m", "choices": [choice], **more}).encode()


HEL, LO, STOP, CALLED = (
    chunk(content="Hel"),
    chunk(content="lo"),
    chunk("stop"),
    chunk("tool_calls"),
)
USAGE = {"prompt_tokens": 30, "completion_tokens": 12}
WEATHER = (("weather", {"city": "Rome"}),)


class Row(NamedTuple):
    name: str
    body: bytes
    text: str = "Hello"
    end: str = "complete"
    provider: str = "compatible"
    finish: str = ""
    calls: tuple = ()
    output: int = 0
    error: str = ""
    reasoning: str = ""
    stream: bool = True


def ends(word, finish="", **more):
    end = "failed" if more.get("error") else "complete"
    return Row(
        f"finish {word}",
        head() + sse(chunk(content="Hello"), chunk(word)),
        end=end,
        finish=finish,
        **more,
    )


def called(name, *fragments, **more):
    return Row(name, head() + sse(*fragments, CALLED), text="", calls=WEATHER, **more)


def odd(name, *chunks, **more):
    return Row(name, head() + sse(*chunks), **more)


CHAT = [
    *(
        ends(word, error=word)
        for word in ("abort", "network_error", "cancelled", "failed", "error")
    ),
    *(ends(word, error=word) for word in ("malformed_function_call", "UNEXPECTED_TOOL_CALL")),
    ends("function_call_filter: MALFORMED_FUNCTION_CALL", error="MALFORMED"),
    *(
        ends(word, "length")
        for word in ("MAX_TOKENS", "model_context_window_exceeded", "max_tokens")
    ),
    *(ends(word, "content_filter") for word in ("SAFETY", "sensitive", "content_filter: SAFETY")),
    *(ends(word, "stop") for word in ("end_turn", "eos", "eos_token", "STOP", "COMPLETE")),
    *(ends(word, "error") for word in ("of_the_future", "stopped_by_magic")),
    # fields that are not needed
    *(
        odd(f"id {value!r}", *({**c, "id": value} for c in (HEL, LO, STOP)))
        for value in (123, 1.5, False, [], {})
    ),
    *(
        odd(
            f"created {value!r}",
            *({**c, "created": value, "model": value} for c in (HEL, LO, STOP)),
        )
        for value in ("1", None, [], False)
    ),
    *(
        odd(f"usage {value!r}", HEL, LO, chunk("stop", {"usage": value}))
        for value in ([], False, {"prompt_tokens_details": []}, "none")
    ),
    odd(
        "usage in strings",
        HEL,
        LO,
        chunk("stop", {"usage": {k: str(v) for k, v in USAGE.items()}}),
        output=12,
    ),
    odd(
        "usage in floats",
        HEL,
        LO,
        chunk("stop", {"usage": {"prompt_tokens": 3.0, "completion_tokens": 12.0}}),
        output=12,
    ),
    *(
        odd(f"error {value!r}", *({**c, "error": value} for c in (HEL, LO, STOP)))
        for value in ("", {}, None, False, [])
    ),
    odd("delta []", HEL, LO, {"choices": [{"index": 0, "delta": [], "finish_reason": "stop"}]}),
    odd("index as text", *(chunk(choice={"index": "0"}, content=t) for t in ("Hel", "lo")), STOP),
    odd("content a number", chunk(content=5), STOP, text="5"),
    odd(
        "NaN beside the text",
        b'{"id":"c","choices":[{"index":0,"delta":{"content":"Hello"},"score":NaN}]}',
        STOP,
    ),
    odd(
        "a tab in the text",
        b'{"id":"c","choices":[{"index":0,"delta":{"content":"a\tb"}}]}',
        STOP,
        text="a\tb",
    ),
    odd(
        "no UTF-8 in the text",
        b'{"id":"c","choices":[{"index":0,"delta":{"content":"a\xff"}}]}',
        STOP,
        text="a\ufffd",
    ),
    odd("a list of chunks", json.dumps([HEL, LO]).encode(), STOP),
    odd(
        "text that is cut off",
        HEL,
        b'{"id":"c","choices":[{"index":0,"delta":{"content":"l',
        STOP,
        text="Hel",
        end="failed",
        error="may hold content",
    ),
    # text that comes only at the end, or elsewhere
    odd(
        "message instead of delta",
        {"id": "c", "choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]},
    ),
    odd(
        "message in each chunk",
        *({"id": "c", "choices": [{"message": {"content": t}}]} for t in ("Hel", "lo")),
        STOP,
    ),
    odd(
        "message after deltas",
        HEL,
        LO,
        {
            "id": "c",
            "choices": [{"delta": {}, "message": {"content": "Hello"}, "finish_reason": "stop"}],
        },
    ),
    odd("text of the completions API", {"id": "c", "choices": [{"text": "Hello"}]}, STOP),
    odd("finish in each chunk", chunk("stop", content="Hel"), chunk("stop", content="lo")),
    odd("finish with the first chunk", chunk("stop", content="Hello")),
    # fragments of calls
    called(
        "two ids, one index",
        call("", "weather", id="a"),
        call('{"city":', id="b"),
        call('"Rome"}', id="b"),
    ),
    called(
        "an id in each fragment",
        call("", "weather", id="a"),
        call('{"city":', id="b"),
        call('"Rome"}', id="c"),
    ),
    called(
        "the index grows",
        call("", "weather", id="a"),
        call('{"city":', index=1),
        call('"Rome"}', index=2),
    ),
    called("a late name", call("", id="a"), call('{"city":', "weather"), call('"Rome"}')),
    called("a late id", call("", "weather"), call('{"city":"Rome"}', id="a")),
    called("the name repeats", *(call(t, "weather", id="a") for t in ('{"city":', '"Rome"}'))),
    called(
        "the name repeats, no index",
        *(call(t, "weather", index=None) for t in ('{"city":', '"Rome"}')),
    ),
    called("index -1", call("", "weather", index=-1, id="a"), call('{"city":"Rome"}', index=-1)),
    called("index as text", call('{"city":"Rome"}', "weather", index="0", id="a")),
    called("id a number", call('{"city":"Rome"}', "weather", id=7)),
    called("arguments an object", call({"city": "Rome"}, "weather", id="a")),
    called(
        "a ghost behind it", call('{"city":"Rome"}', "weather", id="a"), call(None, index=1, id="")
    ),
    called(
        "a single call, no list",
        chunk(
            tool_calls={
                "index": 0,
                "id": "a",
                "function": {"name": "weather", "arguments": '{"city":"Rome"}'},
            }
        ),
    ),
    called("white space behind it", call('{"city":"Rome"}', "weather", id="a"), call("\n")),
    called(
        "in a second choice",
        {
            "id": "c",
            "choices": [
                {
                    "index": 1,
                    "delta": {
                        "tool_calls": [
                            {
                                "index": 0,
                                "id": "a",
                                "function": {"name": "weather", "arguments": '{"city":"Rome"}'},
                            }
                        ]
                    },
                    "finish_reason": "tool_calls",
                }
            ],
        },
    ),
    odd("a ghost in text", HEL, call(None, id=""), LO, STOP),
    odd("function_call {}", chunk(content="Hello", function_call={}), STOP),
    odd("a call without a name", HEL, LO, call("{}", id="a"), CALLED),
    odd(
        "an unknown end after a call",
        HEL,
        LO,
        call("{}", "weather", id="a"),
        chunk("of_the_future"),
        finish="error",
    ),
    # usage wherever it stands
    odd("usage in the choice", HEL, LO, chunk("stop", choice={"usage": USAGE}), output=12),
    odd("usage in x_groq", HEL, LO, chunk("stop", {"x_groq": {"usage": USAGE}}), output=12),
    odd(
        "usage, then {}",
        HEL,
        LO,
        chunk("stop", {"usage": USAGE}),
        {"choices": [], "usage": {}},
        output=12,
    ),
    odd(
        "usage, then zeros",
        HEL,
        LO,
        chunk("stop", {"usage": USAGE}),
        {"choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 0}},
        output=12,
    ),
    odd(
        "reasoning beside the completion",
        HEL,
        LO,
        STOP,
        {
            "choices": [],
            "usage": {
                "prompt_tokens": 32,
                "completion_tokens": 9,
                "total_tokens": 135,
                "completion_tokens_details": {"reasoning_tokens": 94},
            },
        },
        output=103,
    ),
    odd(
        "usage with an error",
        HEL,
        {"error": {"message": "gone"}, "choices": [], "usage": USAGE},
        text="Hel",
        end="failed",
        error="gone",
        output=12,
    ),
    odd(
        "MiniMax: base_resp",
        {
            "id": "c",
            "choices": None,
            "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"},
        },
        text="",
        end="failed",
        error="insufficient balance",
    ),
    # content decides
    *(
        Row(f"SSE under {kind}", head(kind=kind) + sse(HEL, LO, STOP))
        for kind in ("application/json", "application/x-ndjson", "text/plain", "")
    ),
    Row("SSE behind blank lines", head() + b"\n\r\n\n" + sse(HEL, LO, STOP)),
    Row("SSE with a byte order mark", head() + b"\xef\xbb\xbf" + sse(HEL, LO, STOP)),
    Row("SSE for complete()", head(kind="application/json") + sse(HEL, LO, STOP), stream=False),
    *(
        Row(f"JSON under {kind}", head(kind=kind) + whole({"content": "Hello"}))
        for kind in ("application/json", "text/event-stream", "text/plain", "")
    ),
    Row("JSON for complete()", head() + whole({"content": "Hello"}), stream=False),
    Row(
        "JSON behind blank lines",
        head(kind="application/json") + b"\n\n\n" + whole({"content": "Hello"}),
        stream=False,
    ),
    Row(
        "JSON with odd types",
        head(kind="application/json")
        + whole({"content": "Hello", "tool_calls": {}}, id=5, usage=[]),
    ),
    *(
        Row(
            f"an error under {kind}",
            head(kind=kind) + b'{"error":{"message":"no money left"}}',
            text="",
            end="failed",
            error="no money left",
        )
        for kind in ("text/event-stream", "text/plain")
    ),
    Row(
        "an error in other words",
        head() + b'{"detail":"Not authenticated"}',
        text="",
        end="failed",
        error="Not authenticated",
    ),
    Row(
        "a page",
        head(kind="text/html") + b"<!doctype html><html>chat</html>",
        text="",
        end="failed",
        error="HTML",
    ),
    Row(
        "a sentence",
        head() + b"upstream connect error, reset before headers",
        text="",
        end="failed",
        error="upstream connect error",
    ),
    Row("no last empty line", head() + sse(HEL, LO, STOP, done=False)[:-1]),
    Row("no last line end", head() + sse(HEL, LO, STOP, done=False)[:-2]),
    Row(
        "the last event is cut",
        head() + sse(HEL, LO, STOP, done=False)[:-9],
        end="truncated",
        error="own end",
    ),
]

STARTED = {
    "type": "message_start",
    "message": {
        "id": "m",
        "model": "c",
        "content": [],
        "usage": {"input_tokens": 9, "output_tokens": 1},
    },
}
STOPPED = {"type": "message_stop"}


def block(start, *deltas, index=0):
    begin = {"type": "content_block_start", "index": index, "content_block": start}
    grown = [{"type": "content_block_delta", "index": index, "delta": d} for d in deltas]
    return [begin, *grown, {"type": "content_block_stop", "index": index}]


def ended(word="end_turn", **usage):
    return {
        "type": "message_delta",
        "delta": {"stop_reason": word},
        "usage": {"output_tokens": 9, **usage},
    }


def said(*texts):
    return block({"type": "text", "text": ""}, *({"type": "text_delta", "text": t} for t in texts))


def claude(name, *events, **more):
    return Row(name, head() + named(*events), provider="anthropic", **more)


USE = {"type": "tool_use", "id": "t", "name": "weather"}
PIECES = [{"type": "input_json_delta", "partial_json": t} for t in ('{"city":', '"Rome"}')]

ANTHROPIC = [
    *(
        claude(
            f"stop_reason {word}",
            STARTED,
            *said("Hello"),
            ended(word),
            STOPPED,
            error=word,
            end="failed",
        )
        for word in ("abort", "network_error", "cancelled")
    ),
    claude(
        "unknown stop_reason",
        STARTED,
        *said("Hello"),
        ended("of_the_future"),
        STOPPED,
        finish="error",
    ),
    claude(
        "sensitive", STARTED, *said("Hello"), ended("sensitive"), STOPPED, finish="content_filter"
    ),
    claude(
        "content in message_start",
        {
            **STARTED,
            "message": {**STARTED["message"], "content": [{"type": "text", "text": "Hello"}]},
        },
        ended(),
        STOPPED,
    ),
    claude(
        "content in message_start and in blocks",
        {
            **STARTED,
            "message": {**STARTED["message"], "content": [{"type": "text", "text": "Hel"}]},
        },
        *said("Hel", "lo"),
        ended(),
        STOPPED,
    ),
    claude(
        "text in the block's start",
        STARTED,
        *block({"type": "text", "text": "Hello"}),
        ended(),
        STOPPED,
    ),
    claude("no blocks are started", STARTED, *said("Hel", "lo")[1:3], ended(), STOPPED),
    claude(
        "deltas without a type",
        STARTED,
        *block({"type": "text"}, {"text": "Hello"}),
        ended(),
        STOPPED,
    ),
    claude(
        "usage in floats and strings",
        STARTED,
        *said("Hello"),
        ended(output_tokens="9.0"),
        STOPPED,
        output=9,
    ),
    claude(
        "index as text",
        STARTED,
        *block({"type": "text", "text": ""}, {"type": "text_delta", "text": "Hello"}, index="0"),
        ended(),
        STOPPED,
    ),
    claude(
        "an id that is a number",
        {**STARTED, "message": {"id": 5, "model": None, "content": {}}},
        *said("Hello"),
        ended(),
        STOPPED,
    ),
    claude(
        "input whole and in pieces",
        STARTED,
        *block({**USE, "input": {"city": "Rome"}}, *PIECES),
        ended("tool_use"),
        STOPPED,
        text="",
        calls=WEATHER,
    ),
    claude(
        "input whole, then an empty piece",
        STARTED,
        *block(
            {**USE, "input": {"city": "Rome"}}, {"type": "input_json_delta", "partial_json": ""}
        ),
        ended("tool_use"),
        STOPPED,
        text="",
        calls=WEATHER,
    ),
    claude(
        "a programmatic call",
        STARTED,
        *block(
            {**USE, "input": {}, "caller": {"type": "code_execution_20250825", "tool_id": "s"}},
            *PIECES,
        ),
        ended("tool_use"),
        STOPPED,
        text="",
        calls=WEATHER,
    ),
    claude(
        "a server's tool",
        STARTED,
        *block({**USE, "type": "server_tool_use", "input": {}}, *PIECES),
        *block({"type": "text", "text": "Hello"}, index=1),
        ended(),
        STOPPED,
    ),
    claude(
        "a block of the future",
        STARTED,
        *block({"type": "hologram", "depth": [1]}),
        *block({"type": "text", "text": "Hello"}, index=1),
        ended(),
        STOPPED,
    ),
]


def made(*events):
    numbered = [{"sequence_number": n, **e} for n, e in enumerate(events)]
    return head() + named(*numbered)


def openai(name, *events, **more):
    return Row(name, made(*events), provider="openai-responses", **more)


CREATED = {
    "type": "response.created",
    "response": {"id": "r", "model": "m", "status": "in_progress"},
}
ITEM = {"id": "i", "type": "message", "content": [{"type": "output_text", "text": "Hello"}]}
CALL = {
    "id": "f",
    "type": "function_call",
    "call_id": "t",
    "name": "weather",
    "arguments": '{"city":"Rome"}',
}


def delta(text, **more):
    return {"type": "response.output_text.delta", "output_index": 0, "delta": text, **more}


def completed(*items, kind="response.completed", **more):
    return {
        "type": kind,
        "response": {"id": "r", "status": "completed", "output": list(items), **more},
    }


def item_done(item, at=0):
    return {"type": "response.output_item.done", "output_index": at, "item": item}


TEXT_DONE = {"type": "response.output_text.done", "output_index": 0, "text": "Hello"}
RESPONSES = [
    openai(
        "text only in output_text.done",
        CREATED,
        {"type": "response.output_item.added", "output_index": 0, "item": {"type": "message"}},
        TEXT_DONE,
        completed(),
    ),
    openai("text only in output_item.done", CREATED, item_done(ITEM), completed()),
    openai("text only in response.completed", CREATED, completed(ITEM)),
    openai(
        "text everywhere",
        CREATED,
        delta("Hel"),
        delta("lo"),
        TEXT_DONE,
        item_done(ITEM),
        completed(ITEM),
    ),
    openai("deltas and the end", CREATED, delta("Hel"), delta("lo"), completed(ITEM)),
    openai("half as deltas", CREATED, delta("Hel"), TEXT_DONE, item_done(ITEM), completed(ITEM)),
    openai(
        "deltas with another number",
        CREATED,
        delta("Hello", output_index=3),
        item_done(ITEM),
        completed(ITEM),
    ),
    openai(
        "all numbers are 0",
        *({**e, "sequence_number": 0} for e in (CREATED, delta("Hel"), delta("lo"), completed())),
    ),
    openai(
        "numbers as text",
        *({**e, "sequence_number": "x"} for e in (CREATED, delta("Hel"), delta("lo"), completed())),
    ),
    openai("a delta of null", CREATED, delta(None), delta("Hello"), completed()),
    openai(
        "object arguments of a hosted tool",
        CREATED,
        item_done({"type": "tool_search_call", "arguments": {"query": "x"}}),
        item_done(ITEM, 1),
        completed(),
    ),
    openai(
        "an item of the future",
        CREATED,
        item_done({"type": "hologram", "content": {"a": 1}}),
        item_done(ITEM, 1),
        completed(),
    ),
    openai(
        "a call only in output_item.done",
        CREATED,
        item_done(CALL),
        completed(),
        text="",
        calls=WEATHER,
    ),
    openai("a call only in response.completed", CREATED, completed(CALL), text="", calls=WEATHER),
    openai(
        "arguments as an object",
        CREATED,
        item_done({**CALL, "arguments": {"city": "Rome"}}),
        completed(),
        text="",
        calls=WEATHER,
    ),
    openai(
        "a custom tool",
        CREATED,
        item_done({"type": "custom_tool_call", "call_id": "t", "name": "weather", "input": "Rome"}),
        completed(),
        text="",
        calls=(("weather", {"input": "Rome"}),),
    ),
    openai(
        "reasoning only in the item",
        CREATED,
        item_done({"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm"}]}),
        item_done(ITEM, 1),
        completed(),
        reasoning="Hm",
    ),
    openai(
        "an unknown reason",
        CREATED,
        delta("Hello"),
        completed(
            kind="response.incomplete",
            status="incomplete",
            incomplete_details={"reason": "of_the_future"},
        ),
        finish="error",
    ),
    openai(
        "a cancelled answer",
        CREATED,
        delta("Hello"),
        completed(status="cancelled"),
        end="failed",
        error="cancelled",
    ),
    openai(
        "usage with a failure",
        CREATED,
        delta("Hello"),
        {
            "type": "response.failed",
            "response": {
                "status": "failed",
                "error": {"code": "server_error", "message": "it broke"},
                "usage": {"input_tokens": 3, "output_tokens": 7},
            },
        },
        end="failed",
        error="it broke",
        output=7,
    ),
    Row(
        "a whole answer for a stream",
        head(kind="application/json") + json.dumps(completed(ITEM)["response"]).encode(),
        provider="openai-responses",
    ),
]

ROWS = [*CHAT, *ANTHROPIC, *RESPONSES]


class _Raw(socketserver.StreamRequestHandler):
    def handle(self):
        size = 0
        while (line := self.rfile.readline()).strip():
            name, _, value = line.decode().partition(":")
            size = int(value) if name.lower() == "content-length" else size
        self.wfile.write(ROWS[int(json.loads(self.rfile.read(size))["model"])].body)


@pytest.fixture(scope="module")
def url():
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Raw) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


OPTIONS = {"api_key": "k", "recovery": ONCE, "timeouts": SHORT}


def sync_answer(url, row, model):
    with Client(base_url=url, **OPTIONS) as client:
        try:
            if not row.stream:
                return client.complete(model, "hi"), None
            stream = client.stream(model, "hi")
            list(stream)
        except UnbrokenError as error:
            return error.response, error
        return stream.response, None


def async_answer(url, row, model):
    async def ask():
        async with AsyncClient(base_url=url, **OPTIONS) as client:
            try:
                if not row.stream:
                    return await client.complete(model, "hi"), None
                stream = client.stream(model, "hi")
                async for _ in stream:
                    pass
            except UnbrokenError as error:
                return error.response, error
            return stream.response, None

    return asyncio.run(ask())


@pytest.mark.parametrize("answer", [sync_answer, async_answer])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.provider}: {row.name}")
def test_row(row, answer, url):
    response, error = answer(url, row, f"{row.provider}/{ROWS.index(row)}")

    assert response.text == row.text
    assert response.end == row.end
    assert [(c.name, c.arguments) for c in response.tool_calls] == list(row.calls)
    assert row.error in f"{error} {error.__cause__}" if row.error else error is None
    assert row.finish in ("", response.finish_reason)
    assert row.output in (0, response.usage and response.usage.output_tokens)
    assert response.reasoning == row.reasoning
    assert response.skipped_events == 0
