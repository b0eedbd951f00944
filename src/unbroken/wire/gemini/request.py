"""The request of Gemini's generateContent, both ways (ai.google.dev/api/generate-content).

The model, and whether the answer is streamed, stand in the path and not in the body.
"""

import re
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from unbroken.errors import BadRequest, LocalProtocolError
from unbroken.messages import Message, Native, Request, Tool, ToolChoice, validate
from unbroken.messages.worded import read_each
from unbroken.ready import ready
from unbroken.wire.error_body import UNREADABLE
from unbroken.wire.fields.gemini import TABLE
from unbroken.wire.gemini.parts import TurnReader, TurnWriter, read_part, write_part
from unbroken.wire.gemini.vocabulary import DIALECT, encode
from unbroken.wire.losses import omitted, refuse_lost
from unbroken.wire.tool_names import flatten
from unbroken.wire.turns import check_choice, settings, split_system, with_extra

_SAME = {
    "max_tokens": "maxOutputTokens",
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "seed": "seed",
    "n": "candidateCount",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "logprobs": "responseLogprobs",
    "top_logprobs": "logprobs",
}
_APART = frozenset({"contents", "systemInstruction"})
"""Fields that a request's native does not hold: they are values, with natives of their own."""

_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY", "tool": "ANY"}
_BUDGETS = {"none": 0, "minimal": 512, "low": 1024, "medium": 8192, "high": 24576}
"""Tokens of thought for Gemini 2.5, which has no levels (ai.google.dev/gemini-api/docs/openai)."""

_OLDER = ("gemini-1", "gemini-2", "gemma")


# Outwards


def left_out(request: Request) -> tuple[str, ...]:
    """The paths of what `encode_request` leaves out."""
    return tuple(omitted(request, TABLE))


def encode_request(request: Request) -> bytes:
    """The body of generateContent; LocalProtocolError names what can't be said."""
    refuse_lost(request, TABLE, "Gemini's API")
    native = request.native_of(DIALECT)
    before = {} if native is None else _settings(_read(native, (), request.model))
    body = settings(native, _settings(request), before)
    head, turns = split_system(request.messages, DIALECT)
    newer = not request.model.removeprefix("models/").startswith(_OLDER)
    contents = TurnWriter(signed=newer, nested=newer).turns(turns)
    body |= {"contents": contents} | _system(head) | _tools(request, body)
    return encode(with_extra(body, request.extra))


def _system(head: list[Message]) -> dict[str, Any]:
    native = head[0].native_of(DIALECT) if len(head) == 1 else None
    if native is not None:
        return dict(native)
    parts = [written for message in head for part in message.parts for written in write_part(part)]
    return {"systemInstruction": {"parts": parts}} if parts else {}


def _settings(request: Request) -> dict[str, Any]:
    """Our parameters under the wire's names."""
    made: dict[str, Any] = {
        wire: value for name, wire in _SAME.items() if (value := getattr(request, name)) is not None
    }
    if request.stop is not None:
        made["stopSequences"] = list(request.stop)
    made |= _format(request.response_format) | _thinking(request)
    return {"generationConfig": made} if made else {}


def _format(wanted: dict[str, Any] | None) -> dict[str, Any]:
    if wanted is None or wanted.get("type") == "text":
        return {}
    if wanted.get("type") == "json_object":
        return {"responseMimeType": "application/json"}
    inner = wanted.get("json_schema") or {}
    if not isinstance(inner.get("schema"), dict):
        raise LocalProtocolError(f"Gemini's API has no response_format {wanted.get('type')!r}")
    return {"responseMimeType": "application/json", "responseJsonSchema": inner["schema"]}


def _thinking(request: Request) -> dict[str, Any]:
    effort = request.reasoning_effort
    if effort is None:
        return {}
    if request.model.removeprefix("models/").startswith(_OLDER):
        budget = _BUDGETS.get(effort, _BUDGETS["high"])
        return {"thinkingConfig": {"thinkingBudget": budget, "includeThoughts": budget > 0}}
    level = {"none": "minimal", "max": "xhigh"}.get(effort, effort)
    return {"thinkingConfig": {"thinkingLevel": level, "includeThoughts": effort != "none"}}


