"""OpenAI chat completions and everything compatible: requests, whole answers, errors.

`OpenAIChat` is a value: its fields are what compatible servers disagree about. The streamed
answer is in `openai_chat_reader` and `openai_chat_writer`.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from unbroken.errors import BadRequest, LocalProtocolError, ProviderError
from unbroken.events import (
    Event,
)
from unbroken.messages import (
    ChatMessage,
    Message,
    Reasoning,
    Request,
    Tool,
    ToolChoice,
    message_from_chat,
    message_to_chat,
    sound,
    stop_from,
    tool_choice_from,
    tools_from,
)
from unbroken.ready import ready
from unbroken.response import Response
from unbroken.wire import sse
from unbroken.wire.codec import Codec
from unbroken.wire.error_body import UNREADABLE, parse_error
from unbroken.wire.openai_chat.reader import ChatReader
from unbroken.wire.openai_chat.response import decode_body
from unbroken.wire.openai_chat.vocabulary import (
    error_body,
)
from unbroken.wire.openai_chat.writer import ChatWriter, answer_body

# Our names that are the wire's names too. `max_tokens`, tools and the stream's options are not
# in this list: they need a second look.
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

_encode = msgspec.json.Encoder().encode


class _StreamOptions(Struct):
    include_usage: bool = False


@ready
class _Asked(Struct):
    """A request body; what is not named here travels on in `extra`."""

    model: str
    messages: list[ChatMessage]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    n: int | None = None
    tools: list[dict[str, Any]] | None = None
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


class OpenAIChat(Struct, frozen=True):
    """The dialect, and what compatible servers disagree about.

    `max_tokens` is the wire's name of that parameter: OpenAI's newer models refuse the old one,
    most other servers know nothing else. `implied_finish` is for servers known never to send a
    finish reason. `unknown` lists parameters this server can't express; `renamed` gives those it
    has by another name. `usage_option`: whether usage has to be asked for. When the request begins
    the answer, `prefix_message` is added to its last message and `prefix_body` to the body.
    `thoughts_with_calls`: a turn that called tools is refused without what led to it.
    """

    max_tokens: str = "max_tokens"
    implied_finish: bool = False
    unknown: frozenset[str] = frozenset({"top_k"})
    renamed: dict[str, str] = {}
    usage_option: bool = True
    prefix_message: dict[str, Any] = {}
    prefix_body: dict[str, Any] = {}
    thoughts_with_calls: bool = False

    def encode_request(self, request: Request) -> bytes:
        """The body of POST /chat/completions."""
        body: dict[str, Any] = {"model": request.model, "messages": self._messages(request)}
        for name in _SAME_NAME:
            value = getattr(request, name)
            if value is not None:
                body[self.renamed.get(name, name)] = self._expressible(name, value)
        if request.max_tokens is not None:
            body[self.max_tokens] = request.max_tokens
        if request.stop is not None:
            body["stop"] = list(request.stop)
        if request.partial_turn:
            body["messages"][-1] |= self.prefix_message
            body |= self.prefix_body
        return _encode(body | _tools(request) | self._streaming(request) | request.extra)

    def _messages(self, request: Request) -> list[dict[str, Any]]:
        shaped = []
        for message in request.messages:
            said = message_to_chat(message)
            if self.thoughts_with_calls and "tool_calls" in said[-1]:
                said[-1]["reasoning_content"] = _thoughts(message)
            shaped += said
        return shaped

    def _streaming(self, request: Request) -> dict[str, Any]:
        if not request.stream:
            return {}
        asks = request.include_usage and self.usage_option
        usage = {"stream_options": {"include_usage": True}} if asks else {}
        return {"stream": True, **usage}

    def _expressible(self, name: str, value: Any) -> Any:
        if name in self.unknown and (name, value) != ("n", 1):
            raise LocalProtocolError(
                f"this provider's API has no parameter for {name}={value!r}: leave it out, "
                f"or pass the provider's own parameter in `extra`"
            )
        return value

    def decode_request(self, body: bytes) -> Request:
        """The request in a body; BadRequest says what is wrong with it."""
        try:
            fields = msgspec.json.decode(body, type=dict[str, Any])
            asked = msgspec.convert(fields, _Asked)
            return _request(asked, fields, usage=not self.usage_option)
        except (*UNREADABLE, LocalProtocolError) as error:
            raise BadRequest(str(error), status=400, code="invalid_request") from error

    def reader(self, request: Request) -> ChatReader:
        """A decoder for one streamed answer."""
        return ChatReader(request.n or 1, implied_finish=self.implied_finish)

    def writer(self, request: Request, created: int = 0) -> ChatWriter:
        """An encoder for one streamed answer."""
        return ChatWriter(request.n or 1, created, include_usage=request.include_usage)

    def decode_response(self, body: bytes) -> list[Event]:
        """The events of a whole answer. RemoteProtocolError if it is none."""
        return decode_body(body)

    def encode_response(self, response: Response, created: int = 0) -> bytes:
        """The body of a whole answer."""
        return answer_body(response, created)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """The error an HTTP status of 400 and up stands for."""
        return parse_error(body, status, headers)

    def encode_error(self, error: ProviderError) -> bytes:
        """The error object that goes with `error.status`."""
        return _encode(error_body(error))


def _thoughts(message: Message) -> str:
    return "".join(part.text for part in message.parts if isinstance(part, Reasoning))


def _tools(request: Request) -> dict[str, Any]:
    wire: dict[str, Any] = {}
    if request.tools is not None:
        wire["tools"] = [_tool(tool) for tool in request.tools]
    if request.tool_choice is not None:
        wire["tool_choice"] = _tool_choice(request.tool_choice)
    return wire


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.parameters}
    if tool.description:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _tool_choice(choice: ToolChoice) -> Any:
    if choice.mode == "tool":
        return {"type": "function", "function": {"name": choice.name}}
    return choice.mode


def _request(asked: _Asked, fields: dict[str, Any], *, usage: bool) -> Request:
    limit = asked.max_completion_tokens
    options = asked.stream_options or _StreamOptions()
    request = Request(
        model=asked.model,
        messages=tuple(message_from_chat(message) for message in asked.messages),
        stream=bool(asked.stream),
        include_usage=usage or options.include_usage,
        max_tokens=asked.max_tokens if limit is None else limit,
        stop=stop_from(asked.stop),
        tools=None if asked.tools is None else tools_from(asked.tools),
        tool_choice=tool_choice_from(asked.tool_choice),
        extra={key: fields[key] for key in fields.keys() - set(_Asked.__struct_fields__)},
        **{name: getattr(asked, name) for name in _SAME_NAME},
    )
    return sound(request)


def chat_codec(dialect: OpenAIChat | None = None) -> Codec:
    """The codec of an OpenAI-compatible server."""
    return Codec(sse.SseDecoder, sse.encode, dialect or OpenAIChat())


CODEC = chat_codec()
