"""A request to Anthropic messages, both ways (platform.claude.com: messages).

Turns must alternate and tool results belong to the user's turn, so messages are merged on the way
out and taken apart on the way in. What the dialect can't express is refused by name.
"""

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from unbroken.errors import BadRequest, LocalProtocolError
from unbroken.messages import (
    Image,
    Message,
    Part,
    Reasoning,
    Request,
    Text,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
    sound,
)
from unbroken.ready import ready
from unbroken.wire.anthropic_messages.schema import supported
from unbroken.wire.error_body import UNREADABLE

_encode = msgspec.json.Encoder().encode

_SAME_NAME = ("temperature", "top_p", "top_k")
_INEXPRESSIBLE = (
    "n",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "logprobs",
    "top_logprobs",
)
_CHOICES = {"auto": "auto", "none": "none", "required": "any", "tool": "tool"}
_MODES = {wire: ours for ours, wire in _CHOICES.items()}


# Outwards


def body_of(request: Request, max_tokens: int) -> bytes:
    """The body of POST /v1/messages; `max_tokens` stands in where the request has none."""
    _refuse_inexpressible(request)
    body: dict[str, Any] = {
        "model": request.model,
        "max_tokens": request.max_tokens or max_tokens,
        "messages": _turns(m for m in request.messages if m.role != "system"),
    }
    if request.system:
        body["system"] = request.system
    if request.stop is not None:
        body["stop_sequences"] = list(request.stop)
    for name in _SAME_NAME:
        if getattr(request, name) is not None:
            body[name] = getattr(request, name)
    return _encode(body | _tools(request) | _output(request) | _rest(request) | request.extra)


def _refuse_inexpressible(request: Request) -> None:
    for name in _INEXPRESSIBLE:
        value = getattr(request, name)
        if value is None or (name == "n" and value == 1):
            continue
        raise LocalProtocolError(
            f"Anthropic's messages API has no parameter for {name}={value!r}: leave it out, "
            f"or pass Anthropic's own parameter in `extra`"
        )


# Messages, outwards


