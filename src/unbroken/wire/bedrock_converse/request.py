"""The request of Amazon Bedrock's Converse, both ways
(docs.aws.amazon.com/bedrock: API_runtime_Converse).

The model, and whether the answer is streamed, stand in the path and not in the body.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
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
    Role,
    Text,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
    sound,
)
from unbroken.ready import ready
from unbroken.wire.error_body import UNREADABLE

_encode = msgspec.json.Encoder().encode

# Ours that Converse has no parameter for; what the model behind it knows goes into
# `additionalModelRequestFields`.
_UNKNOWN = (
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
_INFERENCE = {"max_tokens": "maxTokens", "temperature": "temperature", "top_p": "topP"}
_IMAGE = re.compile(r"data:image/(png|jpeg|gif|webp);base64,(.+)", re.DOTALL)


def body_of(request: Request) -> bytes:
    """The body of POST /model/ID/converse-stream; LocalProtocolError names what can't be said."""
    for name in _UNKNOWN:
        value = getattr(request, name)
        if value is not None and not (name == "n" and value == 1):
            raise LocalProtocolError(
                f"Bedrock's Converse has no parameter for {name}={value!r}: leave it out, or pass "
                f"extra={{'additionalModelRequestFields': {{...}}}}"
            )
    body: dict[str, Any] = {"messages": _turns(m for m in request.messages if m.role != "system")}
    if request.system:
        body["system"] = [{"text": request.system}]
    inference = {w: v for n, w in _INFERENCE.items() if (v := getattr(request, n)) is not None}
    if request.stop is not None:
        inference["stopSequences"] = list(request.stop)
    if inference:
        body["inferenceConfig"] = inference
    return _encode(body | _tools(request.tools, request.tool_choice) | request.extra)


