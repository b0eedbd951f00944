"""The streamed answer of OpenAI chat completions and everything compatible: chunks to events.

Read here: only the needed fields, typed, null and missing and empty alike. Facts and sources are
in docs/reference/wire-formats.md; the ones that shape this file:

* the finish reason is the terminal. `[DONE]` only ends the transport: torn streams carry it too;
* usage comes in a chunk without choices, after the finish reason, or in every chunk, cumulative;
* tool fragments may lack an index, share one, or repeat the id: see `_Calls`.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from unbroken.errors import ProviderError, RemoteProtocolError, ServerError
from unbroken.events import (
    ChoiceEnd,
    Citation,
    Event,
    Logprobs,
    MessageEnd,
    MessageStart,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    ToolCallStart,
    Usage,
    UsageReport,
)
from unbroken.ready import ready
from unbroken.wire.chunk_template import ChunkTemplate
from unbroken.wire.codec import Frame
from unbroken.wire.error_body import UNREADABLE, parse_error
from unbroken.wire.malformed import recover_or_skip
from unbroken.wire.openai_chat.passthrough import (
    NO_ASIDE,
    Aside,
    Fields,
    around,
    other,
    taken_apart,
    unknown_chunk,
    unknown_of_call,
    unknown_part,
)
from unbroken.wire.openai_chat.vocabulary import DONE, FINISH, ChatUsage, usage_from


class _Function(Struct, gc=False):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class _Call(Struct, gc=False, forbid_unknown_fields=True):
    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: _Function | None = None


class _Piece(Struct, gc=False):
    type: str = ""
    text: str | None = None
    thinking: "str | list[_Piece] | None" = None


class _Delta(Struct, gc=False, forbid_unknown_fields=True):
    role: Raw = Raw(b"null")
    content: str | list[Raw] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None
    function_call: _Function | None = None
    annotations: list[Raw] | None = None


class _Token(Struct, gc=False):
    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None
    top_logprobs: "list[_Token] | None" = None


@ready
class _Logprobs(Struct, gc=False, forbid_unknown_fields=True):
    content: list[_Token] | None = None
    refusal: list[_Token] | None = None


class _Choice(Struct, gc=False):
    index: int = 0
    delta: _Delta | None = None
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None
    error: Any = None


class _Chunk(Struct, gc=False):
    id: str | None = None
    object: str | None = None
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: ChatUsage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode
_piece = msgspec.json.Decoder(_Piece).decode
_encode = msgspec.json.Encoder().encode


class _Calls:
    """The tool calls of one choice, told apart by id, then index, then the open call.

    Servers disagree: no index at all (Gemini-compatible, older Ollama), index 0 for every call
    (converters), the id in the first fragment only or in each. A new id or another name at a
    used index opens a new call.
    """

    def __init__(self) -> None:
        self._names: list[str] = []
        self._by_id: dict[str, int] = {}
        self._by_index: dict[int, int] = {}

    def place(self, call: _Call) -> tuple[int, bool]:
        """Our number for the fragment's call, and whether the fragment opens it."""
        name = (call.function and call.function.name) or ""
        at = self._known(call, name)
        opens = at is None
        if at is None:
            at = len(self._names)
            self._names.append(name)
        if call.id:
            self._by_id[call.id] = at
        if call.index is not None:
            self._by_index[call.index] = at
        return at, opens

    def _known(self, call: _Call, name: str) -> int | None:
        if call.id:
            return self._by_id.get(call.id)
        if call.index is None:
            return None if name or not self._names else len(self._names) - 1
        at = self._by_index.get(call.index)
        renamed = at is not None and name and name != self._names[at]
        return None if renamed else at


