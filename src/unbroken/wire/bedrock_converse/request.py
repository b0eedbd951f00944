"""The request of Amazon Bedrock's Converse, both ways
(docs.aws.amazon.com/bedrock: API_runtime_Converse).

The model, and whether the answer is streamed, stand in the path and not in the body.
"""

import binascii
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec import Struct

from unbroken.errors import BadRequest, LocalProtocolError
from unbroken.messages import (
    CONVERSE,
    MESSAGES,
    Message,
    Native,
    Request,
    Tool,
    ToolChoice,
    validate,
)
from unbroken.messages.worded import read_each
from unbroken.ready import ready
from unbroken.wire.bedrock_converse.blocks import read_block, read_turn, write_blocks
from unbroken.wire.error_body import UNREADABLE
from unbroken.wire.fields.bedrock_converse import BETAS, TABLE
from unbroken.wire.losses import omitted, refuse_lost
from unbroken.wire.tool_names import flatten
from unbroken.wire.turns import check_choice, settings, split_system, with_extra

_encode = msgspec.json.Encoder().encode

_INFERENCE = {"max_tokens": "maxTokens", "temperature": "temperature", "top_p": "topP"}
_APART = frozenset({"messages", "system"})
"""Fields that a request's native does not hold: they are values, with natives of their own."""

_CACHE_POINT = {"cachePoint": {"type": "default"}}


# Outwards


def left_out(request: Request) -> tuple[str, ...]:
    """The paths of what `encode_request` leaves out."""
    return tuple(omitted(request, TABLE))


def encode_request(request: Request) -> bytes:
    """The body of POST /model/ID/converse-stream; LocalProtocolError names what can't be said."""
    refuse_lost(request, TABLE, "Bedrock's Converse")
    native = request.native_of(CONVERSE)
    before = {} if native is None else _settings(_read(native, ()))
    body = settings(native, _settings(request), before)
    head, turns = split_system(request.messages, CONVERSE)
    body |= {"messages": list(_turns(turns))} | _system(head) | _tools(request, body)
    return _encode(with_extra(body, request.extra))


def _settings(request: Request) -> dict[str, Any]:
    """Our parameters under the wire's names."""
    inference = {w: v for n, w in _INFERENCE.items() if (v := getattr(request, n)) is not None}
    if request.stop:
        inference["stopSequences"] = list(request.stop)
    body: dict[str, Any] = {"inferenceConfig": inference} if inference else {}
    if request.metadata is not None:
        body["requestMetadata"] = {name: str(value) for name, value in request.metadata.items()}
    return body | _output(request) | _betas(request)


def _output(request: Request) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if request.reasoning_effort not in (None, "none"):
        config["effort"] = request.reasoning_effort
    if request.response_format not in (None, {"type": "text"}):
        config["textFormat"] = _format(request.response_format or {})
    return {"outputConfig": config} if config else {}


