"""Functions for Lambda: an answer streamed over HTTP, the whole gateway, and a WebSocket."""

import json
import os
from collections.abc import AsyncGenerator
from typing import Any

from unbroken import AsyncClient
from unbroken.deploy.aws_lambda import Context, Head, asgi
from unbroken.deploy.aws_websocket import WebSocketAnswers
from unbroken.server.gateway import Gateway
from unbroken.stores import registry

MODEL = os.environ.get("MODEL", "bedrock/us.anthropic.claude-haiku-4-5-20251001-v1:0")
TEXT = Head(headers={"content-type": "text/plain; charset=utf-8"})


async def chat(event: dict[str, Any], _context: Context) -> AsyncGenerator[Head | str, None]:
    """Answers POST {"message": "..."}, of a function URL or a REST API, as the answer comes."""
    asked = json.loads(event["body"])
    yield TEXT
    async with AsyncClient() as client, client.stream(MODEL, asked["message"]) as stream:
        async for text in stream.text:
            yield text


gateway = asgi(Gateway(registry.open(os.environ.get("STORE", "memory:"))))
"""Everything `unbroken serve` answers. With STORE=rediss://... an answer outlives its invocation:
the marks at a deadline send a client back, and the next invocation goes on.
"""

socket = WebSocketAnswers(MODEL, system="Answer in a few sentences.", max_tokens=1000)
"""The three routes of a WebSocket API."""
