"""The request of chat completions, both ways
(platform.openai.com/docs/api-reference/chat/create).

`Variant` holds what compatible servers disagree about.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec import Struct

from unbroken.errors import BadRequest, LocalProtocolError
from unbroken.messages import (
    CHAT,
    RESPONSES,
    Message,
    Native,
    Reasoning,
    Request,
    Tool,
    ToolChoice,
    ToolUse,
    chat,
    stop_from,
    tools_from,
    validate,
)
from unbroken.messages.worded import read_each
from unbroken.ready import ready
from unbroken.wire.error_body import UNREADABLE
from unbroken.wire.fields.openai_chat import TABLE
from unbroken.wire.losses import omitted, refuse_lost
from unbroken.wire.tool_names import as_function, flatten
from unbroken.wire.turns import (
    check_choice,
    joined_head,
    read_choice,
    settings,
    split_system,
    with_extra,
)

_SAME_NAME = (
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "n",
    "parallel_tool_calls",
    "response_format",
    "reasoning_effort",
    "frequency_penalty",
    "presence_penalty",
    "logprobs",
    "top_logprobs",
    "user",
    "metadata",
)
"""Our names that are the wire's names too. `max_tokens`, tools and the stream's options are not in
this list: they need a second look.
"""

_LIMITS = ("max_completion_tokens", "max_tokens")
_APART = frozenset({"model", "messages", "tools", "stream"})
"""Fields that a request's native does not hold: they are values, with natives of their own."""


class Variant(Struct, frozen=True):
    """What compatible servers disagree about.

    `max_tokens` is the wire's name of that parameter: OpenAI's newer models refuse the old one,
    most other servers know nothing else. `unknown` are words that this server has no parameter
    for; `renamed` gives those fields it has by another name, "" if it refuses them. `usage_option`:
    whether usage has to be asked for. When the request begins the answer, `prefix_message` is added
    to its last message and `prefix_body` to the body. `thoughts_with_calls`: a turn that called
    tools is refused without what led to it. `parts`: whether several texts of a message stay apart.
    `late_system`: whether a system message may stand among the turns. `custom_tools`: whether there
    are tools that take free text. `user_limit` bounds `user`, in characters.
    """

    max_tokens: str = "max_tokens"
    implied_finish: bool = False
    unknown: frozenset[str] = frozenset({"top_k"})
    renamed: dict[str, str] = {}
    usage_option: bool = True
    prefix_message: dict[str, Any] = {}
    prefix_body: dict[str, Any] = {}
    thoughts_with_calls: bool = False
    parts: bool = True
    late_system: bool = False
    custom_tools: bool = False
    user_limit: int = 64

    def omitted(self, request: Request) -> tuple[str, ...]:
        """The paths of what `encode_request` leaves out."""
        native = request.native_of(CHAT) or {}
        dropped = (n for n, other in self.renamed.items() if not other and n in native)
        return (*omitted(request, TABLE, self.unknown), *dropped)

    def encode_request(self, request: Request) -> bytes:
        """The body of POST /chat/completions; LocalProtocolError names what can't be expressed."""
        refuse_lost(request, TABLE, "this provider's API", self.unknown)
        native = request.native_of(CHAT)
        before = {} if native is None else _settings(_read(native, ()), self, native)
        body = settings(native, _settings(request, self, native or {}), before)
        body = {self.renamed.get(name, name): value for name, value in body.items()}
        body.pop("", None)
        body |= {"model": request.model, "messages": _messages(request, self)}
        if request.tools is not None:
            body |= _tools(request, self)
        if request.partial_turn:
            body["messages"][-1] = body["messages"][-1] | self.prefix_message
            body |= self.prefix_body
        return _encode(with_extra(body | _streaming(request, self, native or {}), request.extra))


_encode = msgspec.json.Encoder().encode


# Outwards


def _settings(request: Request, variant: Variant, native: dict[str, Any]) -> dict[str, Any]:
    """Our parameters under the wire's names. The limit has the name by which it was given."""
    lacks = variant.unknown
    body = {
        name: value
        for name in _SAME_NAME
        if (value := getattr(request, name)) is not None and name not in lacks
    }
    if request.user is not None and "user" in body and "user" not in native:
        body["user"] = request.user[: variant.user_limit]
    if request.max_tokens is not None:
        limit = next((name for name in _LIMITS if name in native), variant.max_tokens)
        body[limit] = request.max_tokens
    if request.stop:
        body["stop"] = list(request.stop)
    if request.tool_choice is not None:
        body["tool_choice"] = _tool_choice(request.tool_choice)
    return body | _shared(request)


_SHARED = (
    "store",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "service_tier",
    "moderation",
)
"""Fields that OpenAI's two dialects have by the same name, and no other."""


def _shared(request: Request) -> dict[str, Any]:
    """What a client of the Responses API says by the same names, and `verbosity`."""
    native = request.native_of(RESPONSES) or {}
    body = {name: native[name] for name in _SHARED if name in native}
    text = native.get("text")
    verbosity = text.get("verbosity") if isinstance(text, dict) else None
    return body if verbosity is None else {**body, "verbosity": verbosity}


