"""A request to Anthropic messages, both ways (platform.claude.com/docs/en/api/messages).

Turns alternate and tool results belong to the user's turn, so messages that were read from another
dialect are merged on the way out.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec import Struct

from unbroken.errors import BadRequest, LocalProtocolError
from unbroken.messages import (
    MESSAGES,
    Document,
    Image,
    Message,
    Native,
    Part,
    Reasoning,
    Refusal,
    Request,
    Text,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
    anthropic,
    tools_from,
    validate,
)
from unbroken.messages.worded import read_each
from unbroken.ready import ready
from unbroken.wire.anthropic_messages.cache import place_breakpoints
from unbroken.wire.anthropic_messages.schema import supported
from unbroken.wire.error_body import UNREADABLE
from unbroken.wire.fields.anthropic_messages import TABLE
from unbroken.wire.losses import omitted, refuse_lost
from unbroken.wire.tool_names import as_function, flatten
from unbroken.wire.turns import arguments_object, check_choice, settings, split_system, with_extra

_encode = msgspec.json.Encoder().encode

_SAME_NAME = ("temperature", "top_p", "top_k")
_CHOICES = {"auto": "auto", "none": "none", "required": "any", "tool": "tool"}
_MODES = {wire: ours for ours, wire in _CHOICES.items()}
_APART = frozenset({"model", "messages", "system", "tools", "stream"})
"""Fields that a request's native does not hold: they are values, with natives of their own."""

_EFFORTS = {"minimal": "low"}
"""Words for effort that this API has by another name."""


# Outwards


def left_out(request: Request) -> tuple[str, ...]:
    """The paths of what `encode_request` leaves out."""
    return tuple(omitted(request, TABLE))


def encode_request(request: Request, max_tokens: int) -> bytes:
    """The body of POST /v1/messages; `max_tokens` stands in where the request has none."""
    refuse_lost(request, TABLE, "Anthropic's messages API")
    native = request.native_of(MESSAGES)
    before = {} if native is None else _settings(_read(native, ()))
    head, turns = split_system(request.messages, MESSAGES)
    limit = {} if "max_tokens" in request.extra else {"max_tokens": max_tokens}
    body = {"model": request.model} | limit | settings(native, _settings(request), before)
    body |= {"messages": list(_turns(turns))} | _system(head) | _tools(request)
    if request.stream:
        body["stream"] = True
    if request.auto_cache:
        place_breakpoints(body)
    return _encode(with_extra(body, request.extra))


def _settings(request: Request) -> dict[str, Any]:
    """Our parameters under the wire's names."""
    body: dict[str, Any] = {}
    if request.max_tokens is not None:
        body["max_tokens"] = request.max_tokens
    for name in _SAME_NAME:
        if getattr(request, name) is not None:
            body[name] = getattr(request, name)
    if request.stop:
        body["stop_sequences"] = list(request.stop)
    if request.user is not None:
        body["metadata"] = {"user_id": request.user}
    return body | _tool_choice(request) | _output(request)


def _tool_choice(request: Request) -> dict[str, Any]:
    choice = request.tool_choice
    alone = request.parallel_tool_calls is False
    if choice is None and not (alone and request.tools):  # refused without tools
        return {}
    mode = choice or ToolChoice("auto")
    named = {"name": mode.name} if mode.mode == "tool" else {}
    single = {"disable_parallel_tool_use": True} if alone and mode.mode != "none" else {}
    return {"tool_choice": {"type": _CHOICES[mode.mode], **named, **single}}


def _output(request: Request) -> dict[str, Any]:
    """`output_config`: the answer's format and the model's effort. No beta header is needed."""
    config: dict[str, Any] = {}
    effort = request.reasoning_effort
    if effort not in (None, "none"):
        config["effort"] = _EFFORTS.get(effort, effort)
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
    schema = (wanted.get("json_schema") or {}).get("schema") or wanted.get("schema")
    if not isinstance(schema, dict):
        raise LocalProtocolError("response_format: a json_schema needs its `schema`")
    return {"type": "json_schema", "schema": supported(schema)}


