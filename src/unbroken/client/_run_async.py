"""A run with tools for callers that await. Its twin is `_run_sync.py`: change both, in the same
order.
"""

from collections.abc import AsyncGenerator, Callable
from typing import Any

from unbroken.client._plan import Models
from unbroken.client.tool_loop import ToolLoop, invoke, settle
from unbroken.events import Event
from unbroken.messages import Message, ToolUse
from unbroken.response import Response


class AsyncRun:
    """Turns of the model and calls of tools, until an answer calls none. Iterate over it for the
    events of every turn.

    It stops at `max_turns`, and at a call of a tool that is no Python function. `response` is the
    latest answer; `messages` is the conversation so far, from which a run can go on.
    """

    def __init__(
        self, ask: Callable[..., Any], model: Models, loop: ToolLoop, parameters: dict[str, Any]
    ) -> None:
        self._ask, self._model, self._loop, self._parameters = ask, model, loop, parameters
        self.response = Response()

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation so far."""
        return tuple(self._loop.messages)

    @property
    def pending(self) -> tuple[ToolUse, ...]:
        """The calls that have no result yet."""
        return self._loop.pending

    async def __aiter__(self) -> AsyncGenerator[Event, None]:
        """Every event of every turn."""
        loop = self._loop
        await self._call()
        while loop.goes_on:
            given = {**self._parameters, "tools": loop.tools}
            async with self._ask(self._model, loop.messages, **given) as stream:
                async for event in stream:
                    yield event
            self.response = stream.response
            loop.answered(stream.response)
            await self._call()

    async def finish(self) -> Response:
        """Run to the end, and return the last answer."""
        async for _ in self:
            pass
        return self.response

    async def _call(self) -> None:
        """Run the calls that have no result, in their order. What a tool raises is its result."""
        for use, function in self._loop.runnable():
            try:
                value = await settle(invoke(use, function))
            except Exception as error:  # noqa: BLE001  # the model is told, and may try again
                self._loop.add(use, f"{type(error).__name__}: {error}", failed=True)
            else:
                self._loop.add(use, value)