def _tools(request: Request, body: dict[str, Any]) -> dict[str, Any]:
    if "tools" in body or not request.tools:
        return {}  # as they were read
    written = [part for tool in request.tools if (part := tool.native_of(DIALECT)) is not None]
    hosted = [tool for tool in written if "name" not in tool]
    functions = [_declaration(tool) for tool in flatten(request.tools)]
    made = [{"functionDeclarations": functions}, *hosted] if functions else hosted
    if not made:
        raise LocalProtocolError("none of the tools can be used at Gemini")
    return {"tools": made} | _choice(request.tool_choice, [f["name"] for f in functions])


def _declaration(tool: Tool) -> dict[str, Any]:
    native = tool.native_of(DIALECT)
    if native is not None:
        return dict(native)
    described = {"description": tool.description} if tool.description else {}
    schema = {"parametersJsonSchema": tool.parameters} if tool.parameters else {}
    return {"name": tool.name, **described, **schema}


def _choice(choice: ToolChoice | None, names: Iterable[str]) -> dict[str, Any]:
    if choice is None:
        return {}
    check_choice(choice, names)
    only = {"allowedFunctionNames": [choice.name]} if choice.mode == "tool" else {}
    return {"toolConfig": {"functionCallingConfig": {"mode": _MODES[choice.mode], **only}}}


# Inwards


class _Thinking(Struct, rename="camel"):
    thinking_level: str = ""
    thinking_budget: int | None = None


class _Generation(Struct, rename="camel"):
    temperature: float | None = None
    top_p: float | None = None
    top_k: float | None = None
    max_output_tokens: int | None = None
    stop_sequences: list[str] | None = None
    candidate_count: int | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    response_logprobs: bool | None = None
    logprobs: int | None = None
    response_mime_type: str = ""
    response_schema: dict[str, Any] | None = None
    response_json_schema: dict[str, Any] | None = None
    thinking_config: _Thinking | None = None


class _Calling(Struct, rename="camel"):
    mode: str = ""
    allowed_function_names: list[str] = []


class _ToolConfig(Struct, rename="camel"):
    function_calling_config: _Calling | None = None


@ready
class _Declaration(Struct, rename="camel"):
    name: str
    description: str = ""
    parameters: dict[str, Any] | None = None
    parameters_json_schema: dict[str, Any] | None = None


class _System(Struct):
    parts: list[dict[str, Any]] = []


@ready
class _Body(Struct, rename="camel"):
    contents: list[dict[str, Any]]
    system_instruction: _System | str | None = None
    tools: list[dict[str, Any]] = []


@ready
class _Settings(Struct, rename="camel"):
    generation_config: _Generation | None = None
    tool_config: _ToolConfig | None = None


def decode_request(body: bytes) -> Request:
    """The request in a body, without its model; BadRequest says what is wrong with it."""
    try:
        fields = camel(msgspec.json.decode(body, type=dict[str, Any]))
        return _request(msgspec.convert(fields, _Body), fields)
    except (*UNREADABLE, LocalProtocolError) as error:
        raise BadRequest(str(error), status=400, code="INVALID_ARGUMENT") from error


_OPAQUE = frozenset(
    {
        "args",
        "response",
        "parameters",
        "parametersJsonSchema",
        "responseSchema",
        "responseJsonSchema",
        "labels",
        "partMetadata",
    }
)
"""Fields whose content is the caller's own."""


def camel(value: Any) -> Any:
    """The same with JSON names: the API, and its SDK in places, take those of its protocol buffers
    too (`parameters_json_schema`).
    """
    if isinstance(value, list):
        return [camel(item) for item in value]
    if not isinstance(value, dict):
        return value
    named = {_SNAKE.sub(lambda found: found[1].upper(), name): v for name, v in value.items()}
    return {name: v if name in _OPAQUE else camel(v) for name, v in named.items()}


_SNAKE = re.compile(r"_([a-z])")


