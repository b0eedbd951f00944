"""The streamed answer of Gemini: events to frames (ai.google.dev/api/generate-content).

A function call is one part, so its fragments are collected until its block ends, or, from dialects
without blocks, until the answer does.
"""

from typing import Any

import msgspec
from msgspec import Struct

from unbroken.errors import ProviderError
from unbroken.events import (
    BlockEnd,
    BlockStart,
    ChoiceEnd,
    Citation,
    Event,
    MessageEnd,
    MessageStart,
    OtherEvent,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
    UsageReport,
)
from unbroken.wire.codec import Frame
from unbroken.wire.error_body import UNREADABLE
from unbroken.wire.gemini.vocabulary import (
    DIALECT,
    NAMELESS,
    encode,
    error_body,
    usage_to,
    word_for,
)

_fields = msgspec.json.Decoder(dict[str, Any]).decode


class _Call(Struct):
    id: str
    name: str
    arguments: str = ""


class _Choice:
    """What a candidate holds back."""

    def __init__(self) -> None:
        self.calls: dict[int, _Call] = {}
        self.block: int | None = None  # of the call that begins next
        self.call_of: dict[int, int] = {}  # block to call
        self.thinking: set[int] = set()  # blocks of reasoning


class GeminiWriter:
    """Events in, frames out."""

    def __init__(self) -> None:
        self._head: dict[str, Any] = {}
        self._usage = Usage(source="partial")
        self._choices: dict[int, _Choice] = {}
        self._ends: dict[int, ChoiceEnd] = {}
        self._table: dict[type, Any] = {
            MessageStart: self._start,
            BlockStart: self._block_start,
            BlockEnd: self._block_end,
            TextDelta: self._text,
            RefusalDelta: self._text,
            ReasoningDelta: self._reasoning,
            ToolCallStart: self._call,
            ToolCallDelta: self._arguments,
            Citation: self._citation,
            OtherEvent: self._other,
            UsageReport: self._report,
            ChoiceEnd: self._choice_end,
            MessageEnd: self._end,
        }

    def write(self, event: Event) -> list[Frame]:
        """The frames that say `event`; none where the dialect has no word for it."""
        write = self._table.get(type(event))
        frames: list[Frame] = [] if write is None else write(event)
        return frames

    def fail(self, error: ProviderError) -> list[Frame]:
        """The error, which ends the stream."""
        return [Frame(encode(error_body(error)))]

    # Frames

    def _chunk(self, **fields: Any) -> list[Frame]:
        usage = {"usageMetadata": usage_to(self._usage)}
        return [Frame(encode({**fields, **usage, **self._head}))]

    def _candidate(self, index: int, **fields: Any) -> list[Frame]:
        return self._chunk(candidates=[{**fields, "index": index}])

    def _part(self, index: int, part: dict[str, Any]) -> list[Frame]:
        return self._candidate(index, content={"parts": [part], "role": "model"})

    def _choice(self, index: int) -> _Choice:
        return self._choices.setdefault(index, _Choice())

    # Events

    def _start(self, event: MessageStart) -> list[Frame]:
        self._head = {"modelVersion": event.model, "responseId": event.id}
        return []

    def _block_start(self, event: BlockStart) -> list[Frame]:
        choice = self._choice(event.choice)
        choice.block = event.index if event.kind == "tool_call" else None
        if event.kind == "reasoning":
            choice.thinking.add(event.index)
        return []

    def _block_end(self, event: BlockEnd) -> list[Frame]:
        """A call is whole; a signature follows its text."""
        choice = self._choice(event.choice)
        proof = _signature(event)
        call = choice.calls.pop(choice.call_of.pop(event.index, -1), None)
        if call is not None:
            return self._part(event.choice, {**_call_part(call), **proof})
        if proof and event.index not in choice.thinking:
            return self._part(event.choice, {"text": "", **proof})
        return []

    def _text(self, event: TextDelta | RefusalDelta) -> list[Frame]:
        return self._part(event.choice, {"text": event.text}) if event.text else []

    def _reasoning(self, event: ReasoningDelta) -> list[Frame]:
        proof = {"thoughtSignature": event.signature} if event.signature else {}
        if not event.text and not proof:
            return []
        return self._part(event.choice, {"text": event.text, "thought": True, **proof})

    def _call(self, event: ToolCallStart) -> list[Frame]:
        choice = self._choice(event.choice)
        choice.calls[event.index] = _Call(event.id, event.name)
        if choice.block is not None:
            choice.call_of[choice.block], choice.block = event.index, None
        return []

    def _arguments(self, event: ToolCallDelta) -> list[Frame]:
        call = self._choice(event.choice).calls.get(event.index)
        if call is not None:
            call.arguments += event.arguments
        return []

    def _citation(self, event: Citation) -> list[Frame]:
        """Those of other dialects have another shape."""
        fields = _fields(event.data)
        known = fields.keys() & {"groundingMetadata", "citationMetadata"}
        return self._candidate(event.choice, **fields) if known else []

    def _other(self, event: OtherEvent) -> list[Frame]:
        if event.dialect != DIALECT:
            return []
        fields = _fields(event.data)
        if event.name == "response":
            return self._chunk(**fields)
        if event.name == "candidate":
            return self._candidate(event.choice, **fields)
        return self._part(event.choice, fields)

    def _report(self, event: UsageReport) -> list[Frame]:
        self._usage = event.usage
        return []

    def _choice_end(self, event: ChoiceEnd) -> list[Frame]:
        """The calls that are left; the finish reason travels with the usage, later."""
        self._ends[event.choice] = event
        calls, self._choice(event.choice).calls = self._choice(event.choice).calls, {}
        return [f for call in calls.values() for f in self._part(event.choice, _call_part(call))]

    def _end(self, event: MessageEnd) -> list[Frame]:
        self._usage = event.usage or self._usage
        ends = self._ends or {0: ChoiceEnd(event.finish_reason, event.raw)}
        content = {"parts": [{"text": ""}], "role": "model"}
        candidates = [
            {"content": content, "finishReason": word_for(end.finish_reason, end.raw), "index": at}
            for at, end in sorted(ends.items())
        ]
        return self._chunk(candidates=candidates)


def _signature(event: BlockEnd) -> dict[str, str]:
    if event.dialect != DIALECT or "thoughtSignature" not in event.native:
        return {}
    proof = _fields(event.native).get("thoughtSignature")
    return {"thoughtSignature": proof} if isinstance(proof, str) else {}


def _call_part(call: _Call) -> dict[str, Any]:
    named = {} if call.id.startswith(NAMELESS) else {"id": call.id}
    return {"functionCall": {**named, "name": call.name, "args": arguments_of(call.arguments)}}


def arguments_of(text: str) -> Any:
    """The arguments of a call as an object. A call that was cut has none that can be used."""
    try:
        return _fields(text.strip() or "{}")
    except UNREADABLE:
        return {}