def _turns(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Turns of user and assistant in alternation; neighbours of one role become one turn."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = "assistant" if message.role == "assistant" else "user"
        blocks = [block for part in message.parts for block in _block(part)]
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    return turns


def _block(part: Part) -> list[dict[str, Any]]:
    match part:
        case Text(text=text):
            return [{"type": "text", "text": text}] if text else []  # empty ones are refused
        case Image(url=url):
            return [{"type": "image", "source": _image_source(url)}]
        case ToolUse(id=id, name=name, arguments=arguments):
            return [{"type": "tool_use", "id": id, "name": name, "input": _input(arguments)}]
        case ToolResult(id=id, content=content, is_error=is_error):
            failed = {"is_error": True} if is_error else {}
            return [{"type": "tool_result", "tool_use_id": id, "content": content, **failed}]
        case Reasoning(text=text, signature=signature):
            thought = {"type": "thinking", "thinking": text, "signature": signature}
            return [thought] if signature else []  # unsigned thoughts are refused


def _image_source(url: str) -> dict[str, str]:
    if not url.startswith("data:"):
        return {"type": "url", "url": url}
    head, _, data = url[5:].partition(",")
    return {"type": "base64", "media_type": head.removesuffix(";base64"), "data": data}


def _input(arguments: str) -> Any:
    try:
        return msgspec.json.decode(arguments or "{}", type=dict[str, Any])
    except UNREADABLE as error:
        raise LocalProtocolError(f"a tool call's arguments are no JSON object: {error}") from error


# Parameters, outwards


def _tools(request: Request) -> dict[str, Any]:
    wire: dict[str, Any] = {}
    if request.tools is not None:
        wire["tools"] = [_tool(tool) for tool in request.tools]
    choice = request.tool_choice
    alone = request.parallel_tool_calls is False
    if choice is not None or (alone and request.tools):  # refused without tools
        mode = choice or ToolChoice("auto")
        named = {"name": mode.name} if mode.mode == "tool" else {}
        single = {"disable_parallel_tool_use": True} if alone and mode.mode != "none" else {}
        wire["tool_choice"] = {"type": _CHOICES[mode.mode], **named, **single}
    return wire


def _tool(tool: Tool) -> dict[str, Any]:
    described = {"description": tool.description} if tool.description else {}
    strict = {} if tool.strict is None else {"strict": tool.strict}
    schema = tool.parameters or {"type": "object", "properties": {}}
    return {"name": tool.name, **described, **strict, "input_schema": schema}


def _output(request: Request) -> dict[str, Any]:
    """`output_config`: the answer's format and the model's effort. No beta header is needed."""
    config: dict[str, Any] = {}
    if request.reasoning_effort is not None:
        config["effort"] = request.reasoning_effort
    if request.response_format not in (None, {"type": "text"}):  # text is what it says anyway
        config["format"] = _format(request.response_format)
    return {"output_config": config} if config else {}


def _format(wanted: dict[str, Any] | None) -> dict[str, Any]:
    wanted = wanted or {}
    if wanted.get("type") != "json_schema":
        raise LocalProtocolError(
            f"Anthropic's messages API has no response_format {wanted.get('type')!r}: "
            f"give a json_schema"
        )
    schema = wanted.get("json_schema", {}).get("schema") or wanted.get("schema")
    if not isinstance(schema, dict):
        raise LocalProtocolError("response_format: a json_schema needs its `schema`")
    return {"type": "json_schema", "schema": supported(schema)}


def _rest(request: Request) -> dict[str, Any]:
    wire: dict[str, Any] = {"stream": True} if request.stream else {}
    owner = {"user_id": request.user} if request.user is not None else {}
    if request.metadata is not None or owner:
        wire["metadata"] = {**(request.metadata or {}), **owner}
    return wire


# Inwards


class _Source(Struct):
    type: str = ""
    media_type: str = ""
    data: str = ""
    url: str = ""


class _Asked(Struct):
    """A content block of a request."""

    type: str
    text: str = ""
    source: _Source | None = None
    id: str = ""
    name: str = ""
    input: dict[str, Any] | None = None
    tool_use_id: str = ""
    is_error: bool = False
    content: "str | list[_Asked] | None" = None
    thinking: str = ""
    signature: str = ""


class _Turn(Struct):
    role: str
    content: str | list[_Asked]


class _AskedTool(Struct):
    name: str
    description: str = ""
    input_schema: dict[str, Any] = {}
    strict: bool | None = None
    type: str = "custom"


class _AskedChoice(Struct):
    type: str
    name: str = ""
    disable_parallel_tool_use: bool = False


class _Format(Struct):
    type: str = ""
    schema: dict[str, Any] | None = None


class _Output(Struct):
    effort: str | None = None
    format: _Format | None = None


class _Metadata(Struct):
    user_id: str | None = None


@ready
class _Body(Struct):
    """A request body; what is not named here travels on in `extra`."""

    model: str
    messages: list[_Turn]
    max_tokens: int
    system: str | list[_Asked] | None = None
    stream: bool = False
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    tools: list[_AskedTool] | None = None
    tool_choice: _AskedChoice | None = None
    metadata: _Metadata | None = None
    output_config: _Output | None = None
    output_format: _Format | None = None  # its name while it was in beta


def request_in(body: bytes) -> Request:
    """The request in a body; BadRequest says what is wrong with it."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, Any])
        return _request(msgspec.convert(fields, _Body), fields)
    except (*UNREADABLE, LocalProtocolError) as error:
        raise BadRequest(str(error), status=400, code="invalid_request_error") from error


def _request(body: _Body, fields: dict[str, Any]) -> Request:
    system = _said_text(body.system)
    head = (Message("system", (Text(system),)),) if system else ()
    choice = body.tool_choice
    ours = all(tool.type == "custom" for tool in body.tools or ())
    known = set(_Body.__struct_fields__) - (set() if ours else {"tools"})  # theirs: untouched
    known -= _with_more(fields)
    output = body.output_config or _Output()
    request = Request(
        model=body.model,
        messages=(*head, *(m for turn in body.messages for m in _messages(turn))),
        stream=body.stream,
        max_tokens=body.max_tokens,
        stop=None if body.stop_sequences is None else tuple(body.stop_sequences),
        tools=tuple(map(_asked_tool, body.tools)) if body.tools is not None and ours else None,
        tool_choice=None if choice is None else _asked_choice(choice),
        parallel_tool_calls=False if choice and choice.disable_parallel_tool_use else None,
        reasoning_effort=output.effort,
        response_format=_asked_format(output.format or body.output_format),
        user=None if body.metadata is None else body.metadata.user_id,
        extra={key: fields[key] for key in fields.keys() - known},
        **{name: getattr(body, name) for name in _SAME_NAME},
    )
    return sound(request)


def _with_more(fields: dict[str, Any]) -> set[str]:
    """Objects that hold more than we have words for: they travel on whole."""
    words = {"metadata": _Metadata, "output_config": _Output}
    return {
        name
        for name, known in words.items()
        if (fields.get(name) or {}).keys() - set(known.__struct_fields__)
    }


def _asked_format(wanted: _Format | None) -> dict[str, Any] | None:
    if wanted is None or wanted.schema is None:
        return None
    named = {"name": "output", "schema": wanted.schema, "strict": True}
    return {"type": "json_schema", "json_schema": named}


def _asked_tool(tool: _AskedTool) -> Tool:
    return Tool(tool.name, tool.description, tool.input_schema, tool.strict)


def _asked_choice(choice: _AskedChoice) -> ToolChoice:
    mode: Any = _MODES.get(choice.type)
    if mode is None:
        raise LocalProtocolError(f"tool_choice.type is one of {', '.join(_MODES)}")
    return ToolChoice(mode, choice.name)


def _messages(turn: _Turn) -> list[Message]:
    """A turn; tool results in it become messages of their own, first."""
    if turn.role not in ("user", "assistant"):
        raise LocalProtocolError(f"messages: role {turn.role!r} is not 'user' or 'assistant'")
    if isinstance(turn.content, str):
        return [Message(turn.role, (Text(turn.content),))]  # type: ignore[arg-type]
    parts = [_part(block) for block in turn.content]
    results = [Message("tool", (part,)) for part in parts if isinstance(part, ToolResult)]
    said = tuple(part for part in parts if not isinstance(part, ToolResult))
    return [*results, Message(turn.role, said)] if said else results  # type: ignore[arg-type]


def _part(block: _Asked) -> Part:
    match block.type:
        case "text":
            return Text(block.text)
        case "image":
            return Image(_image_url(block.source or _Source()))
        case "tool_use":
            return ToolUse(block.id, block.name, _encode(block.input or {}).decode())
        case "tool_result":
            return ToolResult(block.tool_use_id, _told(block.content), block.is_error)
        case "thinking":
            return Reasoning(block.thinking, block.signature)
    raise LocalProtocolError(f"content blocks of type {block.type!r} are not understood here")


def _told(content: str | list[_Asked] | None) -> str:
    """What a tool answered: text, since nothing else is the same in all dialects."""
    if isinstance(content, list) and (strange := {block.type for block in content} - {"text"}):
        raise LocalProtocolError(f"tool results with {min(strange)!r} are not understood here")
    return _said_text(content)


def _image_url(source: _Source) -> str:
    if source.type not in ("base64", "url"):
        raise LocalProtocolError(f"images of source {source.type!r} are not understood here")
    return source.url or f"data:{source.media_type};base64,{source.data}"


def _said_text(content: str | list[_Asked] | None) -> str:
    if isinstance(content, str) or content is None:
        return content or ""
    return "\n".join(block.text for block in content if block.type == "text")
