"""Turns as all dialects need them: where system messages stand, and JSON that was read before."""

import base64
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from unbroken.errors import LocalProtocolError
from unbroken.messages import (
    Message,
    Text,
    ToolChoice,
    ToolResult,
    ToolUse,
    tool_choice_from,
)
from unbroken.wire.error_body import UNREADABLE


def split_system(messages: Iterable[Message], dialect: str) -> tuple[list[Message], list[Message]]:
    """The system messages at the head, and the turns after them.

    A later system message keeps its place, since moving it would change the prefix that a provider
    has cached. It becomes a turn of the user, marked as the operator's, unless the JSON it was read
    from is of `dialect`. It never stands between a call and its result.
    """
    head: list[Message] = []
    rest: list[Message] = []
    late: list[Message] = []
    for message in messages:
        if message.role == "system" and not rest and not _in_place(message, dialect):
            head.append(message)
            continue
        if message.role == "system":
            note = message if _in_place(message, dialect) else _as_note(message)
            (late if _waits(rest) else rest).append(note)
            continue
        if late and not _answers(message):
            rest, late = [*rest, *late], []
        rest.append(message)
    return head, [*rest, *late]


def joined_head(head: list[Message], dialect: str) -> list[Message]:
    """The system messages at the head as one, for servers that take no more than one. Those that
    were read from `dialect` stay as they are.
    """
    if len(head) < 2 or any(message.native_of(dialect) is not None for message in head):
        return head
    return [Message("system", tuple(part for message in head for part in message.parts))]


def read_choice(choice: Any) -> ToolChoice | None:
    """Read a tool choice. A tool that the provider hosts is chosen by its type."""
    kind = choice.get("type") if isinstance(choice, dict) else None
    try:
        return tool_choice_from(choice)
    except LocalProtocolError:
        if not isinstance(kind, str) or kind == "function":
            raise
        return ToolChoice("tool", kind)


def check_choice(choice: ToolChoice | None, names: Iterable[str]) -> None:
    """Raise LocalProtocolError where the tool that must be called is not there to be called."""
    if choice is not None and choice.mode == "tool" and choice.name not in set(names):
        raise LocalProtocolError(f"tool_choice: this provider has no tool {choice.name!r}")


def _in_place(message: Message, dialect: str) -> bool:
    native = message.native_of(dialect)
    return isinstance(native, dict) and "role" in native


def _as_note(message: Message) -> Message:
    """A system message as a turn of the user. The tags are marks; they add no words."""
    text = "\n".join(part.text for part in message.parts if isinstance(part, Text))
    return Message("user", (Text(f"<system>\n{text}\n</system>"),))


def _waits(messages: list[Message]) -> bool:
    """Whether the newest turn calls a tool."""
    return bool(messages) and any(isinstance(part, ToolUse) for part in messages[-1].parts)


def _answers(message: Message) -> bool:
    return any(isinstance(part, ToolResult) for part in message.parts)


def settings(
    native: Mapping[str, Any] | None, ours: dict[str, Any], before: dict[str, Any]
) -> dict[str, Any]:
    """The fields of a body: as they were read, and ours where they have changed since.

    `before` is what `ours` would be, had nothing changed.
    """
    if native is None:
        return ours
    body = dict(native)
    for name in ours.keys() | before.keys():
        if name not in ours:
            body.pop(name, None)
        elif ours[name] != before.get(name):
            body[name] = ours[name]
    return body


def with_extra(body: dict[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """The body, and what the caller put beside it. LocalProtocolError for what we write."""
    for name in extra.keys() & body.keys() & PROTECTED:
        raise LocalProtocolError(
            f"extra can't replace {name!r}, which is written from the request itself"
        )
    return {**body, **extra}


PROTECTED = frozenset(
    {
        "messages",
        "input",
        "instructions",
        "system",
        "model",
        "stream",
        "stream_options",
        "n",
        "max_tokens",
        "max_completion_tokens",
        "max_output_tokens",
        "tools",
    }
)
"""Fields that decide what is asked, of whom, and how the answer comes."""


def arguments_object(arguments: str) -> Any:
    """The arguments of a call as an object; LocalProtocolError if they are none."""
    try:
        return msgspec.json.decode(arguments or "{}", type=dict[str, Any])
    except UNREADABLE as error:
        raise LocalProtocolError(
            f"the arguments of a tool call are no JSON object: {error}"
        ) from error


def data_url(url: str, what: str) -> tuple[str, str]:
    """Media type and base64 of a `data:` URL. LocalProtocolError for any other address."""
    head, mark, data = url.partition(",")
    if not head.startswith("data:") or not mark:
        raise LocalProtocolError(f"this provider takes {what} as data:...;base64,..., not by URL")
    kind = head[5:].removesuffix(";base64")
    if not head.endswith(";base64"):
        data = base64.b64encode(data.encode()).decode()
    return kind, data
