"""The events of a stream: a closed, tagged union of small frozen values.

Every dialect decodes to these and encodes from these. A stream is one `MessageStart`, content in
any order, one `ChoiceEnd` per choice, and one `MessageEnd`. Only `MessageEnd` proves that an
answer is complete; a stream that ends without it was cut.

Content stands in blocks, whose order is part of the answer. `BlockStart` and `BlockEnd` mark them
where the dialect does. Elsewhere, and in logs of earlier versions, a block begins where the kind
of content changes. Deltas carry no block: text and reasoning belong to the open block of their
kind, fragments of a tool call to the call with their index.

The notices at the end of the file come from the engine, not from a provider: they report what was
done to keep the answer whole.
"""

from typing import Literal

from msgspec import Struct

from unbroken.ready import ready

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "error"]
"""Why a model stopped. The provider's own word stands beside it as `raw`."""

BlockKind = Literal["text", "reasoning", "refusal", "tool_call", "other"]
"""The kinds of content blocks. `other`: this version does not model it."""


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


class BlockStart(_Event, frozen=True, tag="block_start"):
    """A content block begins. `index` numbers the blocks of one choice within one attempt.

    The `ToolCallStart` after a block of kind `tool_call` belongs to it.
    """

    index: int
    kind: BlockKind
    choice: int = 0


class BlockEnd(_Event, frozen=True, tag="block_end"):
    """Block `index` is whole.

    `native` is its JSON in `dialect`, ready to be sent back. Instead of what came as deltas it
    holds the marks of `unbroken.native`.
    """

    index: int
    native: str = ""
    dialect: str = ""
    choice: int = 0


class TurnNative(_Event, frozen=True, tag="turn_native"):
    """The whole turn as JSON of a dialect that has no blocks, with the same marks."""

    native: str
    dialect: str
    choice: int = 0


class TextDelta(_Event, frozen=True, tag="text_delta"):
    """More visible text of one choice."""

    text: str
    choice: int = 0


class ReasoningDelta(_Event, frozen=True, tag="reasoning_delta"):
    """More of the model's reasoning.

    `signature` proves it to the provider on a later turn; `encrypted` is reasoning that only the
    provider can read.
    """

    text: str
    choice: int = 0
    signature: str = ""
    encrypted: str = ""


class RefusalDelta(_Event, frozen=True, tag="refusal_delta"):
    """More of a refusal that the provider sends apart from the text."""

    text: str
    choice: int = 0


class ToolCallStart(_Event, frozen=True, tag="tool_call_start"):
    """A tool call begins. `index` numbers the calls of one choice from 0, in order of arrival.

    The input of a `custom` tool is free text, not JSON.
    """

    index: int
    id: str
    name: str
    choice: int = 0
    custom: bool = False


class ToolCallDelta(_Event, frozen=True, tag="tool_call_delta"):
    """A fragment of the arguments of call `index`: JSON, or the text for a custom tool."""

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
    """Something this version does not model, kept rather than lost: server tools, new blocks.

    `data` is the provider's JSON as it stands in a stream of its `dialect`, so that it can be
    written back; whole answers use the same shape. It is written nowhere if `dialect` is empty.
    """

    name: str
    data: str
    choice: int = 0
    dialect: str = ""


class UsageReport(_Event, frozen=True, tag="usage"):
    """Tokens so far. Cumulative: a later report replaces an earlier one."""

    usage: Usage


class ChoiceEnd(_Event, frozen=True, tag="choice_end"):
    """One choice has its finish reason; usage and the end of the message may still follow.

    Where `known` is false, `raw` is a word that is in no table of this version, and `finish_reason`
    is `error`.
    """

    finish_reason: FinishReason
    raw: str = ""
    choice: int = 0
    known: bool = True


class MessageEnd(_Event, frozen=True, tag="message_end"):
    """The answer is complete.

    `early` marks an answer whose finish reason arrived but whose last frame never did: the
    content is whole, the usage may be missing. `known` is that of the first `ChoiceEnd`.
    """

    finish_reason: FinishReason
    usage: Usage | None = None
    raw: str = ""
    early: bool = False
    known: bool = True


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

Boundary = BlockStart | BlockEnd | TurnNative
"""Events that say how content is divided. They are no content themselves."""

Event = (
    Delta
    | Boundary
    | MessageStart
    | Logprobs
    | OtherEvent
    | UsageReport
    | ChoiceEnd
    | MessageEnd
    | Notice
)

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
    "BlockEnd",
    "BlockKind",
    "BlockStart",
    "Boundary",
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
    "TurnNative",
    "Usage",
    "UsageReport",
]
