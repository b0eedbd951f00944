"""The folded answer: what a stream's events add up to, and what each attempt cost.

A `Response` is a value. It exists from the first event on and is frozen each time it is asked
for, so that an error can carry exactly what had arrived.
"""

from collections.abc import Callable
from typing import Any, Literal

import msgspec
from msgspec import Struct

from unbroken.events import FinishReason, OtherEvent, TokenLogprob, Usage
from unbroken.partial import partial_json, partial_object
from unbroken.parts import Message, Part, Reasoning, Refusal, Text, ToolUse

End = Literal["complete", "truncated", "cancelled", "failed"]
"""How an answer ended. `complete`: the dialect's own terminal arrived, with any known reason.
`truncated`: the stream ended cleanly but without it. `cancelled`: the caller stopped.
`failed`: the provider or the connection to it failed."""


class ToolCall(Struct, frozen=True):
    """A complete call: `arguments` is the parsed JSON object.

    A `custom` tool takes free text, which stands alone in `arguments` as `input`.
    """

    id: str
    name: str
    arguments: dict[str, Any]
    custom: bool = False

    @property
    def partial(self) -> dict[str, Any]:
        """All of the arguments, under the name that a growing call has for them."""
        return self.arguments


class GrowingToolCall(ToolCall, frozen=True):
    """A call of an answer that is still coming: to be shown, not to be executed.

    It has no `arguments` before the answer is complete; `partial` is what there is of them.
    """

    text: str = ""

    @property
    def partial(self) -> dict[str, Any]:
        """The arguments as far as they have come. Their last string or list may still grow."""
        return {"input": self.text} if self.custom else partial_object(self.text)

    @property  # type: ignore[misc]  # it hides the field on purpose
    def arguments(self) -> dict[str, Any]:
        """Raise AttributeError: arguments are not available until the call is complete."""
        raise AttributeError(
            f"the arguments of call {self.name!r} are still coming: they can be used when "
            f"response.end is 'complete'; until then look at `partial`"
        )


class PartialToolCall(Struct, frozen=True):
    """A call that never became complete: `arguments` is the text that arrived.

    It stands apart from `tool_calls` so that it can't be executed by accident.
    """

    id: str
    name: str
    arguments: str
    custom: bool = False

    @property
    def partial(self) -> dict[str, Any]:
        """What can be read of the arguments."""
        return {"input": self.arguments} if self.custom else partial_object(self.arguments)


class Other(Struct, frozen=True):
    """Something of the answer that we have no word for; `at` characters of text came before it."""

    event: OtherEvent
    at: int = 0


class ChoiceLogprobs(Struct, frozen=True):
    """How likely the tokens of the text and of the refusal were."""

    text: tuple[TokenLogprob, ...] = ()
    refusal: tuple[TokenLogprob, ...] = ()


class Choice(Struct, frozen=True):
    """One of the `n` answers to a request. `finish_reason` is None until it arrives.

    `logprobs` is None unless they were asked for. `others` is what came besides, in order.
    `message` is the assistant's turn: see `Response.message`.
    """

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
    logprobs: ChoiceLogprobs | None = None
    others: tuple[Other, ...] = ()
    message: Message | None = None

    @property
    def turn(self) -> Message:
        """The `message`; made of the other fields where there is none."""
        return _turn_of(self) if self.message is None else self.message


def _turn_of(choice: Choice) -> Message:
    """The turn of a choice that was not accumulated from a stream."""
    parts: list[Part] = []
    if choice.reasoning or choice.reasoning_signature:
        parts.append(Reasoning(choice.reasoning, choice.reasoning_signature))
    parts += [Text(choice.text)] if choice.text else []
    parts += [Refusal(choice.refusal)] if choice.refusal else []
    for call in choice.tool_calls:
        text = call.arguments["input"] if call.custom else _encode(call.arguments).decode()
        parts.append(ToolUse(call.id, call.name, text, call.custom))
    return Message("assistant", tuple(parts))


_encode = msgspec.json.Encoder().encode

Quote = Callable[[str, str, Usage], float | None]
"""Provider, model and usage in, price in USD out; None where the price is not known."""


def unpriced(_provider: str, _model: str, _usage: Usage) -> float | None:
    """Return None: the price is not known."""
    return None


How = Literal["start", "resume", "continue", "replay", "prompt", "restart"]
"""What an attempt did: ask, go on with a cut answer in one of four ways, or begin it again."""


class Attempt(Struct, frozen=True):
    """One try at an answer.

    `delay` is the wait before it and `duration` its length, in seconds; `error` is the
    `UnbrokenError` that ended it, or None; `usage` is what the provider reported of it; `url` is
    what was asked.
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
    url: str = ""

    @property
    def cost(self) -> float | None:
        """The price of `usage` in USD; None when usage or price is unknown."""
        return None if self.usage is None else self.quote(self.provider, self.model, self.usage)


Reads = Callable[[Any], Any]
"""Makes an object of a complete Response."""


class Response(Struct, frozen=True, kw_only=True):
    """One answer as far as it has come.

    `provider` and `model` are those that answer, or answered last. `end` is None while it is
    still coming. `usage` is what all attempts together used, None when no provider reported any;
    its `source` is `partial` when one of them did not tell all. `skipped_events` counts malformed
    events that were passed over. `omitted` are the JSON paths of what the question held and the
    provider's `dialect` has no word for; `headers` are those of the provider's answer. `reads`
    makes an object of a complete answer.
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
    omitted: tuple[str, ...] = ()
    dialect: str = ""
    headers: dict[str, str] = {}
    running: Attempt | None = None
    reads: Reads | None = None

    @property
    def partial(self) -> Any:
        """The visible text, read as JSON as far as it has come; None where nothing can be read."""
        return partial_json(self.text)

    @property
    def parsed(self) -> Any:
        """The answer as the object that `response_format` asked for; None if it asked for none.

        Raises OutputMismatch where the answer is not complete or does not fit.
        """
        return None if self.reads is None else self.reads(self)

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
    def message(self) -> Message:
        """The assistant's turn, ready to be sent back: `messages.append(response.message)`.

        It holds the blocks of the first choice in their order, with what their dialect says of
        them. A call that is not complete is no part of it.
        """
        return self.choices[0].turn

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
        """The calls of the first choice: complete ones, and only of a complete answer.

        While the answer is still coming, they are there to be looked at: see GrowingToolCall.
        """
        first = self.choices[0]
        if self.end is not None or not first.partial_tool_calls:
            return first.tool_calls
        growing = (
            GrowingToolCall(call.id, call.name, {}, call.custom, call.arguments)
            for call in first.partial_tool_calls
        )
        return (*first.tool_calls, *growing)

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
    "ChoiceLogprobs",
    "End",
    "GrowingToolCall",
    "How",
    "Other",
    "PartialToolCall",
    "Quote",
    "Reads",
    "Response",
    "ToolCall",
    "unpriced",
]