def _turns(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """User and assistant take turns here: results of tools are the user's, neighbours are one."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = "assistant" if message.role == "assistant" else "user"
        blocks = [_block(part) for part in message.parts if not _unproven(part)]
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    return turns


def _unproven(part: Part) -> bool:
    """Thoughts of a model that doesn't sign them: no model of Bedrock's wants them back."""
    return isinstance(part, Reasoning) and not part.signature


def _block(part: Part) -> dict[str, Any]:
    match part:
        case Text(text=text):
            return {"text": text}
        case Image(url=url):
            return _image(url)
        case ToolUse(id=id, name=name, arguments=arguments):
            return {"toolUse": {"toolUseId": id, "name": name, "input": _object(arguments)}}
        case ToolResult(id=id, content=content, is_error=is_error):
            failed = {"status": "error"} if is_error else {}
            return {"toolResult": {"toolUseId": id, "content": [{"text": content}], **failed}}
        case Reasoning(text=text, signature=signature):
            proof = {"signature": signature} if signature else {}
            return {"reasoningContent": {"reasoningText": {"text": text, **proof}}}


def _image(url: str) -> dict[str, Any]:
    match = _IMAGE.fullmatch(url)
    if match is None:
        raise LocalProtocolError(
            "Bedrock takes images as data:image/png;base64,... (or jpeg, gif, webp), not by address"
        )
    return {"image": {"format": match[1], "source": {"bytes": match[2]}}}


def _object(arguments: str) -> Any:
    try:
        return msgspec.json.decode(arguments or "{}")
    except msgspec.DecodeError as error:
        raise LocalProtocolError(f"the arguments of a tool call are no JSON: {error}") from error


def _tools(tools: tuple[Tool, ...] | None, choice: ToolChoice | None) -> dict[str, Any]:
    if not tools or (choice is not None and choice.mode == "none"):
        return {}
    specs = [{"toolSpec": _spec(tool)} for tool in tools]
    chosen = {} if choice is None else {"toolChoice": _CHOICES[choice.mode](choice)}
    return {"toolConfig": {"tools": specs, **chosen}}


def _spec(tool: Tool) -> dict[str, Any]:
    described = {"description": tool.description} if tool.description else {}
    return {"name": tool.name, "inputSchema": {"json": tool.parameters}, **described}


_CHOICES: dict[str, Any] = {
    "auto": lambda _: {"auto": {}},
    "required": lambda _: {"any": {}},
    "tool": lambda choice: {"tool": {"name": choice.name}},
}


# The other way


class _Bytes(Struct):
    bytes: str


class _Image(Struct):
    format: str
    source: _Bytes


class _Use(Struct):
    toolUseId: str  # noqa: N815  # the wire's name
    name: str
    input: Any


class _Result(Struct):
    toolUseId: str  # noqa: N815
    content: list[dict[str, Any]]
    status: str = ""


class _Said(Struct):
    text: str
    signature: str = ""


class _Reasoning(Struct):
    reasoningText: _Said  # noqa: N815


class _Block(Struct):
    """A piece of a message: one of these."""

    text: str | None = None
    image: _Image | None = None
    toolUse: _Use | None = None  # noqa: N815
    toolResult: _Result | None = None  # noqa: N815
    reasoningContent: _Reasoning | None = None  # noqa: N815


class _Turn(Struct):
    role: str
    content: list[_Block]


class _System(Struct):
    text: str | None = None


class _Schema(Struct):
    json: dict[str, Any] = {}


class _Spec(Struct):
    name: str
    inputSchema: _Schema  # noqa: N815
    description: str = ""


class _Tool(Struct):
    toolSpec: _Spec  # noqa: N815


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
    tools: list[_Tool] = []
    toolChoice: _Choice | None = None  # noqa: N815


@ready
class _Asked(Struct):
    messages: list[_Turn]
    system: list[_System] = []
    inferenceConfig: _Inference | None = None  # noqa: N815
    toolConfig: _ToolConfig | None = None  # noqa: N815


def request_in(body: bytes) -> Request:
    """The request in a body; BadRequest says what is wrong with it."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, Any])
        return _request(msgspec.convert(fields, _Asked), fields)
    except (*UNREADABLE, LocalProtocolError, binascii.Error) as error:
        raise BadRequest(f"{error}", status=400, code="ValidationException") from error


def _request(asked: _Asked, fields: Mapping[str, Any]) -> Request:
    told = asked.inferenceConfig or _Inference()
    config = asked.toolConfig or _ToolConfig()
    system = "\n\n".join(block.text for block in asked.system if block.text is not None)
    head = (Message("system", (Text(system),)),) if system else ()
    request = Request(
        model="",
        messages=(*head, *(message for turn in asked.messages for message in _messages(turn))),
        max_tokens=told.maxTokens,
        temperature=told.temperature,
        top_p=told.topP,
        stop=None if told.stopSequences is None else tuple(told.stopSequences),
        tools=tuple(_tool(tool.toolSpec) for tool in config.tools) or None,
        tool_choice=_choice(config.toolChoice),
        extra={name: fields[name] for name in fields.keys() - set(_Asked.__struct_fields__)},
    )
    return sound(request)


def _messages(turn: _Turn) -> list[Message]:
    """One turn; results of tools are messages of their own."""
    if turn.role not in ("user", "assistant"):
        raise LocalProtocolError(f"a message's role is user or assistant, not {turn.role!r}")
    parts = [_part(block) for block in turn.content]
    results = tuple(part for part in parts if isinstance(part, ToolResult))
    others = tuple(part for part in parts if not isinstance(part, ToolResult))
    role: Role = "assistant" if turn.role == "assistant" else "user"
    said = [Message(role, others)] if others else []
    return [*([Message("tool", results)] if results else []), *said]


def _part(block: _Block) -> Part:
    if block.text is not None:
        return Text(block.text)
    if block.image is not None:
        return _image_part(block.image)
    if (use := block.toolUse) is not None:
        return ToolUse(use.toolUseId, use.name, _encode(use.input).decode())
    if block.toolResult is not None:
        return _result_part(block.toolResult)
    if block.reasoningContent is not None:
        said = block.reasoningContent.reasoningText
        return Reasoning(said.text, said.signature)
    raise LocalProtocolError(f"a block is one of {', '.join(_Block.__struct_fields__)}")


def _image_part(image: _Image) -> Image:
    data = image.source.bytes
    base64.b64decode(data, validate=True)
    return Image(f"data:image/{image.format};base64,{data}")


def _result_part(result: _Result) -> ToolResult:
    said = "".join(map(_as_text, result.content))
    return ToolResult(result.toolUseId, said, result.status == "error")


def _as_text(content: dict[str, Any]) -> str:
    text = content.get("text")
    return text if isinstance(text, str) else _encode(content).decode()


def _tool(spec: _Spec) -> Tool:
    return Tool(spec.name, spec.description, spec.inputSchema.json)


def _choice(choice: _Choice | None) -> ToolChoice | None:
    if choice is None or choice == _Choice():
        return None
    if choice.tool is not None:
        return ToolChoice("tool", choice.tool.name)
    return ToolChoice("auto" if choice.any is None else "required")