def _system(head: list[Message]) -> dict[str, Any]:
    """The system prompt: as it was read, as a text, or as blocks where there are several."""
    natives = [message.native_of(MESSAGES) for message in head]
    if len(head) == 1 and isinstance(natives[0], dict):
        return {"system": natives[0]["system"]}
    blocks = [block for m in head for part in m.parts for block in _blocks(part)]
    if len(blocks) == 1 and blocks[0].keys() == {"type", "text"}:
        return {"system": blocks[0]["text"]}
    return {"system": blocks} if blocks else {}


def _turns(messages: Iterable[Message]) -> Iterator[dict[str, Any]]:
    """Turns of user and assistant in alternation; neighbours of one role become one turn, unless
    they were read from this dialect.
    """
    open_turn: dict[str, Any] | None = None
    for message in messages:
        native = message.native_of(MESSAGES)
        role = "assistant" if message.role == "assistant" else "user"
        blocks = [block for part in message.parts for block in _blocks(part)]
        if native is None and not blocks:
            continue
        if native is None and open_turn is not None and open_turn["role"] == role:
            open_turn["content"] += blocks
            continue
        if open_turn is not None:
            yield open_turn
        open_turn = {"role": role, "content": blocks} if native is None else None
        if native is not None:
            yield native
    if open_turn is not None:
        yield open_turn


def _blocks(part: Part) -> list[dict[str, Any]]:
    cache = anthropic.write_cache(getattr(part, "cache", ""))
    match part:
        case Text(text=text) | Refusal(text=text):
            return [{"type": "text", "text": text, **cache}] if text else []  # refused if empty
        case Image():
            return [{"type": "image", "source": anthropic.write_source(part), **cache}]
        case Document(name=name):
            titled = {"title": name} if name else {}
            return [{"type": "document", "source": _document(part), **titled, **cache}]
        case ToolUse():
            return [{**_tool_use(as_function(part)), **cache}]
        case ToolResult():
            return [{**_tool_result(part), **cache}]
        case Reasoning():
            return [anthropic.write_reasoning(part)] if anthropic.is_signed(part) else []
        case Native(dialect=dialect, data=data):
            return [data] if dialect == MESSAGES else []
    raise LocalProtocolError(f"Anthropic's messages API takes no {type(part).__name__.lower()}")


def _document(document: Document) -> dict[str, Any]:
    """PDF files travel as such, text files as text: the API knows no other kinds."""
    source = anthropic.write_source(document)
    kind = source.get("media_type", "application/pdf")
    if source["type"] == "base64" and kind != "application/pdf":
        raise LocalProtocolError(
            f"Anthropic's messages API takes documents as PDF or text, not as {kind}"
        )
    return source


def _tool_use(call: ToolUse) -> dict[str, Any]:
    made = {"id": call.id, "name": call.name, "input": arguments_object(call.arguments)}
    return {"type": "tool_use", **made}


def _tool_result(result: ToolResult) -> dict[str, Any]:
    failed = {"is_error": True} if result.is_error else {}
    content: Any = result.content
    if not isinstance(content, str):
        content = [block for part in content for block in _blocks(part)]
    return {"type": "tool_result", "tool_use_id": result.id, "content": content, **failed}


def _tools(request: Request) -> dict[str, Any]:
    if request.tools is None:
        return {}
    tools = [one for tool in request.tools for one in _written(tool)]
    if request.tool_choice is not None and request.native_of(MESSAGES) is None:
        check_choice(request.tool_choice, (tool["name"] for tool in tools if "name" in tool))
    if request.tools and not tools:
        raise LocalProtocolError("none of the tools can be used at Anthropic's messages API")
    return {"tools": tools}


def _written(tool: Tool) -> list[dict[str, Any]]:
    native = tool.native_of(MESSAGES)
    return [_tool(one) for one in flatten((tool,))] if native is None else [native]


def _tool(tool: Tool) -> dict[str, Any]:
    described = {"description": tool.description} if tool.description else {}
    strict = {} if tool.strict is None else {"strict": tool.strict}
    schema = tool.parameters or {"type": "object", "properties": {}}
    cache = anthropic.write_cache(tool.cache)
    return {"name": tool.name, **described, **strict, "input_schema": schema, **cache}


