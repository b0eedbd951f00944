"""The streamed answer of OpenAI chat completions and everything compatible: chunks to events.

Facts and sources are in docs/reference/wire-formats.md; the ones that shape this file:

* the finish reason is the terminal. `[DONE]` only ends the transport: torn streams carry it too;
* usage comes in a chunk without choices, after the finish reason, or in every chunk, cumulative;
* a finish reason in the first chunk with content may stand in every chunk
  (suhaibbinyounis/github-copilot-api-vscode#100): it counts when a chunk without content follows.
"""

from typing import Any

import msgspec

from unbroken.events import (
    CONTENT,
    ChoiceEnd,
    Citation,
    Event,
    MessageEnd,
    MessageStart,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    Usage,
    UsageReport,
)
from unbroken.wire.codec import Frame
from unbroken.wire.error_body import parse_error
from unbroken.wire.finish import judge
from unbroken.wire.openai_chat.calls import Calls
from unbroken.wire.openai_chat.chunks import (
    CallFragment,
    Chunk,
    Delta,
    LogprobsObject,
    WireChoice,
    decode_chunk,
    fragment_of,
    list_content,
    logprob_events,
)
from unbroken.wire.openai_chat.passthrough import (
    NO_ASIDE,
    Aside,
    other,
    taken_apart,
    unknown_chunk,
)
from unbroken.wire.openai_chat.turn import TurnFields
from unbroken.wire.openai_chat.vocabulary import DONE, FINISH, NOT_FINISHED, ChatUsage, usage_from
from unbroken.wire.reader import BaseReader

_encode = msgspec.json.Encoder().encode


