"""The streamed answer of Gemini: frames to events (ai.google.dev/api/generate-content).

Each frame is a whole GenerateContentResponse that holds the next parts of the answer. Facts that
shape this file:

* there is no terminal frame: the answer has ended when every candidate has a `finishReason` and the
  body ends. Grounding and usage may come with the last frame or after it;
* texts of neighbouring parts are one text. A part with a `thoughtSignature` stays a part of its
  own, since it has to go back exactly as it came (ai.google.dev: thought signatures);
* a `functionCall` comes whole and may lack an id; an answer with calls ends with STOP, too;
* a prompt that was refused has no candidates, but `promptFeedback.blockReason`.
"""

from typing import Any

import msgspec
from msgspec import Struct

from unbroken import native
from unbroken.events import (
    BlockEnd,
    BlockKind,
    BlockStart,
    ChoiceEnd,
    Citation,
    Event,
    MessageEnd,
    MessageStart,
    OtherEvent,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
    UsageReport,
)
from unbroken.wire.codec import Frame
from unbroken.wire.error_body import parse_error
from unbroken.wire.gemini.vocabulary import (
    DIALECT,
    FINISH,
    UsageMetadata,
    call_id,
    encode,
    usage_from,
)
from unbroken.wire.lenient import convert
from unbroken.wire.reader import BaseReader

_PLAIN = frozenset({"text", "thought"})
_UNSPECIFIED = "FINISH_REASON_UNSPECIFIED"


class _Call(Struct, gc=False):
    name: str = ""
    id: str = ""
    args: dict[str, Any] | None = None


class _Part(Struct, gc=False, rename="camel"):
    text: str | None = None
    thought: bool = False
    thought_signature: str = ""
    function_call: _Call | None = None


class _Content(Struct, gc=False):
    parts: list[dict[str, Any]] = []


class _Candidate(Struct, gc=False, rename="camel"):
    index: int = 0
    content: _Content | None = None
    finish_reason: str | None = None


class _Feedback(Struct, gc=False, rename="camel"):
    block_reason: str | None = None


class _Chunk(Struct, gc=False, rename="camel"):
    candidates: list[dict[str, Any]] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: UsageMetadata | None = None
    model_version: str | None = None
    response_id: str | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode
_fields = msgspec.json.Decoder(dict[str, Any]).decode

_OF_CANDIDATE = frozenset({"index", "content", "finishReason"})
_CITING = ("groundingMetadata", "citationMetadata")
_OF_RESPONSE = frozenset(
    {"candidates", "usageMetadata", "modelVersion", "responseId", "createTime"}
)


class _Choice:
    """One candidate: its open block, and what it has had."""

    def __init__(self) -> None:
        self.blocks = self.calls = 0
        self.kind: BlockKind | None = None
        self.native: dict[str, Any] = {}
        self.end: ChoiceEnd | None = None
        self.beside: dict[str, Any] = {}  # the newest fields beside the content