class ChatReader:
    """Chunks in, events out, for one streamed answer.

    `implied_finish` is for servers known never to send a finish reason: there, and only there,
    a clean end counts as `stop`.
    """

    def __init__(self, choices: int = 1, *, implied_finish: bool = False) -> None:
        self.error: ProviderError | None = None
        self.skipped, self.done = 0, False
        self.cursor: dict[str, str] | None = None  # nothing to go on from
        self._choices = choices
        self._implied = implied_finish
        self._started = False
        self._early: list[Event] = []  # Azure speaks of the prompt before the answer starts
        self._usage: Usage | None = None
        self._ends: dict[int, ChoiceEnd] = {}
        self._calls: dict[int, _Calls] = {}
        self._like = ChunkTemplate("content")
        self._like_choice = 0

    def read(self, frames: list[Frame], out: list[Event]) -> None:
        """Append what the chunks say. What can't be read is passed over and counted."""
        like = self._like.read
        for frame in frames:
            try:
                text = like(frame.data)
                if text is None or frame.event:
                    self.read_one(frame, out)
                elif text:
                    out.append(TextDelta(text, self._like_choice))
            except UNREADABLE:
                self._unreadable(frame, out)
            if self.done or self.error is not None:
                return  # the end, or an error: whatever follows is no part of the answer

    def read_one(self, frame: Frame, out: list[Event]) -> None:
        """Append what one chunk says; raises one of UNREADABLE."""
        chunk, asides = _read(frame.data)
        if chunk.error is not None or frame.event == "error" or chunk.object == "error":
            self.error = parse_error(frame.data)
            return
        if not self._started and (chunk.id or chunk.choices):
            self._started = True
            out.append(MessageStart(chunk.id or "", chunk.model or ""))
            out += self._early
        before = len(out)
        for at, choice in enumerate(chunk.choices or ()):
            self._choice(choice, asides[at] if asides else NO_ASIDE, out)
        if not chunk.choices and chunk.usage is None:
            unknown = unknown_chunk(frame.data, frame.event)
            if unknown is not None:
                (out if self._started else self._early).append(unknown)
        if chunk.usage is None and len(out) == before + 1:
            self._learn(frame.data, out[before])
        if chunk.usage is not None:
            self._usage = usage_from(chunk.usage)
            out.append(UsageReport(self._usage))

    def _learn(self, data: bytes, event: Event) -> None:
        """Text alone is what most chunks say."""
        if type(event) is TextDelta and self._like.learn(data, event.text):
            self._like_choice = event.choice

    def eof(self, out: list[Event]) -> None:
        """The body ended: complete if every choice has its finish reason."""
        if not self.done and self.error is None:
            self._conclude(out)

    def _unreadable(self, frame: Frame, out: list[Event]) -> None:
        if frame.data.strip() == DONE:
            self.eof(out)
            self.done = True
        else:
            recover_or_skip(self, frame, out)

    def _conclude(self, out: list[Event]) -> None:
        if self._implied and self._started:
            for index in range(self._choices):
                self._end(index, "stop", out)
        if len(self._ends) >= self._choices:
            first = self._ends[min(self._ends)]
            out.append(MessageEnd(first.finish_reason, self._usage, first.raw))
            self.done = True

    def _choice(self, choice: _Choice, aside: Aside, out: list[Event]) -> None:
        index = choice.index
        if choice.delta is not None:
            self._delta(choice.delta, aside, index, out)
        if choice.logprobs is not None:
            _likely(choice.logprobs, index, out)
        if aside.logprobs is not None:
            out.append(other("logprobs", {}, index, logprobs=aside.logprobs))
        if choice.error is not None:
            self.error = parse_error(_encode({"error": choice.error}))
        elif choice.finish_reason:
            self._end(index, choice.finish_reason, out)

    def _delta(self, delta: _Delta, aside: Aside, index: int, out: list[Event]) -> None:
        """One delta may hold several things; null, missing and empty all mean nothing."""
        reasoning = delta.reasoning or delta.reasoning_content
        if reasoning:
            out.append(ReasoningDelta(reasoning, index))
        content = delta.content
        if content:
            if isinstance(content, str):
                out.append(TextDelta(content, index))
            else:
                _listed(content, index, out)
        if delta.refusal:
            out.append(RefusalDelta(delta.refusal, index))
        if delta.tool_calls:
            self._fragments(delta.tool_calls, aside.calls, index, out)
        if delta.function_call is not None:  # what tool calls were before there were several
            self._fragments([_Call(function=delta.function_call)], [], index, out)
        if delta.annotations:
            out.extend(Citation(bytes(raw).decode(), index) for raw in delta.annotations)
        if aside.delta:
            out.extend(other(name, {name: raw}, index) for name, raw in aside.delta.items())

    def _fragments(
        self, calls: list[_Call], asides: list[Fields], choice: int, out: list[Event]
    ) -> None:
        places = self._calls.setdefault(choice, _Calls())
        for number, call in enumerate(calls):
            unknown: Mapping[str, Any] = asides[number] if asides else {}
            at, opens = places.place(call)
            if call.function is not None or not unknown:
                _fragment(call, at, choice, out, opens=opens)
            elif opens:  # a tool of another type
                unknown = {"id": call.id, "type": call.type, **unknown}
            if unknown:
                out.append(unknown_of_call(at, choice, unknown, ours=call.function is not None))

    def _end(self, index: int, raw: str, out: list[Event]) -> None:
        """The first finish reason of a choice counts; some servers send it twice."""
        if index in self._ends:
            return
        reason = FINISH.get(raw, "stop")
        if reason == "error":
            self.error = ServerError(f"the provider ended the answer with {raw!r}", code=raw)
            return
        end = self._ends[index] = ChoiceEnd(reason, raw, index)
        out.append(end)


