"""`unbroken.stream(...)` and `unbroken.complete(...)`: one line, over a client that all share."""

from functools import cache
from typing import Unpack

from unbroken.client._plan import Parameters
from unbroken.client._sync import Client, Stream
from unbroken.messages import Prompt
from unbroken.response import Response


@cache
def _client() -> Client:
    return Client()


def stream(model: str | None, prompt: Prompt, **parameters: Unpack[Parameters]) -> Stream:
    """`Client.stream` over the shared client."""
    return _client().stream(model, prompt, **parameters)


def complete(model: str | None, prompt: Prompt, **parameters: Unpack[Parameters]) -> Response:
    """`Client.complete` over the shared client."""
    return _client().complete(model, prompt, **parameters)
