"""Tools of one dialect as functions of another, and the way back.

The Responses API groups functions in namespaces and has custom tools, whose input is free text.
Other dialects have functions only: a function of a namespace gets a flat name, a custom tool one
parameter that holds the text. A writer that answers a client of the first kind turns a call of such
a function back, by `origins`.
"""

from collections.abc import Iterable, Iterator
from hashlib import sha256

import msgspec
from msgspec import Struct

from unbroken.messages import Request, Tool, ToolUse

MAX_NAME = 64
"""Characters in a function's name at OpenAI and Anthropic."""

FREE_TEXT = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}
"""The parameters of a function that stands for a custom tool."""


class Origin(Struct, frozen=True):
    """What a function stands for: a tool of a namespace, a custom tool, or both."""

    name: str
    namespace: str = ""
    custom: bool = False


def flat_name(namespace: str, name: str) -> str:
    """The name of a function of a namespace where there are none; a long one ends in a digest."""
    joined = f"{namespace.rstrip('_')}__{name}" if namespace else name
    if len(joined) <= MAX_NAME:
        return joined
    digest = sha256(joined.encode()).hexdigest()[:8]
    return f"{joined[: MAX_NAME - 9]}_{digest}"


def flatten(tools: Iterable[Tool], *, custom: bool = False) -> Iterator[Tool]:
    """The tools as functions, hosted ones left out. With `custom`, custom tools stay."""
    for tool in tools:
        if tool.kind == "namespace":
            for inner in flatten(tool.tools, custom=custom):
                yield msgspec.structs.replace(
                    inner, name=flat_name(tool.name, inner.name), native=None
                )
        elif tool.kind == "custom" and not custom:
            yield Tool(tool.name, tool.description, FREE_TEXT, cache=tool.cache)
        elif tool.kind != "hosted":
            yield tool


def as_function(call: ToolUse) -> ToolUse:
    """A call of a custom tool as a call of the function that stands for it."""
    if not call.custom:
        return call
    arguments = msgspec.json.encode({"input": call.arguments}).decode()
    return msgspec.structs.replace(call, arguments=arguments, custom=False)


def origins(request: Request) -> dict[str, Origin]:
    """What the functions that a provider may call stand for in the caller's request."""
    return dict(_origins(request.tools or (), ""))


def _origins(tools: Iterable[Tool], namespace: str) -> Iterator[tuple[str, Origin]]:
    for tool in tools:
        if tool.kind == "namespace":
            yield from _origins(tool.tools, tool.name)
        elif namespace or tool.kind == "custom":
            origin = Origin(tool.name, namespace, tool.kind == "custom")
            yield flat_name(namespace, tool.name), origin
