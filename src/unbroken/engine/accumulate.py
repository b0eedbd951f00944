"""Folding events into a response.

A tool call counts as complete only in a complete answer, and only if it has a name and its
arguments are a JSON object: nothing else can be executed.
"""

from typing import Any

from unbroken.engine.recovery import Delivered
from unbroken.engine.stitch import Channel
from unbroken.engine.turn import Turn
from unbroken.events import (
    BlockEnd,
    BlockStart,
    ChoiceEnd,
    Citation,
    Event,
    FellBack,
    Logprobs,
    MessageStart,
    OtherEvent,
    ReasoningDelta,
    RefusalDelta,
    Restarted,
    Resumed,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    TurnNative,
    Usage,
    UsageReport,
)
from unbroken.response import Choice


class Accumulator:
    """Takes events as they come; knows the answer so far."""

    def __init__(self, choices: int = 1) -> None:
        self.id = ""
        self.model = ""
        self._expected = choices
        self.usage: Usage | None = None
        self._choices: dict[int, Turn] = {}
        self._asides = self._ended = 0
        self._fold: dict[type, Any] = {
            MessageStart: self._start,
            BlockStart: lambda e: self._at(e.choice).start(e),
            BlockEnd: lambda e: self._at(e.choice).stop(e),
            TurnNative: self._native,
            ReasoningDelta: lambda e: self._at(e.choice).reason(e),
            RefusalDelta: lambda e: self._at(e.choice).grow("refusal").text.add(e.text),
            ToolCallStart: lambda e: self._at(e.choice).call(e),
            ToolCallDelta: lambda e: self._at(e.choice).calls[e.index].text.add(e.arguments),
            Citation: self._citation,
            Logprobs: lambda e: self._at(e.choice).likely[e.refusal].extend(e.tokens),
            OtherEvent: self._other,
            UsageReport: self._usage,
            ChoiceEnd: self._end,
            Resumed: self._resumed,
            FellBack: lambda _: self._cut(),
            Restarted: lambda _: self.forget(),
        }

    @property
    def finished(self) -> bool:
        """Every choice that was asked for has its finish reason."""
        return self._ended >= self._expected

    @property
    def has_ended(self) -> bool:
        """Whether every choice that has begun has its finish reason."""
        return bool(self._choices) and self._ended >= len(self._choices)

    @property
    def first_end(self) -> ChoiceEnd | None:
        """How the first choice ended."""
        first = self._choices.get(min(self._choices, default=0))
        if first is None or first.end is None:
            return None
        return ChoiceEnd(first.end.finish_reason, first.end.raw, known=first.end.known)

    def add(self, events: list[Event]) -> None:
        """Fold in the events."""
        choices = self._choices
        for event in events:
            if type(event) is TextDelta:
                turn = choices.get(event.choice) or self._at(event.choice)
                (turn.open.get("text") or turn.grow("text")).text.add(event.text)
            else:
                fold = self._fold.get(type(event))
                if fold is not None:
                    fold(event)

    def delivered(self) -> Delivered:
        """What a reader of all events holds, by channel."""
        texts: dict[Channel, str] = {}
        names: dict[Channel, str] = {}
        for at, turn in self._choices.items():
            texts["text", at, 0] = turn.text("text")
            texts["refusal", at, 0] = turn.text("refusal")
            for index, block in turn.calls.items():
                texts["call", at, index] = str(block.text)
                names["call", at, index] = block.call.name if block.call else ""
        tokens = {
            (at, bool(which)): len(turn.likely[which])
            for at, turn in self._choices.items()
            for which in (0, 1)
        }
        blocks = [block for turn in self._choices.values() for block in turn.blocks]
        thoughts = any(block.kind == "reasoning" for block in blocks)
        pieces = sum(block.text.pieces for block in blocks if block.kind == "text")
        bounds = sum(turn.boundaries for turn in self._choices.values())
        return Delivered(texts, names, thoughts, self._asides, pieces, tokens, bounds)

    def name(self, events: list[Event]) -> None:
        """Take id and model from another attempt, which answers now."""
        for event in events:
            if type(event) is MessageStart:
                self._start(event)

    def forget(self) -> None:
        """Discard the content but keep the usage."""
        self._choices, self._asides, self._ended = {}, 0, 0

    def choices(self, *, complete: bool) -> tuple[Choice, ...]:
        """The choices as they stand, in order; at least one."""
        frozen = (
            choice.freeze(index, complete=complete)
            for index, choice in sorted(self._choices.items())
        )
        return tuple(frozen) or (Choice(),)

    def _at(self, index: int) -> Turn:
        found = self._choices.get(index)
        if found is None:
            found = self._choices[index] = Turn()
        return found

    def _start(self, event: MessageStart) -> None:
        self.id, self.model = event.id or self.id, event.model or self.model

    def _citation(self, event: Citation) -> None:
        self._at(event.choice).cite(event.data)
        self._asides += 1

    def _other(self, event: OtherEvent) -> None:
        self._at(event.choice).add_other(event)
        self._asides += 1

    def _native(self, event: TurnNative) -> None:
        self._at(event.choice).native = event

    def _usage(self, event: UsageReport) -> None:
        self.usage = event.usage

    def _end(self, event: ChoiceEnd) -> None:
        turn = self._at(event.choice)
        self._ended += turn.end is None
        turn.end = event

    def _resumed(self, event: Resumed) -> None:
        if event.how not in ("resume", "replay"):
            self._cut()

    def _cut(self) -> None:
        for turn in self._choices.values():
            turn.cut()
