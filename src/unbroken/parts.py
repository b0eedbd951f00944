"""The turns of a conversation: messages, their typed parts, and the JSON they were read from.

A message that was read from the JSON of a dialect keeps it as its `native`. To a provider of that
dialect it is sent verbatim; for all others it is written from its parts.
"""

from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import force_setattr

from unbroken.ready import ready

Role = Literal["system", "user", "assistant", "tool"]

CHAT = "openai_chat"
RESPONSES = "openai-responses"
MESSAGES = "anthropic_messages"
CONVERSE = "bedrock"
GEMINI = "gemini"
"""The names of the dialects, as they stand in natives and in logs."""


class Native(Struct, frozen=True, tag="native"):
    """JSON of one dialect, as it was read.

    As a part it is a block that has no counterpart here: it travels within its dialect, and other
    dialects refuse it by name. `headers` are those of a request that travel with it.
    """

    dialect: str
    data: Any
    headers: dict[str, str] = {}

    @property
    def kind(self) -> str:
        """The block's type in its own dialect."""
        data = self.data if isinstance(self.data, dict) else {}
        return str(data.get("type") or next(iter(data), "?"))


class Text(Struct, frozen=True, tag="text", omit_defaults=True):
    """Plain text.

    `cache`, on every part that has it, ends a prefix that the provider should keep: the time to
    live, "5m" or "1h". Empty: no breakpoint.
    """

    text: str
    cache: str = ""


class Image(Struct, frozen=True, tag="image", omit_defaults=True):
    """An image by URL (`data:image/png;base64,...` carries the bytes), or by the provider's id of
    a file that was uploaded.
    """

    url: str = ""
    detail: str = ""
    cache: str = ""
    file_id: str = ""


class Document(Struct, frozen=True, tag="document", omit_defaults=True):
    """A document: by URL (`data:application/pdf;base64,...` carries the bytes), by the provider's
    id of an uploaded file, or as plain `text`.
    """

    url: str = ""
    name: str = ""
    cache: str = ""
    file_id: str = ""
    text: str = ""


class Audio(Struct, frozen=True, tag="audio", omit_defaults=True):
    """Recorded speech or sound, as `data:audio/wav;base64,...`."""

    url: str
    cache: str = ""


class ToolUse(Struct, frozen=True, tag="tool_use", omit_defaults=True):
    """A call that the assistant made on an earlier turn.

    `arguments` is JSON text; with `custom` it is the free text of a custom tool.
    """

    id: str
    name: str
    arguments: str
    custom: bool = False
    cache: str = ""


@ready
class Reasoning(Struct, frozen=True, tag="reasoning", omit_defaults=True):
    """Reasoning of an earlier turn.

    `signature` proves the text to the provider that made it; `encrypted` holds reasoning that only
    that provider can read. `dialect` is the dialect in which they came: they mean nothing to
    providers of other families.
    """

    text: str = ""
    signature: str = ""
    encrypted: str = ""
    dialect: str = ""


class Refusal(Struct, frozen=True, tag="refusal"):
    """What the model said when it refused to answer."""

    text: str


class ToolResult(Struct, frozen=True, tag="tool_result", omit_defaults=True):
    """The result of call `id`: a text, or a list of parts.

    `is_error` reaches models whose dialect has a word for it. `custom` marks the result of a
    custom tool.
    """

    id: str
    content: "str | tuple[Text | Image | Document | Audio | Native, ...]"
    is_error: bool = False
    custom: bool = False
    cache: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.content, list):
            force_setattr(self, "content", tuple(self.content))

    @property
    def parts(self) -> "tuple[Text | Image | Document | Audio | Native, ...]":
        """The content as parts, whichever way it was given."""
        return (Text(self.content),) if isinstance(self.content, str) else self.content

    @property
    def text(self) -> str:
        """All text in it, a line for each part."""
        return join_text(self.parts)


ResultPart = Text | Image | Document | Audio | Native
Part = Text | Image | Document | Audio | ToolUse | ToolResult | Reasoning | Refusal | Native


def join_text(parts: "tuple[Part, ...] | list[Part] | tuple[ResultPart, ...]") -> str:
    """The texts among the parts, joined by line ends where a dialect has no parts."""
    return "\n".join(part.text for part in parts if isinstance(part, Text))


@ready
class Message(Struct, frozen=True):
    """One turn.

    `native` is the JSON it was read from: a message object, or, in the Responses dialect, the list
    of the items that make up the turn.
    """

    role: Role
    parts: tuple[Part, ...]
    native: Native | None = None

    @property
    def text(self) -> str:
        """All text parts, joined."""
        return "".join(part.text for part in self.parts if type(part) is Text)

    def native_of(self, dialect: str) -> Any:
        """The JSON of this message in `dialect`, or None if it was read from another."""
        found = self.native
        return found.data if found is not None and found.dialect == dialect else None
