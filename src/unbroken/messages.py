"""What goes in: messages, their parts, tools, and the whole request.

Plain dicts in the OpenAI chat shape are accepted wherever a `Message` is, because that is what
people have. They are read once, here, with errors that name the place; past this file there are
only values.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from unbroken.errors import LocalProtocolError
from unbroken.ready import ready
from unbroken.schema import Shape

Role = Literal["system", "user", "assistant", "tool"]


class Text(Struct, frozen=True, tag="text"):
    """Plain text."""

    text: str


class Image(Struct, frozen=True, tag="image"):
    """An image by URL; `data:image/png;base64,...` carries the bytes themselves."""

    url: str
    detail: str = ""


class ToolUse(Struct, frozen=True, tag="tool_use"):
    """A call the assistant made on an earlier turn; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str


class ToolResult(Struct, frozen=True, tag="tool_result"):
    """What the tool answered to call `id`. `is_error` is told to Anthropic's and Bedrock's models;
    others have only the words.
    """

    id: str
    content: str
    is_error: bool = False


class Reasoning(Struct, frozen=True, tag="reasoning"):
    """Reasoning of an earlier turn. It is only sent back where it is wanted: signed, by Anthropic's
    models, and with the tool calls that it led to, by DeepSeek.
    """

    text: str
    signature: str = ""


Part = Text | Image | ToolUse | ToolResult | Reasoning


@ready
class Message(Struct, frozen=True):
    """One turn."""

    role: Role
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """All text parts, joined."""
        return "".join(part.text for part in self.parts if type(part) is Text)


class Tool(Struct, frozen=True):
    """A function the model may call; `parameters` is its JSON schema."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    strict: bool | None = None


class ToolChoice(Struct, frozen=True):
    """`mode` is `auto`, `none`, `required`, or `tool` with the one tool's `name`."""

    mode: Literal["auto", "none", "required", "tool"]
    name: str = ""


@ready
class Request(Struct, frozen=True, kw_only=True):
    """One question. None means: leave it to the provider.

    `max_tokens` bounds the answer in tokens. `extra` goes into the request body untouched.
    """

    model: str
    messages: tuple[Message, ...]
    stream: bool = True
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] | None = None
    seed: int | None = None
    n: int | None = None
    tools: tuple[Tool, ...] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None
    extra: dict[str, Any] = {}
    include_usage: bool = True

    @property
    def system(self) -> str:
        """All system messages, joined by an empty line."""
        return "\n\n".join(m.text for m in self.messages if m.role == "system")

    @property
    def partial_turn(self) -> str:
        """The beginning of the answer that the request already holds, or an empty string."""
        last = self.messages[-1] if self.messages else None
        return last.text if last is not None and last.role == "assistant" else ""


# What every provider refuses. It stands beside the request and not in its types, so that a request
# that somebody wrote down before there were bounds can be read. -1 is vLLM's word for "all".


class _SoundTool(Struct):
    parameters: Shape


class _SoundSchema(Struct):
    schema: Shape | None = None


class _SoundFormat(Struct):
    type: str = ""
    json_schema: _SoundSchema | None = None
    schema: Shape | None = None


@ready
class _Sound(Struct):
    max_tokens: Annotated[int, Meta(ge=1)] | None
    temperature: Annotated[float, Meta(ge=0)] | None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None
    top_k: Annotated[int, Meta(ge=-1)] | None
    n: Annotated[int, Meta(ge=1, le=128)] | None  # OpenAI's bound: each is an answer to be written
    top_logprobs: Annotated[int, Meta(ge=-1)] | None
    tools: tuple[_SoundTool, ...] | None
    response_format: _SoundFormat | None


def sound(request: Request) -> Request:
    """The request itself. LocalProtocolError names what no provider takes: a number out of bounds,
    a JSON schema that is none.
    """
    try:
        msgspec.convert(request, _Sound, from_attributes=True)
    except msgspec.ValidationError as error:
        raise LocalProtocolError(worded(error)) from error
    return request


def worded(error: msgspec.ValidationError) -> str:
    """What msgspec says, with the place as people write it: `n`, not `$.n`."""
    return str(error).replace("`$.", "`").replace("`$[", "`[")


Prompt = str | Sequence[Message | Mapping[str, Any]] | Request
"""A string, messages, or a request that is complete but for its model."""


