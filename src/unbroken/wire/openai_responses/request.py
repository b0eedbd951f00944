"""The request of OpenAI's Responses API, both ways
(platform.openai.com/docs/api-reference/responses/create).

Turns are items: messages with typed parts, and calls and their results beside them, not within.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from unbroken.errors import BadRequest, LocalProtocolError
from unbroken.messages import (
    Image,
    Message,
    Part,
    Request,
    Role,
    Text,
    Tool,
    ToolResult,
    ToolUse,
    sound,
    tool_choice_from,
    tools_from,
)
from unbroken.ready import ready
from unbroken.wire.error_body import UNREADABLE

_encode = msgspec.json.Encoder().encode

# Ours that this API has no parameter for.
_UNKNOWN = (
    "top_k",
    "stop",
    "seed",
    "n",
    "frequency_penalty",
    "presence_penalty",
    "logprobs",
)
_SAME_NAME = ("temperature", "top_p", "parallel_tool_calls", "top_logprobs", "user", "metadata")


def body_of(request: Request) -> bytes:
    """The body of POST /responses; LocalProtocolError names what can't be expressed."""
    for name in _UNKNOWN:
        value = getattr(request, name)
        if value is not None and not (name == "n" and value == 1):
            raise LocalProtocolError(
                f"the Responses API has no parameter for {name}={value!r}: leave it out, or ask "
                f"by chat completions"
            )
    body: dict[str, Any] = {
        "model": request.model,
        "input": [item for message in request.messages for item in _items(message)],
    }
    body |= {n: v for n in _SAME_NAME if (v := getattr(request, n)) is not None}
    return _encode(body | _settings(request) | request.extra)


def _settings(request: Request) -> dict[str, Any]:
    body: dict[str, Any] = {"stream": True} if request.stream else {}
    if request.max_tokens is not None:
        body["max_output_tokens"] = request.max_tokens
    if request.reasoning_effort is not None:
        body["reasoning"] = {"effort": request.reasoning_effort}
    if request.response_format is not None:
        body["text"] = {"format": _flat(request.response_format, "json_schema")}
    if request.tools is not None:
        body["tools"] = [_tool(tool) for tool in request.tools]
    if request.tool_choice is not None:
        choice = request.tool_choice
        named = {"type": "function", "name": choice.name}
        body["tool_choice"] = named if choice.mode == "tool" else choice.mode
    return body


