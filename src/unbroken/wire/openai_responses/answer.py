"""What is read of the Responses API: items, their parts, the response object, events."""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from unbroken.events import BlockKind, Usage
from unbroken.ready import ready


class _InputDetails(Struct, gc=False):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _OutputDetails(Struct, gc=False):
    reasoning_tokens: int | None = None


class ResponsesUsage(Struct, gc=False):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


class Piece(Struct, gc=False):
    type: str = ""
    text: str | None = None
    refusal: str | None = None
    annotations: list[Raw] | None = None


@ready
class Item(Struct, gc=False):
    """Arguments are a string with function calls, and an object with some hosted tools."""

    type: str = ""
    id: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: Any = None
    input: Any = None
    content: list[Piece] | None = None
    summary: list[Piece] | None = None
    encrypted_content: str | None = None


class _Incomplete(Struct, gc=False):
    reason: str | None = None


@ready
class Answer(Struct, gc=False):
    id: str | None = None
    model: str | None = None
    status: str | None = None
    background: bool | None = None
    output: list[dict[str, Any]] | None = None
    usage: ResponsesUsage | None = None
    incomplete_details: _Incomplete | None = None
    error: Any = None


class WireEvent(Struct, gc=False):
    type: str = ""
    sequence_number: int | None = None
    output_index: int = 0
    content_index: int = 0
    summary_index: int = 0
    delta: str | None = None
    text: str | None = None
    refusal: str | None = None
    arguments: str | None = None
    input: str | None = None
    annotation: Raw = Raw(b"null")
    item: dict[str, Any] | None = None
    part: Piece | None = None
    response: Answer | None = None
    error: Any = None


decode_event = msgspec.json.Decoder(WireEvent).decode
_encode = msgspec.json.Encoder().encode

KINDS: dict[str, BlockKind] = {
    "message": "text",
    "reasoning": "reasoning",
    "function_call": "tool_call",
    "custom_tool_call": "tool_call",
}
"""Items that are modelled. Calls of hosted tools are none of the caller's."""


def arguments_of(item: Item) -> str:
    """The arguments or the input of a call as text."""
    value = item.input if item.type == "custom_tool_call" else item.arguments
    return value if isinstance(value, str) else _encode(value).decode() if value else ""


def usage_from(wire: ResponsesUsage) -> Usage | None:
    """The usage, or None if no token is counted. Cached tokens are within the input, reasoning
    within the output.
    """
    before, after = wire.input_tokens_details, wire.output_tokens_details
    if not wire.input_tokens and not wire.output_tokens:
        return None
    return Usage(
        input_tokens=wire.input_tokens or 0,
        output_tokens=wire.output_tokens or 0,
        cached_input_tokens=(before and before.cached_tokens) or 0,
        cache_write_tokens=(before and before.cache_write_tokens) or 0,
        reasoning_tokens=(after and after.reasoning_tokens) or 0,
    )
