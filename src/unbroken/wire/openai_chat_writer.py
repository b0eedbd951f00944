"""The streamed answer of OpenAI chat completions and everything compatible: events to chunks."""

from typing import Any

import msgspec

from unbroken.errors import ProviderError
from unbroken.events import (
    ChoiceEnd,
    Event,
    MessageEnd,
    MessageStart,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
)
from unbroken.wire.codec import Frame
from unbroken.wire.openai_chat_words import DONE, error_body, usage_to, word_for

_encode = msgspec.json.Encoder().encode


class ChatWriter:
    """Events in, chunks out. Text, the one hot event, is written around a prepared frame."""

    def __init__(self, choices: int, created: int, *, include_usage: bool) -> None:
        self._choices = choices
        self._created = created
        self._include_usage = include_usage
        self._head: dict[str, Any] = {}
        self._text: dict[int, tuple[bytes, bytes]] = {}
        self._write = {
            MessageStart: self._start,
            ReasoningDelta: self._reasoning,
            RefusalDelta: self._refusal,
            ToolCallStart: self._call,
            ToolCallDelta: self._arguments,
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
        usage = {"usage": None} if self._include_usage else {}
        return [Frame(_encode({**self._head, "choices": [inner], **usage}))]

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
        function = {"name": event.name, "arguments": ""}
        call = {"index": event.index, "id": event.id, "type": "function", "function": function}
        return self._chunk({"tool_calls": [call]}, event.choice)

    def _arguments(self, event: ToolCallDelta) -> list[Frame]:
        call = {"index": event.index, "function": {"arguments": event.arguments}}
        return self._chunk({"tool_calls": [call]}, event.choice)

    def _choice_end(self, event: ChoiceEnd) -> list[Frame]:
        return self._chunk({}, event.choice, word_for(event.finish_reason, event.raw))

    def _end(self, event: MessageEnd) -> list[Frame]:
        if event.usage is None or not self._include_usage:
            return [Frame(DONE)]
        body = {**self._head, "choices": [], "usage": usage_to(event.usage)}
        return [Frame(_encode(body)), Frame(DONE)]
