"""What a conversation remembers, and what of it fits into a budget of tokens. Values in, values
out: nothing here asks anybody.

A turn is what one message of the user began: it, the answers, and the results of the tools. Turns
are forgotten whole and oldest first, so that a call and its result go together; the system message
and the newest turn stay. What they take is an estimate, four bytes of text a token, until a
provider has reported what a prompt really took: from then on the sum is exact for that prompt.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from unbroken.errors import ContextTooLong, LocalProtocolError
from unbroken.events import Usage
from unbroken.messages import (
    Audio,
    Document,
    Image,
    Message,
    Native,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolResult,
    ToolUse,
    messages_from,
)
from unbroken.response import Response

Count = Callable[[str], int]
"""How many tokens a text is, by somebody's tokenizer."""

Said = Message | Mapping[str, Any]
"""A message, or a dict in the OpenAI chat shape."""

_BYTES_PER_TOKEN = 4  # the usual rule for English; in bytes it is near for other scripts too
_PER_MESSAGE = 4  # tokens around each message, in OpenAI's own counting guide
_PER_IMAGE = 1000


def estimate(text: str) -> int:
    """About how many tokens a text is: its bytes in UTF-8, divided by four, rounded up."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return -(-size // _BYTES_PER_TOKEN)


class Turn(Struct, frozen=True):
    """A message of the user and all that came of it; `tokens` is what that takes."""

    messages: tuple[Message, ...]
    tokens: int


class History(Struct, frozen=True, kw_only=True):
    """A conversation so far.

    `beside` are tokens that providers reported and that no message accounts for: tools, templates,
    and what the estimates are wrong by. It is None until one has. `forgotten` counts messages.
    """

    system: Message | None = None
    turns: tuple[Turn, ...] = ()
    budget: int | None = None
    count: Count = estimate
    beside: int | None = None
    forgotten: int = 0

    @property
    def messages(self) -> tuple[Message, ...]:
        """All messages that are kept, as they are sent."""
        head = () if self.system is None else (self.system,)
        return (*head, *(message for turn in self.turns for message in turn.messages))

    @property
    def tokens(self) -> int:
        """What the messages take: as reported where that is known, else by estimate."""
        return self._fixed + sum(turn.tokens for turn in self.turns)

    @property
    def missing(self) -> dict[str, str]:
        """The calls that have no result yet: their names by their ids."""
        parts = [p for turn in self.turns[-1:] for m in turn.messages for p in m.parts]
        results = {part.id for part in parts if isinstance(part, ToolResult)}
        uses = (part for part in parts if isinstance(part, ToolUse))
        return {use.id: use.name for use in uses if use.id not in results}

    def instructed(self, system: str | None) -> "History":
        """With another system message, or without one."""
        message = Message("system", (Text(system),)) if system else None
        return msgspec.structs.replace(self, system=message)

    def forgetting(self) -> "History":
        """Only the system message is left."""
        return msgspec.structs.replace(self, turns=(), beside=None, forgotten=0)

    def plus(self, said: Said | ToolResult) -> "History":
        """With one more message. A message of the user begins a turn; a system message replaces
        the one there is. Raises LocalProtocolError for a result that no call asked for, and where
        a call still waits for one.
        """
        message = _message(said)
        if message.role == "system":
            return msgspec.structs.replace(self, system=message)
        self._check_results(message)
        if message.role != "tool":
            self._check_calls()
        new = Turn((message,), self._weight(message))
        if message.role == "user" or not self.turns:
            return msgspec.structs.replace(self, turns=(*self.turns, new))
        last = self.turns[-1]
        grown = Turn((*last.messages, message), last.tokens + new.tokens)
        return msgspec.structs.replace(self, turns=(*self.turns[:-1], grown))

    def asking(self) -> "History":
        """What is sent now: the newest turns that fit. Raises LocalProtocolError where there is
        nothing to answer, ContextTooLong where the newest turn alone is too much.
        """
        self._check_question()
        if self.budget is None:
            return self
        first, left = len(self.turns) - 1, self.budget - self._fixed - self.turns[-1].tokens
        if left < 0:
            raise _too_long(self.budget - left, self.budget)
        while first and self.turns[first - 1].tokens <= left:
            first -= 1
            left -= self.turns[first].tokens
        gone = sum(len(turn.messages) for turn in self.turns[:first])
        return msgspec.structs.replace(
            self, turns=self.turns[first:], forgotten=self.forgotten + gone
        )

    def answered(self, response: Response, *, keep_partial: bool = False) -> "History | None":
        """With the answer to what was sent; None where it left nothing that can be kept.

        That is an answer that said nothing at all, and one that was cut or cancelled: of that the
        text stays if `keep_partial`, but never a call.
        """
        whole = response.end == "complete"
        answer = _turn(response) if whole else Message("assistant", tuple(_text(response)))
        if not _says_something(answer) or not (whole or keep_partial):
            return None
        usage = _reported(response) if whole else None
        if usage is None:
            return self.plus(answer)
        measured = self._measured(usage.input_tokens)
        last, took = measured.turns[-1], usage.output_tokens - usage.reasoning_tokens
        grown = Turn((*last.messages, answer), last.tokens + took)
        return msgspec.structs.replace(measured, turns=(*measured.turns[:-1], grown))

    @property
    def _fixed(self) -> int:
        """What is sent with every question."""
        return (0 if self.system is None else self._weight(self.system)) + (self.beside or 0)

    def _measured(self, took: int) -> "History":
        """With the sum that a provider reported for these messages.

        What the sum so far was wrong by belongs to the newest turn, the only one that had not been
        measured; at the first report also tools and the system message count in it.
        """
        off = took - self.tokens
        if self.beside is None:
            return msgspec.structs.replace(self, beside=off)
        last = self.turns[-1]
        more = max(off, -last.tokens)
        turns = (*self.turns[:-1], Turn(last.messages, last.tokens + more))
        return msgspec.structs.replace(self, turns=turns, beside=self.beside + off - more)

    def _weight(self, message: Message) -> int:
        return _PER_MESSAGE + sum(self._part(part) for part in message.parts)

    def _part(self, part: Part) -> int:
        match part:
            case Image() | Document(text="") | Audio():
                return _PER_IMAGE
            case ToolUse(name=name, arguments=arguments):
                return self.count(name) + self.count(arguments)
            case ToolResult(parts=parts):
                return sum(map(self._part, parts))
            case Native(data=data):
                return self.count(msgspec.json.encode(data).decode())
            case Text(text=text) | Reasoning(text=text) | Refusal(text=text) | Document(text=text):
                return self.count(text)

    def _check_results(self, message: Message) -> None:
        missing = self.missing
        for part in message.parts:
            if isinstance(part, ToolResult) and part.id not in missing:
                waiting = ", ".join(map(repr, missing)) or "none"
                raise LocalProtocolError(
                    f"no call {part.id!r} waits for a result; waiting: {waiting}"
                )

    def _check_calls(self) -> None:
        for id, name in self.missing.items():
            raise LocalProtocolError(
                f"call {id!r} of {name!r} has no result: add(ToolResult({id!r}, ...)) first"
            )

    def _check_question(self) -> None:
        self._check_calls()
        if not self.turns or self.turns[-1].messages[-1].role == "assistant":
            raise LocalProtocolError("there is nothing to answer: give a prompt, or add a message")


def _message(said: Said | ToolResult) -> Message:
    if isinstance(said, ToolResult):
        return Message("tool", (said,))
    return messages_from([said])[0]


def _turn(response: Response) -> Message:
    """A whole answer. Of its reasoning only that stays which some provider wants back: signed one,
    and that behind tool calls.
    """
    called, turn = bool(response.tool_calls), response.message
    parts = (
        part
        for part in turn.parts
        if called or not isinstance(part, Reasoning) or part.signature or part.encrypted
    )
    return msgspec.structs.replace(turn, parts=tuple(parts))


def _says_something(message: Message) -> bool:
    """Whether a turn holds more than reasoning and white space, which providers refuse."""
    said = [part for part in message.parts if not isinstance(part, Reasoning)]
    return any(not isinstance(part, Text | Refusal) or part.text.strip() for part in said)


def _text(response: Response) -> Iterator[Text]:
    said = response.text or response.refusal
    if said.strip():  # providers refuse messages that say nothing
        yield Text(said)


def _reported(response: Response) -> Usage | None:
    """What the provider reported of this prompt and this answer alone: of several attempts, or of
    several choices, the numbers are of more than what is kept.
    """
    alone = len(response.attempts) == 1 and len(response.choices) == 1
    usage = response.usage
    return usage if usage is not None and alone and usage.source == "reported" else None


def _too_long(needed: int, budget: int) -> ContextTooLong:
    error = ContextTooLong(f"the newest turn needs about {needed} tokens, the budget is {budget}")
    error.advice = "Shorten it, or raise the budget."
    return error
