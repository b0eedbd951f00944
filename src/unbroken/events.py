"""What a stream says: a closed, tagged union of small frozen values.

Every dialect decodes to these and encodes from these. A stream is one `MessageStart`, content in
any order, one `ChoiceEnd` per choice, and one `MessageEnd`. Only `MessageEnd` proves that an
answer is complete; what ends without it was cut.

The notices at the end of the file come from the engine, not from a provider: they tell what was
done to keep the answer whole.
"""

from typing import Literal

from msgspec import Struct

from unbroken.ready import ready

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "error"]
"""Why a model stopped. The provider's own word stands beside it as `raw`."""


@ready
class Usage(Struct, frozen=True, gc=False, kw_only=True):
    """Tokens of one answer.

    `input_tokens` counts the whole prompt, cached tokens included; `cached_input_tokens` and
    `cache_write_tokens` are parts of it. `output_tokens` includes `reasoning_tokens`.
    `source` says where the numbers come from: `reported` by the provider at the end of the
    answer, `partial` (reported before the end), or `estimated`.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    source: Literal["reported", "partial", "estimated"] = "reported"


class _Event(Struct, frozen=True, gc=False, tag_field="type", tag=True):
    """Base of all events; `type` is the tag when an event is written as JSON."""


class MessageStart(_Event, frozen=True, tag="message_start"):
    """The provider accepted the request. Carries no content."""

    id: str = ""
    model: str = ""


class TextDelta(_Event, frozen=True, tag="text_delta"):
    """More visible text of one choice."""

    text: str
    choice: int = 0


class ReasoningDelta(_Event, frozen=True, tag="reasoning_delta"):
    """More of the model's reasoning. `signature` proves it to the provider on a later turn."""

    text: str
    choice: int = 0
    signature: str = ""


class RefusalDelta(_Event, frozen=True, tag="refusal_delta"):
    """More of a refusal that the provider sends apart from the text."""

    text: str
    choice: int = 0


class ToolCallStart(_Event, frozen=True, tag="tool_call_start"):
    """A tool call begins. `index` numbers the calls of one choice from 0, in order of arrival."""

    index: int
    id: str
    name: str
    choice: int = 0


class ToolCallDelta(_Event, frozen=True, tag="tool_call_delta"):
    """A fragment of the JSON arguments of call `index`."""

    index: int
    arguments: str
    choice: int = 0


class Citation(_Event, frozen=True, tag="citation"):
    """A source that the provider names for its text; `data` is the provider's own JSON."""

    data: str
    choice: int = 0


class TokenLogprob(Struct, frozen=True, gc=False, omit_defaults=True):
    """How likely a token was, as a natural logarithm; `top` are the likeliest in its place.

    `bytes` is there for tokens that are no whole characters.
    """

    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None
    top: tuple["TokenLogprob", ...] = ()


class Logprobs(_Event, frozen=True, tag="logprobs"):
    """How likely the tokens of the latest text were, or of the latest refusal. Only on request."""

    tokens: tuple[TokenLogprob, ...]
    choice: int = 0
    refusal: bool = False


class OtherEvent(_Event, frozen=True, tag="other"):
    """Something this version has no word for, kept rather than lost: server tools, new blocks.

    `data` is the provider's JSON as it stands in a stream of its `dialect`, which can therefore
    write it back; an answer in one piece is told in the same shape. Where `dialect` is empty,
    nobody writes it.
    """

    name: str
    data: str
    choice: int = 0
    dialect: str = ""


class UsageReport(_Event, frozen=True, tag="usage"):
    """Tokens so far. Cumulative: a later report replaces an earlier one."""

    usage: Usage


class ChoiceEnd(_Event, frozen=True, tag="choice_end"):
    """One choice has its finish reason; usage and the end of the message may still follow."""

    finish_reason: FinishReason
    raw: str = ""
    choice: int = 0


class MessageEnd(_Event, frozen=True, tag="message_end"):
    """The answer is complete.

    `early` marks an answer whose finish reason arrived but whose last frame never did: the
    content is whole, the usage may be missing.
    """

    finish_reason: FinishReason
    usage: Usage | None = None
    raw: str = ""
    early: bool = False


class Retrying(_Event, frozen=True, tag="retrying"):
    """An attempt failed; another one starts after `delay` seconds."""

    attempt: int
    delay: float
    reason: str


class Resumed(_Event, frozen=True, tag="resumed"):
    """A cut answer goes on where it was. `how` is `resume`, `continue` or `replay`."""

    attempt: int
    how: str
    reason: str


class Restarted(_Event, frozen=True, tag="restarted"):
    """What was delivered no longer holds: forget it, the answer begins again."""

    attempt: int
    reason: str


class FellBack(_Event, frozen=True, tag="fell_back"):
    """Another model answers from here."""

    attempt: int
    model: str
    reason: str


Notice = Retrying | Resumed | Restarted | FellBack

Delta = TextDelta | ReasoningDelta | RefusalDelta | ToolCallStart | ToolCallDelta | Citation
"""Events that add to an answer: they, and nothing else, re-arm the content clock."""

Event = Delta | MessageStart | Logprobs | OtherEvent | UsageReport | ChoiceEnd | MessageEnd | Notice

CONTENT: frozenset[type] = frozenset(
    {
        TextDelta,
        ReasoningDelta,
        RefusalDelta,
        ToolCallStart,
        ToolCallDelta,
        Citation,
    }
)

__all__ = [
    "CONTENT",
    "ChoiceEnd",
    "Citation",
    "Delta",
    "Event",
    "FellBack",
    "FinishReason",
    "Logprobs",
    "MessageEnd",
    "MessageStart",
    "Notice",
    "OtherEvent",
    "ReasoningDelta",
    "RefusalDelta",
    "Restarted",
    "Resumed",
    "Retrying",
    "TextDelta",
    "TokenLogprob",
    "ToolCallDelta",
    "ToolCallStart",
    "Usage",
    "UsageReport",
]