def messages_from(prompt: Prompt, system: str | None = None) -> tuple[Message, ...]:
    """Read a prompt: a string, or messages as values or dicts in the OpenAI chat shape.

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
    return (*head, *(_message(item, place) for place, item in enumerate(prompt)))


def _message(item: str | Message | Mapping[str, Any], place: int) -> Message:
    try:
        if isinstance(item, Message):
            msgspec.convert(msgspec.structs.asdict(item), Message)  # for those without mypy
            return item
        return message_from_chat(msgspec.convert(item, ChatMessage))
    except msgspec.ValidationError as error:
        raise LocalProtocolError(f"messages[{place}]: {worded(error)}") from error


# The OpenAI chat shape. The wire's codec for that dialect reads and writes the same structs.


class ChatFunctionCall(Struct, omit_defaults=True):
    name: str = ""
    arguments: str = ""


class ChatToolCall(Struct, omit_defaults=True):
    id: str = ""
    function: ChatFunctionCall = field(default_factory=ChatFunctionCall)
    type: str = UNSET  # type: ignore[assignment]  # always written, rarely needed


class ChatImageUrl(Struct, omit_defaults=True):
    url: str
    detail: str = ""


class ChatTextPart(Struct, tag="text"):
    text: str


class ChatRefusalPart(Struct, tag="refusal"):
    refusal: str


class ChatImagePart(Struct, tag="image_url"):
    image_url: ChatImageUrl


ChatPart = ChatTextPart | ChatRefusalPart | ChatImagePart


@ready
class ChatMessage(Struct, omit_defaults=True):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ChatPart] | UnsetType | None = UNSET
    tool_calls: list[ChatToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None


def message_from_chat(chat: ChatMessage) -> Message:
    """The value of a message in the OpenAI chat shape; msgspec.ValidationError if it is none."""
    if chat.role in ("tool", "function"):
        if not chat.tool_call_id:
            raise msgspec.ValidationError("a tool message needs `tool_call_id`")
        return Message("tool", (ToolResult(chat.tool_call_id, _plain(chat.content)),))
    parts: list[Part] = [Reasoning(chat.reasoning_content)] if chat.reasoning_content else []
    parts += [*_parts(chat.content), *_parts(chat.refusal)]
    parts += [ToolUse(c.id, c.function.name, c.function.arguments) for c in chat.tool_calls or ()]
    if not parts and not isinstance(chat.content, str):
        raise msgspec.ValidationError("a message needs `content` or `tool_calls`")
    role: Role = "system" if chat.role in ("system", "developer") else chat.role  # type: ignore[assignment]
    return Message(role, tuple(parts))


def _parts(content: str | list[ChatPart] | UnsetType | None) -> list[Part]:
    if isinstance(content, str):
        return [Text(content)] if content else []
    return [_part(part) for part in content] if isinstance(content, list) else []


def _part(part: ChatPart) -> Part:
    match part:
        case ChatTextPart(text=text):
            return Text(text)
        case ChatRefusalPart(refusal=text):
            return Text(text)
        case ChatImagePart(image_url=image):
            return Image(image.url, image.detail)


def _plain(content: str | list[ChatPart] | UnsetType | None) -> str:
    return "".join(part.text for part in _parts(content) if isinstance(part, Text))


def message_to_chat(message: Message) -> list[dict[str, Any]]:
    """The OpenAI chat shape of a message: one dict, or one for each tool result."""
    results = [part for part in message.parts if isinstance(part, ToolResult)]
    shaped: list[dict[str, Any]] = [
        {"role": "tool", "tool_call_id": r.id, "content": r.content} for r in results
    ]
    calls = [_call_to_chat(part) for part in message.parts if isinstance(part, ToolUse)]
    said = [part for part in message.parts if isinstance(part, Text | Image)]
    if said or calls or not results:
        shaped.append(
            {"role": message.role, "content": _content_to_chat(said, has_calls=bool(calls))}
        )
        if calls:
            shaped[-1]["tool_calls"] = calls
    return shaped


def _call_to_chat(call: ToolUse) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


def _content_to_chat(said: Sequence[Text | Image], *, has_calls: bool) -> Any:
    """A plain string wherever it can be one: older compatible servers know nothing else."""
    if all(isinstance(part, Text) for part in said):
        return "".join(part.text for part in said if isinstance(part, Text)) or (
            None if has_calls else ""
        )
    return [_said_to_chat(part) for part in said]


def _said_to_chat(part: Text | Image) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    image = {"url": part.url} | ({"detail": part.detail} if part.detail else {})
    return {"type": "image_url", "image_url": image}


# Tools and tool choices, likewise.


@ready
class _ToolWords(Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None


def tools_from(items: Iterable[Tool | Mapping[str, Any]]) -> tuple[Tool, ...]:
    """Read a list of tools. LocalProtocolError names the place and the fault."""
    if isinstance(items, str | bytes | Mapping) or not isinstance(items, Iterable):
        raise LocalProtocolError(f"tools is a list of tools, not {type(items).__name__}")
    return tuple(_tool(item, place) for place, item in enumerate(items))


def _tool(item: Tool | Mapping[str, Any], place: int) -> Tool:
    """A value, or a dict in the OpenAI shape, with or without its wrapping."""
    if isinstance(item, Tool):
        return item
    try:
        inner = item.get("function", item) if isinstance(item, Mapping) else item
        told = msgspec.convert(inner, _ToolWords)
    except msgspec.ValidationError as error:
        raise LocalProtocolError(
            f"tools[{place}]: {worded(error)}: a tool is {{'name': ..., 'parameters': {{...}}}}"
        ) from error
    schema = told.parameters or told.input_schema or {}
    return Tool(told.name, told.description or "", schema, told.strict)


def tool_choice_from(choice: ToolChoice | str | Mapping[str, Any] | None) -> ToolChoice | None:
    """Read a tool choice: `auto`, `none`, `required`, a tool's name, or the OpenAI dict."""
    if choice is None or isinstance(choice, ToolChoice):
        return choice
    if isinstance(choice, str):
        known = choice in ("auto", "none", "required")
        return ToolChoice(choice) if known else ToolChoice("tool", choice)  # type: ignore[arg-type]
    inner = choice.get("function", choice) if isinstance(choice, Mapping) else None
    name = inner.get("name") if isinstance(inner, Mapping) else None
    if not isinstance(name, str):
        raise LocalProtocolError(
            "tool_choice is 'auto', 'none', 'required', a tool's name, "
            "or {'type': 'function', 'function': {'name': ...}}"
        )
    return ToolChoice("tool", name)


def stop_from(stop: str | Iterable[str] | None) -> tuple[str, ...] | None:
    """Read where to stop: a string, or a list of them."""
    if stop is None or isinstance(stop, str):
        return None if stop is None else (stop,)
    words = tuple(stop) if isinstance(stop, Iterable) else (stop,)
    if not all(isinstance(word, str) for word in words):
        raise LocalProtocolError("stop is a string, or a list of strings")
    return words
