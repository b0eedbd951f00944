"""From a request and a scenario to timed bytes: steps that somebody else carries out.

The player knows no clock and no socket. It answers as a provider would, on that provider's own
wire, and then lets the scenario's faults loose on the steps.
"""

from collections.abc import Iterator

import msgspec
from msgspec import Struct

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
from unbroken.simulator.faults import FAULTS
from unbroken.simulator.rng import Rng
from unbroken.simulator.scenario import Fault, Scenario, pace_of
from unbroken.simulator.steps import JSON, SIMULATED, End, Head, Send, Step, Wait, refuse
from unbroken.wire.codec import Codec, Frame


def play(request: Request, codec: Codec, scenario: Scenario, number: int) -> list[Step]:
    """The steps that answer the `number`th request (from 1) of this scenario."""
    if request.partial_turn and scenario.prefill == "refuse":
        return refuse(BadRequest(_NO_PREFILL, status=400, code="invalid_request_error"), codec)
    steps = (
        _streamed(request, codec, scenario) if request.stream else _whole(request, codec, scenario)
    )
    for fault in scenario.faults:
        if any(isinstance(step, Head) and step.status == 200 for step in steps):
            steps = _hit(steps, fault, codec, number)
    return steps


def _hit(steps: list[Step], fault: Fault, codec: Codec, number: int) -> list[Step]:
    spared = 0 < fault.times < number
    return steps if spared else FAULTS[fault.kind](steps, fault, codec)


_NO_PREFILL = "This model does not support assistant message prefill."


# The answer


class _Part(Struct):
    """One choice, written out."""

    events: list[Event]
    tokens: int
    finish: FinishReason


def _id(request: Request, scenario: Scenario) -> str:
    rng = Rng(f"{scenario.seed}{request.model}{_prompt(request)}")
    return f"sim-{int(rng.random() * 16**12):012x}"


def _prompt(request: Request) -> str:
    """What is answered: every turn but the beginning of the answer itself."""
    messages = request.messages[:-1] if request.partial_turn else request.messages
    return "\n".join(_said(message) for message in messages)


def _question(request: Request) -> str:
    """What the answer is about: the last thing that was not the model's own."""
    asked = [m for m in request.messages if m.role in ("user", "tool")]
    return _said(asked[-1]) if asked else ""


def _said(message: Message) -> str:
    return "".join(
        part.text if isinstance(part, Text) else part.content
        for part in message.parts
        if isinstance(part, Text | ToolResult)
    )


def _parts(request: Request, scenario: Scenario) -> list[_Part]:
    return [_part(request, scenario, index) for index in range(request.n or 1)]


def _part(request: Request, scenario: Scenario, index: int) -> _Part:
    calls = fake_tools.calls(request, Rng(f"{scenario.seed}{_prompt(request)}"))
    if calls:
        return _call_part(calls, index)
    seed = f"{request.seed or scenario.seed}/{request.model}/{index}/{_prompt(request)}"
    full = scenario.text
    if full is None:
        full = fake_json.document(request, Rng(seed))
    if full is None:
        full = fake_text.answer(_question(request), seed, scenario.tokens)
    return _text_part(request, _rest(full, request.partial_turn, scenario), index)


def _rest(full: str, begun: str, scenario: Scenario) -> str:
    """What is left to say of an answer that the request already begins."""
    if not begun or scenario.prefill == "echo":
        return full
    if scenario.prefill == "other":
        return full[: len(begun) * 2 // 3] + fake_text.answer(
            "something else", begun, scenario.tokens
        )
    # what another model began is gone on with, too: from where one's own answer would be by then
    rest = full.removeprefix(begun) if full.startswith(begun) else full[len(begun) :] or "."
    if scenario.prefill == "again":
        rest = "".join(fake_text.pieces(begun)[-4:]) + rest
    return rest


def _text_part(request: Request, text: str, index: int) -> _Part:
    finish: FinishReason = "stop"
    ends = [at for word in request.stop or () if word and (at := text.find(word)) >= 0]
    cut = fake_text.pieces(text[: min(ends)] if ends else text)
    if request.max_tokens is not None and len(cut) > request.max_tokens:
        cut, finish = cut[: request.max_tokens], "length"
    events: list[Event] = [TextDelta(piece, index) for piece in cut]
    if request.logprobs:
        events = [each for event in events for each in (event, _likely(event, request))]
    if "reason" in request.model:
        thoughts = fake_text.pieces(
            f"The question is about {fake_text.pieces(text)[0].strip()}. Let me see."
        )
        events = [*(ReasoningDelta(piece, index) for piece in thoughts), *events]
    tokens = sum(type(event) is not Logprobs for event in events)
    return _Part(events, tokens, finish)