def _request(body: _Body, fields: dict[str, Any]) -> Request:
    native = {name: value for name, value in fields.items() if name not in _APART}
    head: tuple[Message, ...] = ()
    if (system := body.system_instruction) is not None:
        parts = [{"text": system}] if isinstance(system, str) else system.parts
        source = Native(DIALECT, {"systemInstruction": fields["systemInstruction"]})
        head = (Message("system", read_each(read_part, parts, "systemInstruction.parts"), source),)
    turns = read_each(TurnReader().turn, body.contents, "contents")
    request = msgspec.structs.replace(
        _read(native, (*head, *turns)),
        tools=tuple(tool for entry in body.tools for tool in _read_tools(entry)) or None,
        native=Native(DIALECT, native),
    )
    return validate(request)


def _read(native: dict[str, Any], messages: tuple[Message, ...], model: str = "") -> Request:
    """A request with the parameters that stand in these fields."""
    asked = msgspec.convert(native, _Settings)
    given = asked.generation_config or _Generation()
    wire = msgspec.structs.asdict(given)
    calling = None if asked.tool_config is None else asked.tool_config.function_calling_config
    return Request(
        model=model,
        messages=messages,
        max_tokens=given.max_output_tokens,
        temperature=given.temperature,
        top_p=given.top_p,
        top_k=None if given.top_k is None else int(given.top_k),
        n=given.candidate_count,
        seed=given.seed,
        presence_penalty=wire["presence_penalty"],
        frequency_penalty=wire["frequency_penalty"],
        logprobs=given.response_logprobs,
        top_logprobs=given.logprobs,
        stop=None if given.stop_sequences is None else tuple(given.stop_sequences),
        response_format=_read_format(given),
        reasoning_effort=_read_effort(given.thinking_config),
        tool_choice=_read_choice(calling),
    )


def _read_format(given: _Generation) -> dict[str, Any] | None:
    schema = given.response_json_schema or given.response_schema
    if schema is not None:
        named = {"name": "output", "schema": lowered(schema)}
        return {"type": "json_schema", "json_schema": named}
    return {"type": "json_object"} if given.response_mime_type == "application/json" else None


def lowered(schema: Any) -> Any:
    """A schema of Gemini's own kind as a JSON Schema: its types are written in capitals."""
    if isinstance(schema, list):
        return [lowered(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: lowered(value) for name, value in schema.items()}
    if isinstance(made.get("type"), str):
        made["type"] = made["type"].lower()
    if made.pop("nullable", False) is True and isinstance(made.get("type"), str):
        made["type"] = [made["type"], "null"]
    return made


def _read_effort(thinking: _Thinking | None) -> str | None:
    if thinking is None:
        return None
    if thinking.thinking_level:
        return thinking.thinking_level.lower()
    budget = thinking.thinking_budget
    if budget is None or budget < 0:  # -1: as the model likes
        return None
    return next((name for name, tokens in _BUDGETS.items() if budget <= tokens), "high")


def _read_choice(calling: _Calling | None) -> ToolChoice | None:
    if calling is None or calling.mode in ("", "MODE_UNSPECIFIED"):
        return None
    if calling.mode == "ANY" and len(calling.allowed_function_names) == 1:
        return ToolChoice("tool", calling.allowed_function_names[0])
    return ToolChoice({"ANY": "required", "NONE": "none"}.get(calling.mode, "auto"))  # type: ignore[arg-type]


def _read_tools(entry: dict[str, Any]) -> list[Tool]:
    """The functions of an entry, and the provider's own tools in it."""
    functions = [_function(data) for data in entry.get("functionDeclarations") or ()]
    own = [(name, value) for name, value in entry.items() if name != "functionDeclarations"]
    hosted = [Tool(n, kind="hosted", native=Native(DIALECT, {n: value})) for n, value in own]
    return [*functions, *hosted]


def _function(data: dict[str, Any]) -> Tool:
    told = msgspec.convert(data, _Declaration)
    schema = told.parameters_json_schema or lowered(told.parameters) or {}
    return Tool(told.name, told.description, schema, native=Native(DIALECT, data))