def _read(data: bytes) -> tuple[_Chunk, list[Aside]]:
    """The chunk; with it what is unknown in each choice, if anything is."""
    try:
        return _decode(data), []
    except msgspec.ValidationError:
        known, asides = taken_apart(data, _Logprobs)
        return _decode(known), asides


def _fragment(call: _Call, at: int, choice: int, out: list[Event], *, opens: bool) -> None:
    function = call.function or _Function()
    if opens:
        out.append(ToolCallStart(at, call.id or f"call_{at}", function.name or "", choice))
    arguments = function.arguments
    if arguments:
        text = arguments if isinstance(arguments, str) else _encode(arguments).decode()
        out.append(ToolCallDelta(at, text, choice))


def _listed(content: list[Raw], index: int, out: list[Event]) -> None:
    """Content as a list of parts: Mistral's reasoning models send it so, streamed and whole."""
    for raw in content:
        part = _piece(raw)
        thought = part.thinking or ""
        if isinstance(thought, list):
            thought = "".join(inner.text or "" for inner in thought)
        if thought:
            out.append(ReasoningDelta(thought, index))
        if part.text:
            out.append(TextDelta(part.text, index))
        if part.type not in ("", "text", "thinking"):
            out.append(unknown_part(part.type, raw, index))


def _likely(said: _Logprobs, index: int, out: list[Event]) -> None:
    if said.content:
        out.append(Logprobs(_tokens(said.content), index))
    if said.refusal:
        out.append(Logprobs(_tokens(said.refusal), index, refusal=True))


def _tokens(wire: list[_Token] | None) -> tuple[TokenLogprob, ...]:
    return tuple(
        TokenLogprob(t.token, t.logprob, t.bytes, _tokens(t.top_logprobs)) for t in wire or ()
    )


def whole(body: bytes) -> list[Event]:
    """The events of an answer in one piece, which is one chunk whose deltas are called messages.

    Raises RemoteProtocolError if it is no answer, ProviderError if it is an error.
    """
    try:
        fields = msgspec.json.decode(body, type=Fields)
        choices = msgspec.json.decode(fields.get("choices", b"null"), type=list[Fields] | None)
        deltas = [
            {**choice, "delta": choice.get("message", Raw(b"null"))} for choice in choices or ()
        ]
        reader, out = ChatReader(len(deltas)), list[Event]()
        reader.read_one(Frame(_encode({**fields, "choices": deltas})), out)
    except UNREADABLE as error:
        raise RemoteProtocolError(f"the answer can't be read: {error}") from error
    if reader.error is not None:
        raise reader.error
    out += around(fields)
    if deltas:
        reader.eof(out)
    return out
