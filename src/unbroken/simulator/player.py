"""Turns a request and a scenario into timed bytes: steps for a transport or a server to carry out.

The player knows no clock and no socket. It answers on the provider's own wire, and applies the
scenario's faults to the steps. Steps are made as they are taken, and an answer is bounded in tokens
and bytes: requests come from strangers where a gateway serves the simulator.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator

import msgspec
from msgspec import Struct

from unbroken.continuation import words_in
from unbroken.errors import BadRequest
from unbroken.events import (
    ChoiceEnd,
    Event,
    FinishReason,
    Logprobs,
    MessageEnd,
    MessageStart,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    ToolCallStart,
    Usage,
    UsageReport,
)
from unbroken.messages import Message, Request, Text, ToolResult, ToolUse
from unbroken.response import Choice, ChoiceLogprobs, Response, ToolCall
from unbroken.simulator import fake_json, fake_text, fake_tools
from unbroken.simulator.faults import FAULTS, REPLACING
from unbroken.simulator.rng import Rng
from unbroken.simulator.scenario import MAX_TOKENS, Scenario, pace_of
from unbroken.simulator.steps import JSON, SIMULATED, End, Head, Send, Step, Wait, refuse
from unbroken.wire.codec import Codec, Frame

_SEED_TEXT = 64 * 1024
"""Characters at both ends of a conversation that an answer depends on."""

_PIECE = 64 * 1024
"""Bytes of one step of a scenario's own body."""


def play(request: Request, codec: Codec, scenario: Scenario, number: int) -> Iterator[Step]:
    """Return the steps that answer the `number`th request (from 1) of this scenario."""
    if request.partial_turn and scenario.prefill == "refuse":
        return iter(
            refuse(BadRequest(_NO_PREFILL, status=400, code="invalid_request_error"), codec)
        )
    made = _streamed if request.stream else _whole
    steps = made(_Answer(request, scenario, number), codec)
    for fault in scenario.faults:
        if 0 < fault.times < number:
            continue
        steps = FAULTS[fault.kind](steps, fault, codec)
        if fault.kind in REPLACING:
            break
    return steps


_NO_PREFILL = "This model does not support assistant message prefill."


# The answer


class _Choice(Struct):
    """One choice: its events, made as they are taken, and what is known when all are."""

    events: Iterator[Event]
    finish: FinishReason = "stop"
    tokens: int = 0
    reasoning: int = 0

    def counted(self) -> Iterator[Event]:
        """The events; `tokens` and `reasoning` are those that were taken."""
        for event in self.events:
            self.tokens += type(event) is not Logprobs
            self.reasoning += type(event) is ReasoningDelta
            yield event


