"""Folding events into a response.

Deltas are kept as pieces and joined when somebody asks. A tool call counts as complete only in a
complete answer, and only if its arguments are a JSON object: nothing else can be executed.
"""

from typing import Any

import msgspec

from unbroken.engine.recovery import Delivered
from unbroken.engine.seam import Channel
from unbroken.events import (
    ChoiceEnd,
    Citation,
    Event,
    FinishReason,
    Logprobs,
    MessageStart,
    OtherEvent,
    ReasoningDelta,
    RefusalDelta,
    Restarted,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    ToolCallStart,
    Usage,
    UsageReport,
)
from unbroken.response import Choice, ChoiceLogprobs, Other, PartialToolCall, ToolCall

_arguments = msgspec.json.Decoder(dict[str, Any]).decode

_MANY = 64  # pieces that are joined at a time


class _Call:
    __slots__ = ("id", "name", "pieces")

    def __init__(self, id: str, name: str) -> None:
        self.id, self.name = id, name
        self.pieces: list[str] = []


class _Text:
    """Text that grows. Its pieces are joined now and then: a small string takes ten times the
    memory of its letters, and a gateway holds many answers at once.
    """

    __slots__ = ("_joined", "_loose", "_settled")

    def __init__(self) -> None:
        self._loose: list[str] = []
        self._joined: list[str] = []
        self._settled = 0  # the pieces that have been joined

    @property
    def pieces(self) -> int:
        return self._settled + len(self._loose)

    def add(self, piece: str) -> None:
        self._loose.append(piece)
        if len(self._loose) >= _MANY:
            self._settled += len(self._loose)
            self._joined.append("".join(self._loose))
            self._loose.clear()

    def __str__(self) -> str:
        return "".join((*self._joined, *self._loose))


class _Choice:
    __slots__ = (
        "calls",
        "citations",
        "finish",
        "likely",
        "others",
        "raw",
        "reasoning",
        "refusal",
        "signature",
        "text",
    )

    def __init__(self) -> None:
        self.text = _Text()
        self.reasoning: list[str] = []
        self.refusal: list[str] = []
        self.citations: list[str] = []
        self.signature = ""
        self.calls: dict[int, _Call] = {}
        self.likely: tuple[list[TokenLogprob], list[TokenLogprob]] = ([], [])  # text, refusal
        self.others: list[Other] = []
        self.finish: FinishReason | None = None
        self.raw = ""

    def aside(self, event: OtherEvent) -> None:
        """Keep it, and its place in the text."""
        self.others.append(Other(event, len(str(self.text))))

    def freeze(self, index: int, *, complete: bool) -> Choice:
        whole, partial = self._split_calls(complete=complete)
        return Choice(
            index=index,
            text=str(self.text),
            reasoning="".join(self.reasoning),
            reasoning_signature=self.signature,
            refusal="".join(self.refusal),
            tool_calls=tuple(whole),
            partial_tool_calls=tuple(partial),
            citations=tuple(self.citations),
            finish_reason=self.finish,
            raw_finish_reason=self.raw,
            logprobs=ChoiceLogprobs(*map(tuple, self.likely)) if any(self.likely) else None,
            others=tuple(self.others),
        )

    def _split_calls(self, *, complete: bool) -> tuple[list[ToolCall], list[PartialToolCall]]:
        whole: list[ToolCall] = []
        partial: list[PartialToolCall] = []
        for call in self.calls.values():
            text = "".join(call.pieces)
            arguments = self._parsed(text) if complete else None
            if arguments is None:
                partial.append(PartialToolCall(call.id, call.name, text))
            else:
                whole.append(ToolCall(call.id, call.name, arguments))
        return whole, partial

    def _parsed(self, text: str) -> dict[str, Any] | None:
        """The arguments as an object; a call without any has none, unless it was cut short."""
        if not text.strip():
            return None if self.finish in ("length", "content_filter") else {}
        try:
            return _arguments(text)
        except msgspec.DecodeError:
            return None


