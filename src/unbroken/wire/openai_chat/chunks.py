"""What is read of a chunk of OpenAI chat completions: the fields that matter, and no others.

Null, missing and empty mean the same. A delta, a call or logprobs with a field that is not named
here are taken apart first: see `passthrough`.
"""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from unbroken.events import Event, Logprobs, ReasoningDelta, TextDelta, TokenLogprob
from unbroken.ready import ready
from unbroken.wire.openai_chat.calls import Fragment
from unbroken.wire.openai_chat.passthrough import unknown_part
from unbroken.wire.openai_chat.vocabulary import ChatUsage


class Function(Struct, gc=False):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class Custom(Struct, gc=False):
    name: str | None = None
    input: str | None = None


class CallFragment(Struct, gc=False, forbid_unknown_fields=True):
    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: Function | None = None
    custom: Custom | None = None


class _Piece(Struct, gc=False):
    type: str = ""
    text: str | None = None
    thinking: "str | list[_Piece] | None" = None


class Delta(Struct, gc=False, forbid_unknown_fields=True):
    role: Raw = Raw(b"null")
    content: str | list[Raw] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[CallFragment] | None = None
    function_call: Function | None = None
    annotations: list[Raw] | None = None


class _Token(Struct, gc=False):
    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None
    top_logprobs: "list[_Token] | None" = None


@ready
class LogprobsObject(Struct, gc=False, forbid_unknown_fields=True):
    content: list[_Token] | None = None
    refusal: list[_Token] | None = None


class WireChoice(Struct, gc=False):
    """`message` stands in whole answers, and instead of `delta` in the streams of some servers;
    `text` is that of the older completions API.
    """

    index: int | None = None
    delta: Delta | None = None
    message: Delta | None = None
    text: str | None = None
    logprobs: LogprobsObject | None = None
    finish_reason: str | None = None
    usage: ChatUsage | None = None
    error: Any = None


class _Groq(Struct, gc=False):
    usage: ChatUsage | None = None


class _MiniMax(Struct, gc=False):
    status_code: int | None = None


class Chunk(Struct, gc=False):
    id: str | None = None
    object: str | None = None
    model: str | None = None
    choices: list[WireChoice] | None = None
    usage: ChatUsage | None = None
    x_groq: _Groq | None = None
    error: Any = None
    base_resp: _MiniMax | None = None


decode_chunk = msgspec.json.Decoder(Chunk).decode
_piece = msgspec.json.Decoder(_Piece).decode
_encode = msgspec.json.Encoder().encode


def fragment_of(call: CallFragment, unknown: dict[str, Any]) -> Fragment:
    """A piece of a call in one form; `unknown` are its other fields."""
    foreign = call.function is None and call.custom is None and bool(unknown)
    if foreign:
        unknown = {"type": call.type, **unknown} if call.type else unknown
    function = call.function or Function()
    custom = call.custom or Custom()
    arguments = function.arguments or custom.input or ""
    return Fragment(
        index=call.index,
        id=call.id or "",
        name=function.name or custom.name or "",
        text=arguments if isinstance(arguments, str) else _encode(arguments).decode(),
        custom=call.custom is not None or call.type == "custom",
        unknown=unknown,
        foreign=foreign,
    )


def list_content(content: list[Raw], index: int, out: list[Event]) -> None:
    """Append content that is a list of parts, as from Mistral's reasoning models."""
    for raw in content:
        part = _piece(raw)
        thought = part.thinking or ""
        if isinstance(thought, list):
            thought = "".join(inner.text or "" for inner in thought)
        if thought:
            out.append(ReasoningDelta(thought, index))
        if part.text:
            out.append(TextDelta(part.text, index))
        if part.type not in ("", "text", "thinking", "output_text"):
            out.append(unknown_part(part.type, raw, index))


def logprob_events(wire: LogprobsObject, index: int, out: list[Event]) -> None:
    """Append the logprobs of a choice."""
    if wire.content:
        out.append(Logprobs(_tokens(wire.content), index))
    if wire.refusal:
        out.append(Logprobs(_tokens(wire.refusal), index, refusal=True))


def _tokens(wire: list[_Token] | None) -> tuple[TokenLogprob, ...]:
    return tuple(
        TokenLogprob(t.token, t.logprob, t.bytes, _tokens(t.top_logprobs)) for t in wire or ()
    )