class _Answer:
    """What is answered to one request, and at which pace."""

    def __init__(self, request: Request, scenario: Scenario, number: int) -> None:
        self.request, self.scenario = request, scenario
        turns, self._begun, self._repeated = _parted(request)
        self._number = number if scenario.varies else 1
        self._prompt = _clipped([_text(message) for message in turns])
        self._limit = MAX_TOKENS // (request.n or 1)
        wanted = scenario.tokens
        self._tokens = None if wanted is None else min(wanted, MAX_TOKENS + 1)  # 1: cut, not whole
        self._room = fake_json.MAX_CHARACTERS // (request.n or 1)
        calls = fake_tools.calls(request, Rng(f"{scenario.seed}{self._prompt}"), self._room)
        self.choices = [self._choice(index, calls) for index in range(request.n or 1)]

    @property
    def id(self) -> str:
        rng = Rng(f"{self.scenario.seed}{self.request.model}{self._prompt}")
        return f"sim-{int(rng.random() * 16**12):012x}"

    @property
    def waits(self) -> tuple[float, float]:
        """Seconds to the first token and between tokens."""
        pace, scenario = pace_of(self.request.model), self.scenario
        rng = Rng(f"pace{scenario.seed}{self._prompt}")
        first = pace.first(rng) if scenario.ttft is None else scenario.ttft
        rate = pace.tps if scenario.tps is None else scenario.tps
        return first, (1 / rate if rate > 0 else 0.0)

    def usage(self) -> Usage:
        """Tokens so far."""
        return Usage(
            input_tokens=sum(fake_text.count(_text(m)) for m in self.request.messages),
            output_tokens=sum(choice.tokens for choice in self.choices),
            reasoning_tokens=sum(choice.reasoning for choice in self.choices),
        )

    def events(self) -> Iterator[Event]:
        """The content; all choices grow together."""
        for events in itertools.zip_longest(*(one.counted() for one in self.choices)):
            yield from (event for event in events if event is not None)

    def _choice(self, index: int, calls: list[ToolUse]) -> _Choice:
        if calls:
            return _Choice(_call_events(calls, index), "tool_calls")
        request, scenario = self.request, self.scenario
        seed = f"{request.seed or scenario.seed}/{request.model}/{index}/{self._prompt}"
        seed += f"/{self._number}" * (self._number > 1)
        made = _Choice(iter(()))
        made.events = self._text_events(self._stopped(self._rest(self._full(seed))), index, made)
        return made

    def _full(self, seed: str) -> Iterator[str]:
        """The text of an answer that nothing limits but its length, in pieces."""
        if self.scenario.text is not None:
            return fake_text.cut([self.scenario.text])
        document = fake_json.document(self.request, Rng(seed), self._room)
        if document is not None:
            return fake_text.cut([document])
        return fake_text.answer(_question(self.request), seed, self._tokens)

    def _rest(self, full: Iterator[str]) -> Iterator[str]:
        """What is left of an answer that the request already begins."""
        begun, prefill = self._begun, "exact" if self._repeated else self.scenario.prefill
        if not begun or prefill == "echo":
            return full
        text = "".join(itertools.islice(full, MAX_TOKENS))
        if prefill == "other":
            other = fake_text.answer("something else", _clipped([begun]), self._tokens)
            return itertools.chain(fake_text.cut([text[: len(begun) * 2 // 3]]), other)
        # Another model's beginning is continued from where this answer would be by then.
        rest = text[len(begun) :] or ("" if text == begun else ".")
        if prefill == "again":
            rest = "".join(fake_text.pieces(begun[-_SEED_TEXT:])[-4:]) + rest
        return fake_text.cut([self._repeated + rest])

    def _stopped(self, pieces: Iterator[str]) -> Iterator[str]:
        """The text up to the first stop sequence."""
        if not self.request.stop:
            return pieces
        text = "".join(itertools.islice(pieces, self._limit))
        ends = [at for word in self.request.stop[:_STOPS] if word and (at := text.find(word)) >= 0]
        return fake_text.cut([text[: min(ends)] if ends else text])

    def _text_events(self, pieces: Iterator[str], index: int, made: _Choice) -> Iterator[Event]:
        first = next(pieces, None)
        if "reason" in self.request.model:
            about = (first or "").strip()
            thoughts = fake_text.pieces(f"The question is about {about}. Let me see.")
            yield from (ReasoningDelta(piece, index) for piece in thoughts)
        rest = pieces if first is None else itertools.chain([first], pieces)
        most = self._limit if self.request.max_tokens is None else self.request.max_tokens
        for piece in itertools.islice(rest, min(most, self._limit)):
            event = TextDelta(piece, index)
            yield event
            if self.request.logprobs:
                yield _likely(event, self.request)
        if next(rest, None) is not None:
            made.finish = "length"


_STOPS = 16
"""Stop sequences that are looked for."""


def _parted(request: Request) -> tuple[tuple[Message, ...], str, str]:
    """Return the conversation, the beginning of the answer, and the words to repeat after it."""
    messages = request.messages
    if request.partial_turn:
        return messages[:-1], request.partial_turn, ""
    words = words_in(messages[-1].text) if len(messages) > 1 else None
    if words is None:
        return messages, "", ""
    return messages[:-2], messages[-2].text, words


def _clipped(texts: list[str]) -> str:
    """The texts as one; of a very long one the ends and the length."""
    text = "\n".join(texts)
    if len(text) <= 2 * _SEED_TEXT:
        return text
    return f"{text[:_SEED_TEXT]}{len(text)}{text[-_SEED_TEXT:]}"


def _question(request: Request) -> str:
    """What the answer is about: the last thing that was not the model's own."""
    turns, _, _ = _parted(request)
    asked = (m for m in reversed(turns) if m.role in ("user", "tool"))
    return next((_clipped([_text(message)]) for message in asked), "")


def _text(message: Message) -> str:
    return "".join(part.text for part in message.parts if isinstance(part, Text | ToolResult))


def _likely(event: TextDelta, request: Request) -> Logprobs:
    """How sure the simulated model was of a piece: it seldom hesitates."""
    rng = Rng(f"logprob{event.text}")
    logprob = -(rng.random() ** 3)
    words = [event.text, event.text.upper(), event.text.lower(), "…"]
    top = [TokenLogprob(w, logprob - at, tuple(w.encode())) for at, w in enumerate(words)]
    kept = tuple(top[: request.top_logprobs or 0])
    token = TokenLogprob(event.text, logprob, tuple(event.text.encode()), kept)
    return Logprobs((token,), event.choice)


def _call_events(calls: list[ToolUse], index: int) -> Iterator[Event]:
    for number, call in enumerate(calls):
        yield ToolCallStart(number, call.id, call.name, index)
        for piece in fake_text.cut([call.arguments]):
            yield ToolCallDelta(number, piece, index)


# On the wire


def _streamed(answer: _Answer, codec: Codec) -> Iterator[Step]:
    first, between = answer.waits
    head = Head(200, {**SIMULATED, "content-type": codec.content_type})
    if answer.scenario.body is not None:
        yield from (Wait(first), head, *_body(answer.scenario.body), End())
        return
    writer = codec.dialect.writer(answer.request)
    yield head
    asked = Usage(input_tokens=answer.usage().input_tokens)
    opening: list[Event] = [UsageReport(asked), MessageStart(answer.id, answer.request.model)]
    yield from _sends(codec, writer.write, opening)
    yield Wait(first)
    for event in answer.events():
        yield from _sends(codec, writer.write, [event])
        yield Wait(between)
    finishes = [choice.finish for choice in answer.choices]
    ends: list[Event] = [ChoiceEnd(finish, "", at) for at, finish in enumerate(finishes)]
    usage = answer.usage()
    yield from _sends(
        codec, writer.write, [*ends, UsageReport(usage), MessageEnd(finishes[0], usage)]
    )
    yield End()


def _body(data: bytes) -> Iterator[Step]:
    return (Send(data[at : at + _PIECE]) for at in range(0, len(data), _PIECE))


_Write = Callable[[Event], list[Frame]]


def _sends(codec: Codec, write: _Write, events: Iterable[Event]) -> Iterator[Step]:
    for event in events:
        text = getattr(event, "text", "") or getattr(event, "arguments", "")
        frames = write(event)
        for at, frame in enumerate(frames):
            last = type(event) is MessageEnd and at == len(frames) - 1
            finishes = type(event) is ChoiceEnd or frame.event == "message_delta"
            role = "done" if last else "finish" if finishes else ""
            yield Send(codec.encode_frame(frame), role, "" if at else text)


def _whole(answer: _Answer, codec: Codec) -> Iterator[Step]:
    first, between = answer.waits
    choices = tuple(_choice(choice, at) for at, choice in enumerate(answer.choices))
    response = Response(
        id=answer.id,
        model=answer.request.model,
        end="complete",
        choices=choices,
        usage=answer.usage(),
    )
    body = answer.scenario.body or codec.dialect.encode_response(response)
    yield Wait(first + between * max(choice.tokens for choice in answer.choices))
    yield Head(200, dict(JSON))
    yield from _body(body)
    yield End()


def _choice(choice: _Choice, index: int) -> Choice:
    events = list(choice.counted())
    arguments: dict[int, str] = {}
    for event in events:
        if isinstance(event, ToolCallDelta):
            arguments[event.index] = arguments.get(event.index, "") + event.arguments
    calls = [
        ToolCall(event.id, event.name, msgspec.json.decode(arguments[event.index]))
        for event in events
        if isinstance(event, ToolCallStart)
    ]
    likely = tuple(t for e in events if isinstance(e, Logprobs) for t in e.tokens)
    return Choice(
        index=index,
        text="".join(event.text for event in events if isinstance(event, TextDelta)),
        reasoning="".join(e.text for e in events if isinstance(e, ReasoningDelta)),
        tool_calls=tuple(calls),
        finish_reason=choice.finish,
        logprobs=ChoiceLogprobs(likely) if likely else None,
    )
