"""The turns of a run with tools: which calls wait for a result, and what is asked next.

Values in, values out. What has been asked and answered is in `messages` at any time, so that a run
that was cut between two turns goes on from there: calls that have a result are not run again.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from unbroken.errors import LocalProtocolError
from unbroken.messages import (
    Message,
    Prompt,
    Tool,
    ToolLike,
    ToolResult,
    ToolUse,
    messages_from,
    tools_from,
)
from unbroken.messages.functions import call
from unbroken.response import Response


class ToolLoop:
    """The messages of a run, the functions by their names, and the number of turns so far."""

    def __init__(self, prompt: Prompt, tools: Iterable[ToolLike], max_turns: int) -> None:
        if max_turns < 1:
            raise LocalProtocolError("max_turns is a number from 1 up")
        given = list(tools)
        self.messages = list(messages_from(prompt))
        self.tools: Sequence[Tool] = tools_from(given)
        pairs = zip(self.tools, given, strict=True)
        self._functions = {
            tool.name: one for tool, one in pairs if not isinstance(one, Tool | Mapping)
        }
        self._left = max_turns

    @property
    def pending(self) -> tuple[ToolUse, ...]:
        """The calls of the latest turn that have no result yet."""
        parts = [part for message in _newest(self.messages) for part in message.parts]
        results = {part.id for part in parts if isinstance(part, ToolResult)}
        return tuple(p for p in parts if isinstance(p, ToolUse) and p.id not in results)

    @property
    def goes_on(self) -> bool:
        """Whether the model is to be asked: all calls have results, and turns are left."""
        waits = bool(self.messages) and self.messages[-1].role != "assistant"
        return self._left > 0 and waits and not self.pending

    def runnable(self) -> list[tuple[ToolUse, Callable[..., Any]]]:
        """The pending calls with their functions; none if one of them has no function."""
        found = [(use, self._functions.get(use.name)) for use in self.pending]
        return [] if any(f is None for _, f in found) else found  # type: ignore[return-value]

    def answered(self, response: Response) -> None:
        """Take the model's turn. Only a complete answer has calls that may be run."""
        self._left -= 1
        if response.end == "complete" and response.message.parts:
            self.messages.append(response.message)

    def add(self, use: ToolUse, value: Any, *, failed: bool = False) -> None:
        """Take the result of a call."""
        content = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        result = value if isinstance(value, ToolResult) else ToolResult(use.id, content, failed)
        self.messages.append(Message("tool", (result,)))


def invoke(use: ToolUse, function: Callable[..., Any]) -> Any:
    """Call the function with the arguments of a call; ValidationError if they do not fit."""
    arguments = msgspec.json.decode(use.arguments or "{}", type=dict[str, Any])
    return call(function, arguments)


def _newest(messages: Sequence[Message]) -> list[Message]:
    """The latest turn of the model, and what came after it."""
    for at in range(len(messages) - 1, -1, -1):
        if messages[at].role == "assistant":
            return list(messages[at:])
    return []


async def settle(value: Any) -> Any:
    """What a function returned, awaited where it is a coroutine."""
    return await value if inspect.isawaitable(value) else value


def settled(value: Any) -> Any:
    """What a function returned. LocalProtocolError for a coroutine, which nothing here awaits."""
    if inspect.isawaitable(value):
        raise LocalProtocolError("this tool is a coroutine: use AsyncClient.run")
    return value