def _messages(request: Request, variant: Variant) -> list[dict[str, Any]]:
    turns: Iterable[Message] = request.messages
    if not variant.late_system:
        head, rest = split_system(turns, CHAT)
        turns = [*joined_head(head, CHAT), *rest]
    return [shaped for message in turns for shaped in _message(message, variant)]


def _message(message: Message, variant: Variant) -> list[dict[str, Any]]:
    native = message.native_of(CHAT)
    if native is None:
        shaped = chat.write_message(_plain(message, variant), parts=variant.parts)
    else:
        shaped = [dict(native)]
    if variant.thoughts_with_calls and shaped[-1].get("tool_calls"):
        shaped[-1].setdefault("reasoning_content", _thoughts(message))
    return shaped


def _plain(message: Message, variant: Variant) -> Message:
    """The message with calls of custom tools as calls of functions, where there are no others."""
    if variant.custom_tools or not any(getattr(part, "custom", False) for part in message.parts):
        return message
    parts = (as_function(p) if isinstance(p, ToolUse) else p for p in message.parts)
    return msgspec.structs.replace(message, parts=tuple(parts))


def _thoughts(message: Message) -> str:
    return "".join(part.text for part in message.parts if isinstance(part, Reasoning))


def _flattened(tools: Iterable[Tool], variant: Variant) -> Iterator[Tool]:
    for tool in tools:
        if tool.native_of(CHAT) is not None:
            yield tool
        else:
            yield from flatten((tool,), custom=variant.custom_tools)


def _tools(request: Request, variant: Variant) -> dict[str, Any]:
    tools = [_tool(tool) for tool in _flattened(request.tools or (), variant)]
    if request.native_of(CHAT) is None:
        check_choice(request.tool_choice, (t[t["type"]]["name"] for t in tools if "type" in t))
    if request.tools and not tools:
        raise LocalProtocolError("none of the tools can be used at this provider")
    return {"tools": tools}


def _tool(tool: Tool) -> dict[str, Any]:
    native: dict[str, Any] | None = tool.native_of(CHAT)
    if native is not None:
        return native
    described = {"description": tool.description} if tool.description else {}
    if tool.kind == "custom":
        form = {} if tool.format is None else {"format": _custom_format(tool.format)}
        return {"type": "custom", "custom": {"name": tool.name, **described, **form}}
    function: dict[str, Any] = {"name": tool.name, **described, "parameters": tool.parameters}
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _custom_format(form: dict[str, Any]) -> dict[str, Any]:
    """Chat completions wrap the grammar that the Responses API writes flat."""
    if form.get("type") != "grammar" or "grammar" in form:
        return form
    inner = {name: value for name, value in form.items() if name != "type"}
    return {"type": "grammar", "grammar": inner}


def _tool_choice(choice: ToolChoice) -> Any:
    if choice.mode == "tool":
        return {"type": "function", "function": {"name": choice.name}}
    return choice.mode


def _streaming(request: Request, variant: Variant, native: dict[str, Any]) -> dict[str, Any]:
    if not request.stream:
        return {}
    options = native.get("stream_options") or {}
    if request.include_usage and variant.usage_option:
        options = {**options, "include_usage": True}
    return {"stream": True, **({"stream_options": options} if options else {})}


# Inwards


class _StreamOptions(Struct):
    include_usage: bool | None = None


@ready
class _Body(Struct):
    """What is read of a body; all else travels in the request's native."""

    model: str
    messages: list[dict[str, Any]] | None = None
    input: Any = None
    stream: bool | None = None
    tools: list[dict[str, Any]] | None = None


@ready
class _Settings(Struct):
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    n: int | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None


def decode_request(body: bytes, *, usage: bool) -> Request:
    """The request in a body; BadRequest says what is wrong with it. With `usage`, usage comes
    without being asked for.
    """
    try:
        fields = msgspec.json.decode(body, type=dict[str, Any])
        return _request(fields, usage=usage)
    except (*UNREADABLE, LocalProtocolError) as error:
        raise BadRequest(str(error), status=400, code="invalid_request") from error


def _request(fields: dict[str, Any], *, usage: bool) -> Request:
    asked = msgspec.convert(fields, _Body)
    if asked.messages is None:
        raise LocalProtocolError(_NO_MESSAGES[asked.input is None])
    native = {name: value for name, value in fields.items() if name not in _APART}
    read = _read(native, read_each(chat.read_message, asked.messages, "messages"))
    request = msgspec.structs.replace(
        read,
        model=asked.model,
        stream=bool(asked.stream),
        include_usage=usage or read.include_usage,
        tools=None if asked.tools is None else tools_from(asked.tools, CHAT),
        native=Native(CHAT, native),
    )
    return validate(request)


_NO_MESSAGES = (
    "`messages` is missing: a body with `input` belongs to POST /v1/responses",
    "Object missing required field `messages`",
)


def _read(native: dict[str, Any], messages: tuple[Message, ...]) -> Request:
    """A request with the parameters that stand in these fields."""
    asked = msgspec.convert(native, _Settings)
    limit = asked.max_completion_tokens
    options = asked.stream_options or _StreamOptions()
    return Request(
        model="",
        messages=messages,
        include_usage=bool(options.include_usage),
        max_tokens=asked.max_tokens if limit is None else limit,
        stop=stop_from(asked.stop),
        tool_choice=read_choice(asked.tool_choice),
        **{name: getattr(asked, name) for name in _SAME_NAME},
    )
