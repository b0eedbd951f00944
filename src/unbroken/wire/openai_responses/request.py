"""The request of OpenAI's Responses API, both ways
(platform.openai.com/docs/api-reference/responses/create). Its items are in `items`.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from unbroken.errors import BadRequest, LocalProtocolError
from unbroken.messages import (
    RESPONSES,
    Message,
    Native,
    Request,
    Text,
    Tool,
    ToolChoice,
    tools_from,
    validate,
)
from unbroken.ready import ready
from unbroken.wire.error_body import UNREADABLE
from unbroken.wire.fields.openai_responses import TABLE
from unbroken.wire.losses import omitted, refuse_lost
from unbroken.wire.openai_responses.items import read_input, write_items
from unbroken.wire.tool_names import flatten
from unbroken.wire.turns import check_choice, read_choice, settings, with_extra

_encode = msgspec.json.Encoder().encode

_SAME_NAME = ("temperature", "top_p", "parallel_tool_calls", "top_logprobs", "metadata")
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

_USER_LIMIT = 64  # characters (platform.openai.com: safety_identifier, user)
_APART = frozenset({"model", "input", "instructions", "tools", "stream"})
"""Fields that a request's native does not hold: they are values, with natives of their own."""


def left_out(request: Request) -> tuple[str, ...]:
    """The paths of what `encode_request` leaves out."""
    return tuple(omitted(request, TABLE))


def encode_request(request: Request) -> bytes:
    """The body of POST /responses; LocalProtocolError names what can't be expressed."""
    refuse_lost(request, TABLE, "the Responses API")
    native = request.native_of(RESPONSES)
    before = {} if native is None else _settings(_read(native, ()))
    body = {"model": request.model} | settings(native, _settings(request), before)
    body |= _turns(request.messages) | _tools(request)
    if request.stream:
        body["stream"] = True
    return _encode(with_extra(body, request.extra))


def _settings(request: Request) -> dict[str, Any]:
    """Our parameters under the wire's names."""
    body = {n: v for n in _SAME_NAME if (v := getattr(request, n)) is not None}
    if request.max_tokens is not None:
        body["max_output_tokens"] = request.max_tokens
    if request.user is not None:
        own = request.native_of(RESPONSES) is not None
        body["user"] = request.user if own else request.user[:_USER_LIMIT]
    if request.reasoning_effort is not None:
        body["reasoning"] = {"effort": request.reasoning_effort}
    text = {"format": _flat(request.response_format)} if request.response_format else {}
    chat = request.native if request.native and request.native.dialect == "openai_chat" else None
    if chat is not None:
        body |= {name: chat.data[name] for name in _SHARED if name in chat.data}
        text |= {"verbosity": v} if (v := chat.data.get("verbosity")) else {}
    if text:
        body["text"] = text
    if request.tool_choice is not None:
        body["tool_choice"] = _tool_choice(request.tool_choice)
    return body


def _tool_choice(choice: ToolChoice) -> Any:
    return {"type": "function", "name": choice.name} if choice.mode == "tool" else choice.mode


def _flat(wrapped: Mapping[str, Any]) -> dict[str, Any]:
    """Chat completions wrap what this API writes flat."""
    inner = wrapped.get("json_schema", {})
    return {"type": wrapped.get("type"), **inner}


def _turns(messages: tuple[Message, ...]) -> dict[str, Any]:
    """`input`, and `instructions` where they were read as such."""
    first = messages[0].native_of(RESPONSES) if messages else None
    top = isinstance(first, dict) and "instructions" in first
    said = messages[1:] if top else messages
    head = {"instructions": first["instructions"]} if isinstance(first, dict) and top else {}
    alone = said[0].native_of(RESPONSES) if len(said) == 1 else None
    if isinstance(alone, str):
        return {**head, "input": alone}
    return {**head, "input": [item for message in said for item in write_items(message)]}


def _tools(request: Request) -> dict[str, Any]:
    if request.tools is None:
        return {}
    tools = [one for tool in request.tools for one in _written(tool)]
    if request.tool_choice is not None and request.native_of(RESPONSES) is None:
        check_choice(request.tool_choice, (tool["name"] for tool in tools if "name" in tool))
    if request.tools and not tools:
        raise LocalProtocolError("none of the tools can be used at the Responses API")
    return {"tools": tools}


def _written(tool: Tool) -> list[dict[str, Any]]:
    native = tool.native_of(RESPONSES)
    if native is not None:
        return [native]
    return [_tool(one) for one in flatten((tool,), custom=True)]


def _tool(tool: Tool) -> dict[str, Any]:
    described = {"description": tool.description} if tool.description else {}
    if tool.kind == "custom":
        form = {} if tool.format is None else {"format": _flat_format(tool.format)}
        return {"type": "custom", "name": tool.name, **described, **form}
    made = {"type": "function", "name": tool.name, "parameters": tool.parameters, **described}
    # this API's default is strict, which not every schema can be
    return {**made, "strict": bool(tool.strict)}


def _flat_format(form: dict[str, Any]) -> dict[str, Any]:
    """Chat completions wrap the grammar that this API writes flat."""
    inner = form.get("grammar")
    return {"type": "grammar", **inner} if isinstance(inner, dict) else form


# Inwards


@ready
class _Body(Struct):
    """What is read of a body; all else travels in the request's native."""

    model: str
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    stream: bool | None = None
    tools: list[dict[str, Any]] | None = None


class _Text(Struct):
    format: dict[str, Any] | None = None


class _Reasoning(Struct):
    effort: str | None = None


@ready
class _Settings(Struct):
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    parallel_tool_calls: bool | None = None
    top_logprobs: int | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None
    tool_choice: str | dict[str, Any] | None = None
    text: _Text | None = None
    reasoning: _Reasoning | None = None


def decode_request(body: bytes) -> Request:
    """The request in a body; BadRequest says what is wrong with it."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, Any])
        return _request(msgspec.convert(fields, _Body), fields)
    except (*UNREADABLE, LocalProtocolError) as error:
        raise BadRequest(str(error), status=400, code="invalid_request_error") from error


def _request(body: _Body, fields: dict[str, Any]) -> Request:
    native = {name: value for name, value in fields.items() if name not in _APART}
    head: tuple[Message, ...] = ()
    if body.instructions is not None:
        own = Native(RESPONSES, {"instructions": body.instructions})
        head = (Message("system", (Text(body.instructions),), own),)
    request = msgspec.structs.replace(
        _read(native, (*head, *read_input(body.input))),
        model=body.model,
        stream=bool(body.stream),
        tools=None if body.tools is None else tools_from(body.tools, RESPONSES),
        native=Native(RESPONSES, native),
    )
    return validate(request)


def _read(native: dict[str, Any], messages: tuple[Message, ...]) -> Request:
    """A request with the parameters that stand in these fields."""
    asked = msgspec.convert(native, _Settings)
    return Request(
        model="",
        messages=messages,
        max_tokens=asked.max_output_tokens,
        reasoning_effort=asked.reasoning.effort if asked.reasoning else None,
        response_format=_wrapped(asked.text.format if asked.text else None),
        tool_choice=read_choice(asked.tool_choice),
        user=asked.user,
        **{name: getattr(asked, name) for name in _SAME_NAME},
    )


def _wrapped(format_: dict[str, Any] | None) -> dict[str, Any] | None:
    if format_ is None or format_.get("type") in (None, "text"):
        return None
    if format_["type"] != "json_schema":
        return format_
    inner = {key: value for key, value in format_.items() if key != "type"}
    return {"type": "json_schema", "json_schema": inner}
