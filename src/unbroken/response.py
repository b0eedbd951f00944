"""The folded answer: what a stream's events add up to, and what each attempt cost.

A `Response` is a value. It exists from the first event on and is frozen each time it is asked
for, so that an error can carry exactly what had arrived.
"""

from collections.abc import Callable
from typing import Any, Literal

from msgspec import Struct

from unbroken.events import FinishReason, Usage

End = Literal["complete", "truncated", "cancelled", "failed"]
"""How an answer ended. `complete`: the dialect's own terminal arrived, whatever it said.
`truncated`: the stream ended cleanly but without it. `cancelled`: the caller stopped.
`failed`: the provider or the road to it broke."""


class ToolCall(Struct, frozen=True):
    """A complete call: `arguments` is the parsed JSON object."""

    id: str
    name: str
    arguments: dict[str, Any]


class PartialToolCall(Struct, frozen=True):
    """A call that never became complete: `arguments` is the text that arrived.

    It stands apart from `tool_calls` so that it can't be executed by accident.
    """

    id: str
    name: str
    arguments: str


class Choice(Struct, frozen=True):
    """One of the `n` answers to a request. `finish_reason` is None until it arrives."""

    index: int = 0
    text: str = ""
    reasoning: str = ""
    reasoning_signature: str = ""
    refusal: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    partial_tool_calls: tuple[PartialToolCall, ...] = ()
    citations: tuple[str, ...] = ()
    finish_reason: FinishReason | None = None
    raw_finish_reason: str = ""


Quote = Callable[[str, str, Usage], float | None]
"""Provider, model and usage in, price in USD out; None where the price is not known."""


def unpriced(_provider: str, _model: str, _usage: Usage) -> float | None:
    """For answers that cost nothing, or nobody knows what."""
    return None


How = Literal["start", "resume", "continue", "replay"]
"""What an attempt did: ask, or go on with a cut answer in one of three ways."""


class Attempt(Struct, frozen=True):
    """One try at an answer.

    `delay` is the wait before it and `duration` its length, in seconds; `error` is the
    `UnbrokenError` that ended it, or None; `usage` is what the provider reported of it.
    """

    provider: str
    model: str
    delay: float = 0.0
    duration: float = 0.0
    status: int | None = None
    request_id: str = ""
    error: Exception | None = None
    usage: Usage | None = None
    how: How = "start"
    quote: Quote = unpriced

    @property
    def cost(self) -> float | None:
        """The price of `usage` in USD; None when usage or price is unknown."""
        return None if self.usage is None else self.quote(self.provider, self.model, self.usage)


class Response(Struct, frozen=True, kw_only=True):
    """One answer as far as it has come.

    `provider` and `model` are those that answer, or answered last. `end` is None while it is
    still coming. `usage` is what all attempts together used, None when no provider reported any;
    its `source` is `partial` when one of them did not tell all. `skipped_events` counts malformed
    events that were passed over.
    """

    id: str = ""
    provider: str = ""
    model: str = ""
    end: End | None = None
    choices: tuple[Choice, ...] = (Choice(),)
    usage: Usage | None = None
    attempts: tuple[Attempt, ...] = ()
    skipped_events: int = 0
    request_id: str = ""
    running: Attempt | None = None

    @property
    def text(self) -> str:
        """The visible text of the first choice."""
        return self.choices[0].text

    @property
    def reasoning(self) -> str:
        """The reasoning of the first choice, where the provider shows it."""
        return self.choices[0].reasoning

    @property
    def refusal(self) -> str:
        """The refusal of the first choice, where the provider sends one."""
        return self.choices[0].refusal

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the first choice stopped; None if that never arrived."""
        return self.choices[0].finish_reason

    @property
    def raw_finish_reason(self) -> str:
        """The provider's own word for `finish_reason`."""
        return self.choices[0].raw_finish_reason

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The complete calls of the first choice."""
        return self.choices[0].tool_calls

    @property
    def partial_tool_calls(self) -> tuple[PartialToolCall, ...]:
        """The calls of the first choice that are not complete."""
        return self.choices[0].partial_tool_calls

    @property
    def cost(self) -> float | None:
        """The price of what the attempts used, in USD; None when the price of one is unknown."""
        tried = self.attempts if self.running is None else (*self.attempts, self.running)
        costs = [attempt.cost for attempt in tried if attempt.usage is not None]
        known = [cost for cost in costs if cost is not None]
        return sum(known) if costs and len(known) == len(costs) else None


__all__ = [
    "Attempt",
    "Choice",
    "End",
    "How",
    "PartialToolCall",
    "Quote",
    "Response",
    "ToolCall",
    "unpriced",
]