class Accumulator:
    """Takes events as they come; knows the answer so far."""

    def __init__(self, choices: int = 1) -> None:
        self.id = ""
        self.model = ""
        self._expected = choices
        self.usage: Usage | None = None
        self._choices: dict[int, _Choice] = {}
        self._asides = self._ended = 0
        self._fold: dict[type, Any] = {
            MessageStart: self._start,
            ReasoningDelta: self._reasoning,
            RefusalDelta: lambda e: self._at(e.choice).refusal.append(e.text),
            ToolCallStart: self._call,
            ToolCallDelta: lambda e: self._at(e.choice).calls[e.index].pieces.append(e.arguments),
            Citation: self._citation,
            Logprobs: lambda e: self._at(e.choice).likely[e.refusal].extend(e.tokens),
            OtherEvent: self._aside,
            UsageReport: self._usage,
            ChoiceEnd: self._end,
            Restarted: lambda _: self.forget(),
        }

    @property
    def finished(self) -> bool:
        """Every choice that was asked for has its finish reason."""
        return self._ended >= self._expected

    @property
    def first_end(self) -> ChoiceEnd | None:
        """How the first choice ended."""
        first = self._choices.get(min(self._choices, default=0))
        if first is None or first.finish is None:
            return None
        return ChoiceEnd(first.finish, first.raw)

    def add(self, events: list[Event]) -> None:
        """Fold in the events."""
        choices = self._choices
        for event in events:
            if type(event) is TextDelta:
                (choices.get(event.choice) or self._at(event.choice)).text.add(event.text)
            else:
                fold = self._fold.get(type(event))
                if fold is not None:
                    fold(event)

    def delivered(self) -> Delivered:
        """What somebody who has read every event holds, by channel."""
        texts: dict[Channel, str] = {}
        names: dict[Channel, str] = {}
        for at, choice in self._choices.items():
            texts["text", at, 0] = str(choice.text)
            texts["refusal", at, 0] = "".join(choice.refusal)
            for index, call in choice.calls.items():
                texts["call", at, index] = "".join(call.pieces)
                names["call", at, index] = call.name
        tokens = {
            (at, bool(which)): len(choice.likely[which])
            for at, choice in self._choices.items()
            for which in (0, 1)
        }
        thoughts = any(choice.reasoning for choice in self._choices.values())
        pieces = sum(choice.text.pieces for choice in self._choices.values())
        return Delivered(texts, names, thoughts, self._asides, pieces, tokens)

    def name(self, events: list[Event]) -> None:
        """Another attempt answers: it is its model that is reported."""
        for event in events:
            if type(event) is MessageStart:
                self._start(event)

    def forget(self) -> None:
        """What was said no longer holds; what it cost does."""
        self._choices, self._asides, self._ended = {}, 0, 0

    def choices(self, *, complete: bool) -> tuple[Choice, ...]:
        """The choices as they stand, in order; at least one."""
        frozen = (
            choice.freeze(index, complete=complete)
            for index, choice in sorted(self._choices.items())
        )
        return tuple(frozen) or (Choice(),)

    def _at(self, index: int) -> _Choice:
        found = self._choices.get(index)
        if found is None:
            found = self._choices[index] = _Choice()
        return found

    def _start(self, event: MessageStart) -> None:
        self.id, self.model = event.id or self.id, event.model or self.model

    def _reasoning(self, event: ReasoningDelta) -> None:
        choice = self._at(event.choice)
        choice.reasoning.append(event.text)
        choice.signature = event.signature or choice.signature

    def _call(self, event: ToolCallStart) -> None:
        self._at(event.choice).calls[event.index] = _Call(event.id, event.name)

    def _citation(self, event: Citation) -> None:
        self._at(event.choice).citations.append(event.data)
        self._asides += 1

    def _aside(self, event: OtherEvent) -> None:
        self._at(event.choice).aside(event)
        self._asides += 1

    def _usage(self, event: UsageReport) -> None:
        self.usage = event.usage

    def _end(self, event: ChoiceEnd) -> None:
        choice = self._at(event.choice)
        self._ended += choice.finish is None
        choice.finish, choice.raw = event.finish_reason, event.raw