def _flat(wrapped: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Chat completions wrap what this API writes flat."""
    inner = wrapped.get(name, {})
    return {"type": wrapped.get("type"), **inner}


def _tool(tool: Tool) -> dict[str, Any]:
    # this API's default is strict, which not every schema can be
    described = {"description": tool.description} if tool.description else {}
    return {
        "type": "function",
        "name": tool.name,
        "parameters": tool.parameters,
        "strict": bool(tool.strict),
        **described,
    }


def _items(message: Message) -> Iterator[dict[str, Any]]:
    kind = "output_text" if message.role == "assistant" else "input_text"
    said = [_part(part, kind) for part in message.parts if isinstance(part, Text | Image)]
    if said:
        yield {"type": "message", "role": message.role, "content": said}
    for part in message.parts:
        if isinstance(part, ToolUse):
            named = {"call_id": part.id, "name": part.name, "arguments": part.arguments}
            yield {"type": "function_call", **named}
        elif isinstance(part, ToolResult):
            yield {"type": "function_call_output", "call_id": part.id, "output": part.content}


def _part(part: Text | Image, kind: str) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": kind, "text": part.text}
    return {"type": "input_image", "image_url": part.url, "detail": part.detail or "auto"}


# The other way


class _Text(Struct):
    format: dict[str, Any] | None = None


class _Reasoning(Struct):
    effort: str | None = None


class _Part(Struct):
    """A piece of what a message says; which fields count is said by `type`."""

    type: str = ""
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    detail: str | None = None


class _Item(Struct):
    """A turn: a message, a call, what came of one."""

    type: str = "message"
    role: str = ""
    content: str | list[_Part] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: Any = None


@ready
class _Asked(Struct):
    """A request body; what is not named here travels on in `extra`."""

    model: str
    input: str | list[_Item]
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    parallel_tool_calls: bool | None = None
    top_logprobs: int | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    text: _Text | None = None
    reasoning: _Reasoning | None = None


def request_in(body: bytes) -> Request:
    """The request in a body; BadRequest says what is wrong with it."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, Any])
        return _request(msgspec.convert(fields, _Asked), fields)
    except (*UNREADABLE, LocalProtocolError) as error:
        raise BadRequest(str(error), status=400, code="invalid_request_error") from error


def _request(asked: _Asked, fields: dict[str, Any]) -> Request:
    head = (Message("system", (Text(asked.instructions),)),) if asked.instructions else ()
    user = _Item(role="user", content=asked.input if isinstance(asked.input, str) else None)
    said = [user] if isinstance(asked.input, str) else asked.input
    request = Request(
        model=asked.model,
        messages=(*head, *(_message(item) for item in said if item.type != "reasoning")),
        stream=bool(asked.stream),
        max_tokens=asked.max_output_tokens,
        reasoning_effort=asked.reasoning.effort if asked.reasoning else None,
        response_format=_wrapped(asked.text.format if asked.text else None),
        tools=_tools(asked.tools),
        tool_choice=tool_choice_from(asked.tool_choice),
        extra={key: fields[key] for key in fields.keys() - set(_Asked.__struct_fields__)},
        **{name: getattr(asked, name) for name in _SAME_NAME},
    )
    return sound(request)


def _tools(tools: list[dict[str, Any]] | None) -> tuple[Tool, ...] | None:
    """Functions only: the provider's own tools work at the provider alone."""
    if tools is None:
        return None
    foreign = [tool.get("type") for tool in tools if tool.get("type", "function") != "function"]
    if foreign:
        raise LocalProtocolError(f"tools of type {foreign[0]!r} can't be passed on")
    return tools_from(tools)


def _wrapped(format_: dict[str, Any] | None) -> dict[str, Any] | None:
    if format_ is None or format_.get("type") in (None, "text"):
        return None
    if format_["type"] != "json_schema":
        return format_
    inner = {key: value for key, value in format_.items() if key != "type"}
    return {"type": "json_schema", "json_schema": inner}


def _message(item: _Item) -> Message:
    if item.type == "function_call":
        use = ToolUse(item.call_id or "", item.name or "", item.arguments or "")
        return Message("assistant", (use,))
    if item.type == "function_call_output":
        return Message("tool", (ToolResult(item.call_id or "", _told(item.output)),))
    if item.type != "message" or item.role not in _ROLES:
        raise LocalProtocolError(
            f"an input item of type {item.type!r} and role {item.role!r} can't be read"
        )
    content = item.content
    parts = (Text(content),) if isinstance(content, str) else tuple(map(_said, content or ()))
    return Message(_ROLES[item.role], parts)


def _told(output: Any) -> str:
    """What a tool answered: text, since nothing else is the same in all dialects."""
    if not isinstance(output, list):
        return output if isinstance(output, str) else _encode(output).decode()
    texts = [part.get("text") for part in output if isinstance(part, dict)]
    said = [text for text in texts if isinstance(text, str)]
    if len(said) < len(output):
        raise LocalProtocolError("of the output of a function only texts are understood here")
    return "\n".join(said)


_ROLES: dict[str, Role] = {
    "user": "user",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
}


def _said(part: _Part) -> Part:
    if part.type == "input_image" and part.image_url:
        return Image(part.image_url, part.detail or "")
    text = part.refusal if part.text is None else part.text
    if text is None:
        raise LocalProtocolError(f"a content part of type {part.type!r} can't be read")
    return Text(text)
