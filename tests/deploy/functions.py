"""Functions as people write them, for the tests of the runtime."""

import asyncio
import os
import time
from pathlib import Path

from unbroken import AsyncClient, Client
from unbroken.deploy.aws_lambda import Head, asgi
from unbroken.deploy.aws_websocket import WebSocketAnswers
from unbroken.server.gateway import Gateway
from unbroken.server.settings import Settings
from unbroken.stores import registry

SSE = Head(status=201, headers={"content-type": "text/event-stream"}, cookies=["a=1", "b=2"])


def value(event, context):
    return {
        "said": event.get("say"),
        "id": context.aws_request_id,
        "arn": context.invoked_function_arn,
        "name": context.function_name,
        "in_time": 0 < context.get_remaining_time_in_millis() <= 60_000,
        "trace": os.environ["_X_AMZN_TRACE_ID"],
    }


async def awaited(event, context):
    await asyncio.sleep(0)
    return event


def blocking(event, context):
    yield "one "
    _wait_for(event)
    yield "two"


async def waiting(event, context):
    yield "one "
    await asyncio.to_thread(_wait_for, event)
    yield "two"


def http(event, context):
    yield SSE
    yield b"data: 1\n\n"
    yield b""  # an empty chunk would be the end
    yield "data: ä\n\n"


def plain_http(event, context):
    yield "no head"


def raw(event, context):
    yield b"\x00\xff"


def silent(event, context):
    yield from ()


def early(event, context):
    raise ValueError("before the first piece")
    yield


def late(event, context):
    yield SSE if event.get("requestContext") else "a "
    yield "data: 1\n\n" if event.get("requestContext") else "b"
    raise ValueError("a secret")


def deltas(event, context):
    yield from ("one ", None, "two", None)


def wrong(event, context):
    """Yields what is no piece, first or after one that is."""
    kinds = {
        "dict": {"not": "a piece"},
        "surrogate": "\ud800",
        "number": 5,
        "head": Head(headers={"x": object()}),
    }
    if event["after"]:
        yield "half "
    yield kinds[event["kind"]]
    yield "never"


async def endless(event, context):
    yield SSE if event.get("requestContext") else "a"
    try:
        while True:
            yield "."
            await asyncio.sleep(0.05)
    finally:
        Path(event["closed"]).write_text("closed")


def stuck(event, context):
    yield "a"
    time.sleep(600)


async def never(event, context):
    await asyncio.sleep(600)
    yield "a"


async def bedrock(event, context):
    """What the guide shows: an answer of Bedrock's over a function URL."""
    yield Head(headers={"content-type": "text/plain; charset=utf-8"})
    async with AsyncClient() as client:
        async with client.stream(os.environ["MODEL"], event["body"]) as stream:
            async for text in stream.text:
                yield text


def bedrock_blocking(event, context):
    with Client() as client, client.stream(os.environ["MODEL"], event["say"]) as stream:
        yield from stream.text


gateway = asgi(
    Gateway(registry.open(os.environ.get("STORE", "memory:")), settings=Settings(simulator="open"))
)


async def _echo(scope, receive, send):
    body = (await receive())["body"]
    said = f"{scope['method']} {scope['path']}?{scope['query_string'].decode()} {body.decode()}"
    shown = dict(scope["headers"])
    headers = [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"vary", b"a"), (b"vary", b"b")]
    headers += [(b"content-type", b"text/plain"), (b"cookies", shown.get(b"cookie", b""))]
    await send({"type": "http.response.start", "status": 418, "headers": headers})
    await send({"type": "http.response.body", "body": said.encode(), "more_body": True})
    await send({"type": "http.response.body", "body": b"!"})


echo = asgi(_echo)


async def _breaking(scope, receive, send):
    raise ValueError("an app that breaks")


breaking = asgi(_breaking)


def _wait_for(event):
    while not Path(event["gate"]).exists():
        time.sleep(0.01)


socket = WebSocketAnswers(os.environ.get("MODEL"), max_tokens=99_999)
