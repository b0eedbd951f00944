"""The streamed answer of OpenAI chat completions and everything compatible: events to chunks.

And the answer in one piece, at the end of the file.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from unbroken.errors import ProviderError
from unbroken.events import (
    ChoiceEnd,
    Citation,
    Event,
    Logprobs,
    MessageEnd,
    MessageStart,
    OtherEvent,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    ToolCallStart,
)
from unbroken.response import Choice, PartialToolCall, Response, ToolCall
from unbroken.wire.codec import Frame
from unbroken.wire.openai_chat.passthrough import chunk_of, folded
from unbroken.wire.openai_chat.vocabulary import DONE, error_body, usage_to, word_for

_encode = msgspec.json.Encoder().encode
_fields = msgspec.json.Decoder(dict[str, Raw]).decode


class ChatWriter:
    """Events in, chunks out. Text, the one hot event, is written around a prepared frame."""

    def __init__(self, choices: int, created: int, *, include_usage: bool) -> None:
        self._choices = choices
        self._created = created
        self._include_usage = include_usage
        self._head: dict[str, Any] = {}
        self._text: dict[int, tuple[bytes, bytes]] = {}
        self._citations: dict[int, int] = {}
        self._custom: set[tuple[int, int]] = set()  # calls of custom tools
        self._write = {
            MessageStart: self._start,
            ReasoningDelta: self._reasoning,
            RefusalDelta: self._refusal,
            ToolCallStart: self._call,
            ToolCallDelta: self._arguments,
            Citation: self._citation,
            Logprobs: self._likely,
            OtherEvent: self._other,
            ChoiceEnd: self._choice_end,
            MessageEnd: self._end,
        }

    def write(self, event: Event) -> list[Frame]:
        """The frames that say `event`; none where the dialect has no word for it."""
        if type(event) is TextDelta:
            head, tail = self._text.get(event.choice) or self._prepare(event.choice)
            return [Frame(head + _encode(event.text) + tail)]
        write: Any = self._write.get(type(event))
        return write(event) if write is not None else []

    def fail(self, error: ProviderError) -> list[Frame]:
        """An error object in the stream, and the end of the transport."""
        return [Frame(_encode(error_body(error))), Frame(DONE)]

    def _prepare(self, choice: int) -> tuple[bytes, bytes]:
        whole = self._chunk({"content": "\0"}, choice)[0].data
        head, tail = whole.split(_encode("\0"))
        self._text[choice] = head, tail
        return head, tail

    def _chunk(self, delta: dict[str, Any], choice: int, finish: str | None = None) -> list[Frame]:
        inner = {"index": choice, "delta": delta, "logprobs": None, "finish_reason": finish}
        return self._framed({"choices": [inner]})

    def _start(self, event: MessageStart) -> list[Frame]:
        self._text.clear()
        self._head = {
            "id": event.id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": event.model,
        }
        first = {"role": "assistant", "content": ""}
        return [frame for at in range(self._choices) for frame in self._chunk(first, at)]

    def _reasoning(self, event: ReasoningDelta) -> list[Frame]:
        return self._chunk({"reasoning_content": event.text}, event.choice) if event.text else []

    def _refusal(self, event: RefusalDelta) -> list[Frame]:
        return self._chunk({"refusal": event.text}, event.choice)

    def _call(self, event: ToolCallStart) -> list[Frame]:
        kind, field = ("custom", "input") if event.custom else ("function", "arguments")
        if event.custom:
            self._custom.add((event.choice, event.index))
        inner = {"name": event.name, field: ""}
        call = {"index": event.index, "id": event.id, "type": kind, kind: inner}
        return self._chunk({"tool_calls": [call]}, event.choice)

    def _arguments(self, event: ToolCallDelta) -> list[Frame]:
        custom = (event.choice, event.index) in self._custom
        inner = {"custom": {"input": event.arguments}} if custom else None
        inner = inner or {"function": {"arguments": event.arguments}}
        return self._chunk({"tool_calls": [{"index": event.index, **inner}]}, event.choice)

    def _citation(self, event: Citation) -> list[Frame]:
        """Numbered, for the SDKs join lists of deltas by their `index`."""
        annotation = annotation_of(event.data)
        if annotation is None:
            return []
        at = self._citations.get(event.choice, 0)
        self._citations[event.choice] = at + 1
        return self._chunk({"annotations": [{"index": at, **annotation}]}, event.choice)

    def _likely(self, event: Logprobs) -> list[Frame]:
        tokens = event.tokens
        body = logprobs_body(() if event.refusal else tokens, tokens if event.refusal else ())
        inner = {"index": event.choice, "delta": {}, "logprobs": body, "finish_reason": None}
        return self._framed({"choices": [inner]})

    def _other(self, event: OtherEvent) -> list[Frame]:
        chunk = chunk_of(event)
        return self._framed(chunk) if chunk else []

    def _framed(self, chunk: Mapping[str, Any]) -> list[Frame]:
        usage = {"usage": None} if self._include_usage else {}
        return [Frame(_encode({**self._head, **usage, **chunk}))]

    def _choice_end(self, event: ChoiceEnd) -> list[Frame]:
        return self._chunk({}, event.choice, word_for(event.finish_reason, event.raw))

    def _end(self, event: MessageEnd) -> list[Frame]:
        if event.usage is None or not self._include_usage:
            return [Frame(DONE)]
        body = {**self._head, "choices": [], "usage": usage_to(event.usage)}
        return [Frame(_encode(body)), Frame(DONE)]


def annotation_of(data: str) -> dict[str, Raw] | None:
    """A citation in the words of this dialect; None for those of another."""
    fields = _fields(data)
    return fields if "url_citation" in fields else None


def logprobs_body(text: Sequence[TokenLogprob], refusal: Sequence[TokenLogprob]) -> dict[str, Any]:
    """The `logprobs` object of a choice."""
    return {
        "content": [_token(token) for token in text] or None,
        "refusal": [_token(token) for token in refusal] or None,
    }


def _token(token: TokenLogprob) -> dict[str, Any]:
    fields = {"token": token.token, "logprob": token.logprob, "bytes": token.bytes}
    top = [{"token": t.token, "logprob": t.logprob, "bytes": t.bytes} for t in token.top]
    return {**fields, "top_logprobs": top}


# The answer in one piece


def answer_body(response: Response, created: int) -> bytes:
    """The body of a whole answer."""
    body: dict[str, Any] = {
        "id": response.id,
        "object": "chat.completion",
        "created": created,
        "model": response.model,
    }
    choices = []
    for choice in response.choices:
        unknown, beside = folded(choice)
        choices.append(_choice_body(choice, unknown))
        body |= beside
    body["choices"] = choices
    if response.usage is not None:
        body["usage"] = usage_to(response.usage)
    return _encode(body)


def _choice_body(choice: Choice, unknown: dict[str, Any]) -> dict[str, Any]:
    calls = _calls(choice, unknown.pop("tool_calls", []))
    message: dict[str, Any] = {
        "role": "assistant",
        "content": choice.text or None,
        "refusal": choice.refusal or None,
        **unknown,
    }
    if choice.reasoning:
        message["reasoning_content"] = choice.reasoning
    if cited := [a for a in map(annotation_of, choice.citations) if a is not None]:
        message["annotations"] = cited
    if calls:
        message["tool_calls"] = calls
    likely = choice.logprobs
    return {
        "index": choice.index,
        "message": message,
        "logprobs": likely and logprobs_body(likely.text, likely.refusal),
        "finish_reason": choice.finish_reason
        and word_for(choice.finish_reason, choice.raw_finish_reason),
    }


def _calls(choice: Choice, unknown: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The calls in order; what is unknown of one, or of another type, in its place."""
    made: list[ToolCall | PartialToolCall] = [*choice.tool_calls, *choice.partial_tool_calls]
    calls = [_call_body(call) for call in made]
    for extra in sorted(unknown, key=lambda call: call["index"]):
        at = extra.pop("index")
        if "type" in extra:
            calls.insert(at, extra)
        elif at < len(calls):
            calls[at] = extra | calls[at]
    return calls


def _call_body(call: ToolCall | PartialToolCall) -> dict[str, Any]:
    arguments = call.arguments
    if call.custom:
        text = arguments if isinstance(arguments, str) else arguments["input"]
        return {"id": call.id, "type": "custom", "custom": {"name": call.name, "input": text}}
    text = arguments if isinstance(arguments, str) else _encode(arguments).decode()
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": text},
    }