# Inwards


@ready
class _Body(Struct):
    """What is read of a body; all else travels in the request's native."""

    model: str
    messages: list[dict[str, Any]]
    max_tokens: int
    system: str | list[dict[str, Any]] | None = None
    stream: bool | None = None
    tools: list[dict[str, Any]] | None = None


class _Choice(Struct):
    type: str
    name: str = ""
    disable_parallel_tool_use: bool | None = None


class _Format(Struct):
    type: str = ""
    schema: dict[str, Any] | None = None


class _Output(Struct):
    effort: str | None = None
    format: _Format | None = None


class _Metadata(Struct):
    user_id: str | None = None


class _Thinking(Struct):
    type: str = ""
    budget_tokens: int | None = None


@ready
class _Settings(Struct):
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    tool_choice: _Choice | None = None
    metadata: _Metadata | None = None
    output_config: _Output | None = None
    output_format: _Format | None = None  # its name while it was in beta
    thinking: _Thinking | None = None


def decode_request(body: bytes) -> Request:
    """The request in a body; BadRequest says what is wrong with it."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, Any])
        return _request(msgspec.convert(fields, _Body), fields)
    except (*UNREADABLE, LocalProtocolError) as error:
        raise BadRequest(str(error), status=400, code="invalid_request_error") from error


def _request(body: _Body, fields: dict[str, Any]) -> Request:
    native = {name: value for name, value in fields.items() if name not in _APART}
    messages = (
        *_read_system(body.system),
        *read_each(anthropic.read_message, body.messages, "messages"),
    )
    request = msgspec.structs.replace(
        _read(native, messages),
        model=body.model,
        stream=bool(body.stream),
        tools=None if body.tools is None else tools_from(body.tools, MESSAGES),
        native=Native(MESSAGES, native),
    )
    return validate(request)


def _read_system(system: str | list[dict[str, Any]] | None) -> tuple[Message, ...]:
    if not system:
        return ()
    native = Native(MESSAGES, {"system": system})
    return (Message("system", anthropic.read_content(system), native),)


def _read(native: dict[str, Any], messages: tuple[Message, ...]) -> Request:
    """A request with the parameters that stand in these fields."""
    asked = msgspec.convert(native, _Settings)
    output = asked.output_config or _Output()
    choice = asked.tool_choice
    return Request(
        model="",
        messages=messages,
        max_tokens=asked.max_tokens,
        stop=None if asked.stop_sequences is None else tuple(asked.stop_sequences),
        tool_choice=None if choice is None else _read_choice(choice),
        parallel_tool_calls=False if choice and choice.disable_parallel_tool_use else None,
        reasoning_effort=output.effort or _effort(asked.thinking),
        response_format=_read_format(output.format or asked.output_format),
        user=None if asked.metadata is None else asked.metadata.user_id,
        **{name: getattr(asked, name) for name in _SAME_NAME},
    )


def _effort(thinking: _Thinking | None) -> str | None:
    """The effort that a budget of thoughts stands for. An adaptive model chooses for itself."""
    if thinking is None or thinking.type != "enabled" or thinking.budget_tokens is None:
        return None
    fitting = (effort for limit, effort in _BUDGETS if thinking.budget_tokens <= limit)
    return next(fitting, "high")


_BUDGETS = ((4096, "low"), (16_384, "medium"))
"""Budgets, in tokens, and the highest effort that they amount to."""


def _read_format(wanted: _Format | None) -> dict[str, Any] | None:
    if wanted is None or wanted.schema is None:
        return None
    named = {"name": "output", "schema": wanted.schema, "strict": True}
    return {"type": "json_schema", "json_schema": named}


def _read_choice(choice: _Choice) -> ToolChoice:
    mode: Any = _MODES.get(choice.type)
    if mode is None:
        raise LocalProtocolError(f"tool_choice.type is one of {', '.join(_MODES)}")
    return ToolChoice(mode, choice.name)
