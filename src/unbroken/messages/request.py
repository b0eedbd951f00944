"""The whole question: messages, tools and parameters."""

from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from unbroken.errors import LocalProtocolError
from unbroken.messages.tools import Tool, ToolChoice
from unbroken.messages.worded import format_error
from unbroken.parts import Message, Native
from unbroken.ready import ready
from unbroken.schema import Shape


@ready
class Request(Struct, frozen=True, kw_only=True):
    """One question. None means: leave it to the provider.

    `max_tokens` bounds the answer in tokens. `extra` and `headers` go to the provider untouched.
    `native` holds the fields of the body that the request was read from, in its dialect, with the
    headers that travel with them; messages and tools have natives of their own. `auto_cache`
    places cache breakpoints where the caller's dialect has no word for them.
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
    native: Native | None = None
    headers: dict[str, str] = {}
    auto_cache: bool = False

    @property
    def system(self) -> str:
        """All system messages, joined by an empty line."""
        return "\n\n".join(m.text for m in self.messages if m.role == "system")

    @property
    def partial_turn(self) -> str:
        """The beginning of the answer that the request already holds, or an empty string."""
        last = self.messages[-1] if self.messages else None
        return last.text if last is not None and last.role == "assistant" else ""

    def native_of(self, dialect: str) -> dict[str, Any] | None:
        """The fields as they were read from a body in `dialect`, or None if it was another."""
        found = self.native
        return found.data if found is not None and found.dialect == dialect else None

    def option(self, name: str) -> Any:
        """A field that we have no word for, as the caller gave it in whatever dialect."""
        native = {} if self.native is None else self.native.data
        return self.extra.get(name, native.get(name))


# Bounds that every provider enforces. They stand beside the request and not in its types, so that
# a request that was stored before there were bounds can be read. -1 is vLLM's word for "all".


class _BoundedTool(Struct):
    parameters: Shape


class _BoundedSchema(Struct):
    schema: Shape | None = None


class _BoundedFormat(Struct):
    type: str = ""
    json_schema: _BoundedSchema | None = None
    schema: Shape | None = None


@ready
class _Bounded(Struct):
    max_tokens: Annotated[int, Meta(ge=1)] | None
    temperature: Annotated[float, Meta(ge=0)] | None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None
    top_k: Annotated[int, Meta(ge=-1)] | None
    n: Annotated[int, Meta(ge=1, le=128)] | None  # OpenAI's bound: each is an answer to be written
    top_logprobs: Annotated[int, Meta(ge=-1)] | None
    tools: tuple[_BoundedTool, ...] | None
    response_format: _BoundedFormat | None


def validate(request: Request) -> Request:
    """Return the request. LocalProtocolError names what no provider takes: a number out of bounds,
    an invalid JSON schema.
    """
    try:
        msgspec.convert(request, _Bounded, from_attributes=True)
    except msgspec.ValidationError as error:
        raise LocalProtocolError(format_error(error)) from error
    return request


def stop_from(stop: str | Iterable[str] | None) -> tuple[str, ...] | None:
    """Read where to stop: a string, or a list of them."""
    if stop is None or isinstance(stop, str):
        return None if stop is None else (stop,)
    words = tuple(stop) if isinstance(stop, Iterable) else (stop,)
    if not all(isinstance(word, str) for word in words):
        raise LocalProtocolError("stop is a string, or a list of strings")
    return words