class GeminiReader(BaseReader):
    """Frames in, events out, for one streamed answer."""

    shape, words = _Chunk, FINISH

    def __init__(self) -> None:
        super().__init__()
        self._choices: dict[int, _Choice] = {}
        self._counted = UsageMetadata()
        self._usage: Usage | None = None
        self._id = ""
        self._started = False

    def eof(self, out: list[Event]) -> None:
        """The body has ended: so has the answer, if all of it has finish reasons."""
        ends = [choice.end for _, choice in sorted(self._choices.items())]
        first = ends[0] if ends else None
        if self.done or first is None or None in ends or self.error is not None:
            return
        self.done = True
        usage = self._usage and msgspec.structs.replace(self._usage, source="reported")
        out.append(MessageEnd(first.finish_reason, usage, first.raw, known=first.known))

    def _read(self, frame: Frame, out: list[Event]) -> None:
        chunk = _decode(frame.data)
        if chunk.error is not None:
            self.error = parse_error(frame.data)
            return
        self._start(chunk, out)
        for fields in chunk.candidates or ():
            self._candidate(fields, out)
        if chunk.prompt_feedback is not None and chunk.prompt_feedback.block_reason:
            self._end(self._choice(0), 0, chunk.prompt_feedback.block_reason, out)
        beside = {k: v for k, v in _fields(frame.data).items() if k not in _OF_RESPONSE}
        if beside:
            out.append(OtherEvent("response", encode(beside).decode(), dialect=DIALECT))
        if chunk.usage_metadata is not None:
            self._count(chunk.usage_metadata, out)

    def _start(self, chunk: _Chunk, out: list[Event]) -> None:
        if not self._started:
            self._started = True
            self._id = chunk.response_id or ""
            out.append(MessageStart(self._id, chunk.model_version or ""))

    def _count(self, wire: UsageMetadata, out: list[Event]) -> None:
        """Counts are cumulative; what a frame leaves out keeps its value."""
        said = {k: v for k, v in msgspec.structs.asdict(wire).items() if v is not None}
        self._counted = msgspec.structs.replace(self._counted, **said)
        final = bool(self._choices) and all(c.end for c in self._choices.values())
        usage = usage_from(self._counted, final=final)
        if usage != self._usage:
            self._usage = usage
            out.append(UsageReport(usage))

    def _choice(self, index: int) -> _Choice:
        return self._choices.setdefault(index, _Choice())

    def _candidate(self, fields: dict[str, Any], out: list[Event]) -> None:
        candidate = _as(fields, _Candidate)
        index, choice = candidate.index, self._choice(candidate.index)
        for part in candidate.content.parts if candidate.content else ():
            self._part(choice, index, part, out)
        beside = {k: v for k, v in fields.items() if k not in _OF_CANDIDATE}
        if beside and beside != choice.beside:
            choice.beside = beside
            self._beside(beside, index, out)
        if candidate.finish_reason and candidate.finish_reason != _UNSPECIFIED:
            self._end(choice, index, candidate.finish_reason, out)

    def _beside(self, fields: dict[str, Any], index: int, out: list[Event]) -> None:
        citing = ({name: fields[name]} for name in _CITING if fields.get(name))
        out.extend(Citation(encode(one).decode(), index) for one in citing)
        rest = {name: value for name, value in fields.items() if name not in _CITING}
        if rest:
            out.append(OtherEvent("candidate", encode(rest).decode(), index, DIALECT))

    def _end(self, choice: _Choice, index: int, raw: str, out: list[Event]) -> None:
        if choice.end is not None:
            return
        _close(choice, index, out)
        end = self._finish(raw, index)
        if end is None:
            return
        if end.finish_reason == "stop" and choice.calls:
            end = msgspec.structs.replace(end, finish_reason="tool_calls")
        choice.end = end
        out.append(end)

    # Parts

    def _part(self, choice: _Choice, index: int, fields: dict[str, Any], out: list[Event]) -> None:
        part = _as(fields, _Part)
        if part.function_call is not None:
            self._call(choice, index, part.function_call, fields, out)
        elif part.text is None:
            _open(choice, index, "other", fields, out)
            out.append(OtherEvent("part", encode(fields).decode(), index, DIALECT))
            _close(choice, index, out)
        else:
            _text(choice, index, part, fields, out)

    def _call(
        self, choice: _Choice, index: int, call: _Call, fields: dict[str, Any], out: list[Event]
    ) -> None:
        number = choice.calls
        marked = {**fields["functionCall"], "args": native.arguments_json(number)}
        _open(choice, index, "tool_call", {**fields, "functionCall": marked}, out)
        choice.calls += 1
        name = call.id or call_id(self._id, number)
        out.append(ToolCallStart(number, name, call.name, index))
        out.append(ToolCallDelta(number, encode(call.args or {}).decode(), index))
        _close(choice, index, out)


def _as(fields: dict[str, Any], kind: Any) -> Any:
    """The struct of an object; one whose fields have odd types is read leniently."""
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError:
        return convert(fields, kind)


def _text(
    choice: _Choice, index: int, part: _Part, fields: dict[str, Any], out: list[Event]
) -> None:
    kind: BlockKind = "reasoning" if part.thought else "text"
    alone = not fields.keys() <= _PLAIN
    if alone or kind != choice.kind:
        if not (part.text or alone):
            return
        _open(choice, index, kind, {**fields, "text": native.TEXT}, out)
    if kind == "reasoning" and (part.text or part.thought_signature):
        out.append(ReasoningDelta(part.text or "", index, part.thought_signature))
    elif part.text:
        out.append(TextDelta(part.text, index))
    if alone:
        _close(choice, index, out)


def _open(
    choice: _Choice, index: int, kind: BlockKind, data: dict[str, Any], out: list[Event]
) -> None:
    _close(choice, index, out)
    choice.kind, choice.native = kind, data
    out.append(BlockStart(choice.blocks, kind, index))


def _close(choice: _Choice, index: int, out: list[Event]) -> None:
    if choice.kind is None:
        return
    out.append(BlockEnd(choice.blocks, native.template(choice.native), DIALECT, index))
    choice.kind = None
    choice.blocks += 1
