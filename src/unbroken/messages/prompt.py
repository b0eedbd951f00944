"""What a caller asks with, read as messages."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from unbroken.errors import LocalProtocolError
from unbroken.messages.anthropic import is_block, read_message
from unbroken.messages.chat import read_message as read_chat
from unbroken.messages.request import Request
from unbroken.messages.worded import format_error
from unbroken.parts import Message, Text, ToolResult

MessageLike = Message | ToolResult | Mapping[str, Any]
"""A message, the result of a tool, or a dict in OpenAI's or Anthropic's shape."""

Prompt = str | Sequence[MessageLike] | Request
"""A string, messages, or a request that is complete but for its model."""


def messages_from(prompt: Prompt, system: str | None = None) -> tuple[Message, ...]:
    """Read a prompt: a string, or messages as values or dicts in OpenAI's or Anthropic's shape.

    Raises LocalProtocolError naming the place and the fault.
    """
    if not isinstance(system, str | None):
        raise LocalProtocolError(f"system is a string, not {type(system).__name__}")
    head = (Message("system", (Text(system),)),) if system else ()
    if isinstance(prompt, str):
        return (*head, Message("user", (Text(prompt),)))
    if isinstance(prompt, Request):
        return (*head, *prompt.messages)
    if isinstance(prompt, Mapping | bytes) or not isinstance(prompt, Sequence):
        raise LocalProtocolError(
            f"a prompt is a string or a list of messages, not {type(prompt).__name__}"
        )
    if not prompt:
        raise LocalProtocolError("the list of messages is empty")
    items: Sequence[Any] = prompt
    return (*head, *(_message(item, place) for place, item in enumerate(items)))


def _message(item: MessageLike, place: int) -> Message:
    try:
        if isinstance(item, ToolResult):
            return Message("tool", (item,))
        if isinstance(item, Message):
            msgspec.convert(msgspec.structs.asdict(item), Message)  # for those without mypy
            return item
        return message_from(item)
    except msgspec.ValidationError as error:
        raise LocalProtocolError(f"messages[{place}]: {format_error(error)}") from error


def message_from(item: Mapping[str, Any]) -> Message:
    """The message in a dict; msgspec.ValidationError if it is none."""
    if not isinstance(item, Mapping):
        raise msgspec.ValidationError(f"expected a message, got {type(item).__name__}")
    content = item.get("content")
    blocks = [b for b in content if isinstance(b, Mapping)] if isinstance(content, list) else []
    if any(is_block(block) for block in blocks) and not item.keys() - {"role", "content"}:
        return read_message(item)
    return read_chat(item)