def _likely(event: Event, request: Request) -> Logprobs:
    """How sure the simulated model was of a piece: it seldom hesitates."""
    assert isinstance(event, TextDelta)
    rng = Rng(f"logprob{event.text}")
    logprob = -(rng.random() ** 3)
    words = [event.text, event.text.upper(), event.text.lower(), "…"]
    top = [TokenLogprob(w, logprob - at, tuple(w.encode())) for at, w in enumerate(words)]
    kept = tuple(top[: request.top_logprobs or 0])
    token = TokenLogprob(event.text, logprob, tuple(event.text.encode()), kept)
    return Logprobs((token,), event.choice)


def _call_part(calls: list[ToolUse], index: int) -> _Part:
    events: list[Event] = []
    for number, call in enumerate(calls):
        events.append(ToolCallStart(number, call.id, call.name, index))
        cut = fake_text.pieces(call.arguments)
        events.extend(ToolCallDelta(number, piece, index) for piece in cut)
    return _Part(events, len(events), "tool_calls")


def _usage(request: Request, parts: list[_Part]) -> Usage:
    asked = sum(len(fake_text.pieces(_said(message))) for message in request.messages)
    reasoning = sum(type(event) is ReasoningDelta for part in parts for event in part.events)
    written = sum(part.tokens for part in parts)
    return Usage(input_tokens=asked, output_tokens=written, reasoning_tokens=reasoning)


def _waits(request: Request, scenario: Scenario) -> tuple[float, float]:
    """Seconds to the first token and between tokens."""
    pace = pace_of(request.model)
    rng = Rng(f"pace{scenario.seed}{_prompt(request)}")
    first = pace.first(rng) if scenario.ttft is None else scenario.ttft
    rate = pace.tps if scenario.tps is None else scenario.tps
    return first, (1 / rate if rate > 0 else 0.0)


def _streamed(request: Request, codec: Codec, scenario: Scenario) -> list[Step]:
    first, between = _waits(request, scenario)
    head = Head(200, {**SIMULATED, "content-type": codec.content_type})
    if scenario.body is not None:
        return [Wait(first), head, Send(scenario.body), End()]
    parts = _parts(request, scenario)
    usage = _usage(request, parts)
    writer = codec.dialect.writer(request)
    steps: list[Step] = [head]
    opening: list[Event] = [
        UsageReport(msgspec.structs.replace(usage, output_tokens=0)),
        MessageStart(_id(request, scenario), request.model),
    ]
    for event in opening:
        steps += _sends(codec, writer.write(event), event)
    steps.append(Wait(first))
    for event in _interleaved(parts):
        steps += [*_sends(codec, writer.write(event), event), Wait(between)]
    ends: list[Event] = [ChoiceEnd(part.finish, "", at) for at, part in enumerate(parts)]
    for event in [*ends, UsageReport(usage), MessageEnd(parts[0].finish, usage)]:
        steps += _sends(codec, writer.write(event), event)
    return [*steps, End()]


def _interleaved(parts: list[_Part]) -> Iterator[Event]:
    """All choices grow together."""
    for at in range(max(len(part.events) for part in parts)):
        for part in parts:
            if at < len(part.events):
                yield part.events[at]


def _sends(codec: Codec, frames: list[Frame], event: Event) -> list[Step]:
    text = getattr(event, "text", "") or getattr(event, "arguments", "")
    steps: list[Step] = []
    for at, frame in enumerate(frames):
        last = type(event) is MessageEnd and at == len(frames) - 1
        finishes = type(event) is ChoiceEnd or frame.event == "message_delta"
        role = "done" if last else "finish" if finishes else ""
        steps.append(Send(codec.encode_frame(frame), role, text))
        text = ""
    return steps


def _whole(request: Request, codec: Codec, scenario: Scenario) -> list[Step]:
    first, between = _waits(request, scenario)
    parts = _parts(request, scenario)
    response = Response(
        id=_id(request, scenario),
        model=request.model,
        end="complete",
        choices=tuple(_choice(part, at) for at, part in enumerate(parts)),
        usage=_usage(request, parts),
    )
    body = scenario.body or codec.dialect.encode_response(response)
    wait = first + between * max(part.tokens for part in parts)
    return [Wait(wait), Head(200, dict(JSON)), Send(body), End()]


def _choice(part: _Part, index: int) -> Choice:
    arguments: dict[int, str] = {}
    for event in part.events:
        if isinstance(event, ToolCallDelta):
            arguments[event.index] = arguments.get(event.index, "") + event.arguments
    calls = [
        ToolCall(event.id, event.name, msgspec.json.decode(arguments[event.index]))
        for event in part.events
        if isinstance(event, ToolCallStart)
    ]
    likely = tuple(t for e in part.events if isinstance(e, Logprobs) for t in e.tokens)
    return Choice(
        index=index,
        text="".join(event.text for event in part.events if isinstance(event, TextDelta)),
        reasoning="".join(e.text for e in part.events if isinstance(e, ReasoningDelta)),
        tool_calls=tuple(calls),
        finish_reason=part.finish,
        logprobs=ChoiceLogprobs(likely) if likely else None,
    )