class ChatReader(BaseReader):
    """Chunks in, events out, for one streamed answer of `choices` choices.

    `implied_finish` is for servers known never to send a finish reason: there, and only there,
    a clean end counts as `stop`.
    """

    shape, words, text_key = Chunk, FINISH, "content"

    def __init__(
        self, choices: int = 1, *, implied_finish: bool = False, whole: bool = False
    ) -> None:
        super().__init__()
        self._choices, self._implied, self._whole = choices, implied_finish, whole
        self._started = False
        self._early: list[Event] = []  # Azure reports on the prompt before the answer starts
        self._usage: Usage | None = None
        self._ends: dict[int, ChoiceEnd] = {}
        self._held: dict[int, ChoiceEnd] = {}  # ends that came with content: see above
        self._repeating: set[int] = set()  # choices whose end comes with content
        self._spoken: dict[int, str] = {}  # choices that have content, and by which field it came
        self._calls: dict[int, Calls] = {}
        self._turns: dict[int, TurnFields] = {}

    def eof(self, out: list[Event]) -> None:
        """The body ended: complete if every choice has its finish reason."""
        if not self.done and self.error is None:
            self._conclude(out, marked=False)

    def _read(self, frame: Frame, out: list[Event]) -> None:
        if frame.data.strip() == DONE:
            self._conclude(out, marked=True)
            self.done = True
            return
        chunk, asides = _decode(frame.data)
        self._usage_of(chunk, out)
        failed = chunk.error or (chunk.base_resp and chunk.base_resp.status_code)
        if failed or frame.event == "error" or chunk.object == "error":
            self.error = parse_error(frame.data)
            return
        self._start(chunk, out)
        before = len(out)
        for at, choice in enumerate(chunk.choices or ()):
            self._choice(choice, at, asides[at] if asides else NO_ASIDE, out)
        if not chunk.choices:
            self._beside(chunk, frame, out)
        if chunk.usage is None and len(out) == before + 1 and not self._held:
            self._learn(frame.data, out[before])

    def _beside(self, chunk: Chunk, frame: Frame, out: list[Event]) -> None:
        """A chunk without choices."""
        for index in list(self._held):
            self._release(index, out)
        unknown = unknown_chunk(frame.data, frame.event) if chunk.usage is None else None
        if unknown is not None:
            (out if self._started else self._early).append(unknown)

    def _start(self, chunk: Chunk, out: list[Event]) -> None:
        if not self._started and chunk.choices is not None and (chunk.id or chunk.choices):
            self._started = True
            out.append(MessageStart(chunk.id or "", chunk.model or ""))
            out += self._early

    def _usage_of(self, chunk: Chunk, out: list[Event]) -> None:
        """Usage stands beside the choices, within one (Moonshot), or in `x_groq`."""
        found = [chunk.usage, chunk.x_groq and chunk.x_groq.usage]
        found += [choice.usage for choice in chunk.choices or ()]
        reported = (usage_from(wire) for wire in found if isinstance(wire, ChatUsage))
        usage = next((usage for usage in reported if usage is not None), None)
        if usage is not None:
            self._usage = usage
            out.append(UsageReport(usage))

    # One choice

    def _choice(self, choice: WireChoice, at: int, aside: Aside, out: list[Event]) -> None:
        index = (at if self._whole else 0) if choice.index is None else choice.index
        before = len(out)
        self._delta(self._delta_of(choice, index), aside, index, out)
        if choice.logprobs is not None:
            logprob_events(choice.logprobs, index, out)
        if aside.logprobs is not None:
            out.append(other("logprobs", {}, index, logprobs=aside.logprobs))
        spoke = any(type(event) in CONTENT for event in out[before:])
        if spoke:
            self._ends.pop(index, None)  # content after an end: it was none
            self._held.pop(index, None)
        if choice.error:
            self.error = parse_error(_encode({"error": choice.error}))
        elif choice.finish_reason and choice.finish_reason.lower() not in NOT_FINISHED:
            self._end(choice.finish_reason, index, out, spoke=spoke)
        elif not spoke:
            self._release(index, out)
        if spoke:
            self._spoken.setdefault(index, "message" if choice.message else "delta")

    def _delta_of(self, choice: WireChoice, index: int) -> Delta:
        """The delta; a message in its place is one, unless it repeats what came as deltas."""
        delta = choice.delta
        if choice.message is not None and self._spoken.get(index) != "delta":
            delta = choice.message
        delta = delta or Delta()
        if choice.text and not delta.content:
            delta.content = choice.text
        return delta

    def _delta(self, delta: Delta, aside: Aside, index: int, out: list[Event]) -> None:
        """One delta may hold several things; null, missing and empty all mean nothing."""
        reasoning = delta.reasoning or delta.reasoning_content
        if reasoning:
            out.append(ReasoningDelta(reasoning, index))
        content = delta.content
        if isinstance(content, str):
            if content:
                out.append(TextDelta(content, index))
        elif content:
            list_content(content, index, out)
        if delta.refusal:
            out.append(RefusalDelta(delta.refusal, index))
        self._fragments(delta, aside, index, out)
        if delta.annotations:
            out.extend(Citation(bytes(raw).decode(), index) for raw in delta.annotations)
        if aside.delta:
            self._turn(index).add(aside.delta)
            out.extend(other(name, {name: raw}, index) for name, raw in aside.delta.items())

    def _fragments(self, delta: Delta, aside: Aside, index: int, out: list[Event]) -> None:
        pieces = list(delta.tool_calls or ())
        if delta.function_call is not None:  # what tool calls were before there were several
            pieces.append(CallFragment(function=delta.function_call))
        for number, call in enumerate(pieces):
            unknown: dict[str, Any] = dict(aside.calls[number]) if number < len(aside.calls) else {}
            self._calls_of(index).add(fragment_of(call, unknown), out)

    def _calls_of(self, index: int) -> Calls:
        """The calls of a choice. Those of a second one that was not asked for belong to the first
        (GitHub Copilot: HKUDS/nanobot#1481).
        """
        index = 0 if self._choices == 1 else index
        return self._calls.setdefault(index, Calls(index))

    def _turn(self, index: int) -> TurnFields:
        return self._turns.setdefault(index, TurnFields())

    # The end

    def _end(self, raw: str, index: int, out: list[Event], *, spoke: bool) -> None:
        """The first finish reason of a choice counts; some servers send it twice."""
        end = None if index in self._ends else self._finish(raw, index)
        if end is None:
            return
        if spoke and not self._whole and (index not in self._spoken or index in self._repeating):
            self._repeating.add(index)
            self._held[index] = end
        else:
            self._report(end, out)

    def _release(self, index: int, out: list[Event]) -> None:
        end = self._held.pop(index, None)
        if end is not None:
            self._report(end, out)

    def _report(self, end: ChoiceEnd, out: list[Event]) -> None:
        self._ends[end.choice] = end
        self._template.forget()  # what comes now must be read in full
        if end.choice in self._calls:
            self._calls[end.choice].finish(out)
        out.append(end)

    def _conclude(self, out: list[Event], *, marked: bool) -> None:
        """The end of the body, or its mark: complete if every choice has ended."""
        for calls in self._calls.values():
            calls.finish(out)
        for index in list(self._held):
            self._release(index, out)
        if self._implied and self._started:
            self._imply(out)
        open_choices = self._spoken.keys() - self._ends.keys()
        enough = len(self._ends) >= self._choices or (marked and not open_choices)
        if not self._ends or not enough:
            return
        first = self._ends[min(self._ends)]
        out += self._natives()
        end = MessageEnd(first.finish_reason, self._usage, first.raw, known=first.known)
        out.append(end)
        self.done = True

    def _imply(self, out: list[Event]) -> None:
        for index in range(self._choices):
            if index not in self._ends:
                called = index in self._calls and self._calls[index].started
                self._report(judge(FINISH, "tool_calls" if called else "stop", index), out)

    def _natives(self) -> list[Event]:
        """The turns as this dialect takes them back, where parts alone would lose something."""
        natives = (
            self._turns.get(index, TurnFields()).native(index, self._calls.get(index))
            for index in sorted(self._ends)
        )
        return [native for native in natives if native is not None]


def _decode(data: bytes) -> tuple[Chunk, list[Aside]]:
    """The chunk; with it what is unknown in each choice, if anything is."""
    try:
        return decode_chunk(data), []
    except msgspec.ValidationError:
        known, asides = taken_apart(data, LogprobsObject)
        return decode_chunk(known), asides
