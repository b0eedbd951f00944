"""The question: messages, their parts, tools, and the whole request.

Plain dicts in OpenAI's or Anthropic's shape are accepted wherever a `Message` is. They are read
once, here, with errors that name the place; past this package there are only values.
"""

from unbroken.messages.prompt import MessageLike, Prompt, message_from, messages_from
from unbroken.messages.request import Request, stop_from, validate
from unbroken.messages.tools import Tool, ToolChoice, ToolLike, tool_choice_from, tools_from
from unbroken.messages.worded import format_error
from unbroken.parts import (
    CHAT,
    CONVERSE,
    GEMINI,
    MESSAGES,
    RESPONSES,
    Audio,
    Document,
    Image,
    Message,
    Native,
    Part,
    Reasoning,
    Refusal,
    ResultPart,
    Role,
    Text,
    ToolResult,
    ToolUse,
    join_text,
)

__all__ = [
    "CHAT",
    "CONVERSE",
    "GEMINI",
    "MESSAGES",
    "RESPONSES",
    "Audio",
    "Document",
    "Image",
    "Message",
    "MessageLike",
    "Native",
    "Part",
    "Prompt",
    "Reasoning",
    "Refusal",
    "Request",
    "ResultPart",
    "Role",
    "Text",
    "Tool",
    "ToolChoice",
    "ToolLike",
    "ToolResult",
    "ToolUse",
    "format_error",
    "join_text",
    "message_from",
    "messages_from",
    "stop_from",
    "tool_choice_from",
    "tools_from",
    "validate",
]