def _format(wanted: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema, which Converse takes as text."""
    inner = wanted.get("json_schema") or {}
    if wanted.get("type") != "json_schema" or not isinstance(inner.get("schema"), dict):
        raise LocalProtocolError(
            f"Bedrock's Converse has no response_format {wanted.get('type')!r}: give a json_schema"
        )
    schema = _encode(inner["schema"]).decode()
    named = {"schema": schema, "name": inner.get("name", "output")}
    return {"type": "json_schema", "structure": {"jsonSchema": named}}


def _betas(request: Request) -> dict[str, Any]:
    """The betas of a Claude client that exist at Bedrock; they go to the model as they are."""
    native = request.native
    if native is None or native.dialect != MESSAGES or "anthropic." not in request.model:
        return {}
    asked = native.headers.get("anthropic-beta", "").split(",")
    known = [name for beta in asked if (name := beta.strip()) in BETAS]
    return {"additionalModelRequestFields": {"anthropic_beta": known}} if known else {}


def _turns(messages: Iterable[Message]) -> Iterator[dict[str, Any]]:
    """User and assistant take turns here: results of tools are the user's, neighbours are one."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        native = message.native_of(CONVERSE)
        role = "assistant" if message.role == "assistant" else "user"
        blocks = write_blocks(message.parts) if native is None else native["content"]
        if turns and turns[-1]["role"] == role:
            turns[-1] = {**turns[-1], "content": [*turns[-1]["content"], *blocks]}
        elif blocks:
            turns.append({"role": role, "content": blocks} if native is None else native)
    return iter(turns)


def _system(head: list[Message]) -> dict[str, Any]:
    native = head[0].native_of(CONVERSE) if len(head) == 1 else None
    if native is not None:
        return {"system": native["system"]}
    blocks = [block for message in head for block in write_blocks(message.parts)]
    return {"system": blocks} if blocks else {}


def _tools(request: Request, body: dict[str, Any]) -> dict[str, Any]:
    own = request.native_of(CONVERSE) is not None
    config = dict(body.get("toolConfig", {})) if own else {}
    choice = request.tool_choice
    if not request.tools or (choice is not None and choice.mode == "none"):
        return {"toolConfig": config} if config else {}
    specs = [spec for tool in request.tools for spec in _written(tool)]
    if choice is not None and not own:
        check_choice(choice, (s["toolSpec"]["name"] for s in specs if "toolSpec" in s))
        config["toolChoice"] = _CHOICES[choice.mode](choice)
    if not specs:
        raise LocalProtocolError("none of the tools can be used at Bedrock's Converse")
    return {"toolConfig": {**config, "tools": specs}}


def _written(tool: Tool) -> Iterator[dict[str, Any]]:
    native = tool.native_of(CONVERSE)
    if native is not None:
        yield native
        return
    for one in flatten((tool,)):
        yield {"toolSpec": _spec(one)}
        if one.cache:
            yield _CACHE_POINT


def _spec(tool: Tool) -> dict[str, Any]:
    described = {"description": tool.description} if tool.description else {}
    strict = {} if tool.strict is None else {"strict": tool.strict}
    return {"name": tool.name, "inputSchema": {"json": tool.parameters}, **described, **strict}


_CHOICES: dict[str, Any] = {
    "auto": lambda _: {"auto": {}},
    "required": lambda _: {"any": {}},
    "tool": lambda choice: {"tool": {"name": choice.name}},
}


# Inwards


class _Json(Struct):
    json: dict[str, Any] = {}


@ready
class _Spec(Struct):
    name: str
    inputSchema: _Json  # noqa: N815  # the wire's name
    description: str = ""
    strict: bool | None = None


class _Named(Struct):
    name: str


class _Choice(Struct):
    auto: dict[str, Any] | None = None
    any: dict[str, Any] | None = None
    tool: _Named | None = None


class _Inference(Struct):
    maxTokens: int | None = None  # noqa: N815
    temperature: float | None = None
    topP: float | None = None  # noqa: N815
    stopSequences: list[str] | None = None  # noqa: N815


class _ToolConfig(Struct):
    tools: list[dict[str, Any]] = []
    toolChoice: _Choice | None = None  # noqa: N815


class _Structure(Struct):
    jsonSchema: dict[str, Any] | None = None  # noqa: N815


class _TextFormat(Struct):
    structure: _Structure | None = None


class _OutputConfig(Struct):
    effort: str | None = None
    textFormat: _TextFormat | None = None  # noqa: N815


@ready
class _Body(Struct):
    messages: list[dict[str, Any]]
    system: list[dict[str, Any]] = []


@ready
class _Settings(Struct):
    inferenceConfig: _Inference | None = None  # noqa: N815
    toolConfig: _ToolConfig | None = None  # noqa: N815
    outputConfig: _OutputConfig | None = None  # noqa: N815


def decode_request(body: bytes) -> Request:
    """The request in a body, without its model; BadRequest says what is wrong with it."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, Any])
        return _request(msgspec.convert(fields, _Body), fields)
    except (*UNREADABLE, LocalProtocolError, binascii.Error) as error:
        raise BadRequest(str(error), status=400, code="ValidationException") from error


def _request(body: _Body, fields: dict[str, Any]) -> Request:
    native = {name: value for name, value in fields.items() if name not in _APART}
    head: tuple[Message, ...] = ()
    if body.system:
        parts = read_each(read_block, body.system, "system")
        head = (Message("system", parts, Native(CONVERSE, {"system": body.system})),)
    config = msgspec.convert(native, _Settings).toolConfig or _ToolConfig()
    if config.tools:
        native["toolConfig"] = {k: v for k, v in native["toolConfig"].items() if k != "tools"}
    request = msgspec.structs.replace(
        _read(native, (*head, *read_each(read_turn, body.messages, "messages"))),
        tools=read_each(_tool, config.tools, "toolConfig.tools") or None,
        native=Native(CONVERSE, native),
    )
    return validate(request)


def _read(native: dict[str, Any], messages: tuple[Message, ...]) -> Request:
    """A request with the parameters that stand in these fields."""
    asked = msgspec.convert(native, _Settings)
    inference = asked.inferenceConfig or _Inference()
    config = asked.toolConfig or _ToolConfig()
    output = asked.outputConfig or _OutputConfig()
    return Request(
        model="",
        messages=messages,
        max_tokens=inference.maxTokens,
        temperature=inference.temperature,
        top_p=inference.topP,
        stop=None if inference.stopSequences is None else tuple(inference.stopSequences),
        tool_choice=_read_choice(config.toolChoice),
        reasoning_effort=output.effort,
        response_format=_read_format(output.textFormat),
        metadata=native.get("requestMetadata"),
    )


def _read_format(wanted: _TextFormat | None) -> dict[str, Any] | None:
    shape = wanted.structure.jsonSchema if wanted and wanted.structure else None
    if shape is None or not isinstance(shape.get("schema"), str):
        return None
    schema = msgspec.json.decode(shape["schema"], type=dict[str, Any])
    return {"type": "json_schema", "json_schema": {**shape, "schema": schema}}


def _tool(data: dict[str, Any]) -> Tool:
    if "toolSpec" not in data:
        return Tool(next(iter(data), "?"), kind="hosted", native=Native(CONVERSE, data))
    spec = msgspec.convert(data["toolSpec"], _Spec)
    schema = spec.inputSchema.json
    return Tool(spec.name, spec.description, schema, spec.strict, native=Native(CONVERSE, data))


def _read_choice(choice: _Choice | None) -> ToolChoice | None:
    if choice is None or choice == _Choice():
        return None
    if choice.tool is not None:
        return ToolChoice("tool", choice.tool.name)
    return ToolChoice("auto" if choice.any is None else "required")
