"""What can go wrong with an answer: changes to its steps as they are made, one table row each."""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, repeat, takewhile

from unbroken.errors import (
    ContentFiltered,
    ContextTooLong,
    ProviderError,
    QuotaExhausted,
    error_class,
)
from unbroken.messages import Request
from unbroken.simulator.scenario import Fault
from unbroken.simulator.steps import (
    Close,
    End,
    Hang,
    Head,
    Reset,
    Send,
    Step,
    Wait,
    refuse,
)
from unbroken.wire.codec import Codec, Frame

Steps = Iterator[Step]

_KINDS: dict[str, type[ProviderError]] = {
    "insufficient_quota": QuotaExhausted,
    "context_length_exceeded": ContextTooLong,
    "content_filter": ContentFiltered,
}


def _status(_steps: Steps, fault: Fault, codec: Codec) -> Steps:
    """A refusal by status; for some types the provider's own code says more than it."""
    kind = _KINDS.get(fault.type, error_class(fault.status))
    code = fault.type if fault.type in _KINDS else ""
    error = kind(fault.message, status=fault.status, code=code, retry_after=fault.retry_after)
    return iter(refuse(error, codec))


def _placed(steps: Steps, fault: Fault) -> Iterator[tuple[bool, Step]]:
    """Yield each step, and whether it is behind the content that the fault lets pass."""
    events = words = 0
    wanted = fault.events or fault.words or 0
    passed = False
    for step in steps:
        content = isinstance(step, Send) and bool(step.text)
        passed = passed or isinstance(step, _LAST) or (_role(step) == "finish" and not content)
        yield passed, step
        if isinstance(step, Send) and content:
            events += 1
            words += step.text.startswith((" ", "\n")) or words == 0
            passed = passed or (events if fault.words is None else words) >= wanted > 0
        passed = passed or (isinstance(step, Head) and not wanted)


_LAST = (End, Reset, Close, Hang)


def _inserted(steps: Steps, fault: Fault, made: Iterable[Step]) -> Steps:
    """The steps, with those that were made at the fault's place."""
    done = False
    for passed, step in _placed(steps, fault):
        if passed and not done:
            done = True
            yield from made
        yield step


def _before(steps: Steps, fault: Fault) -> Steps:
    """The steps up to the fault's place."""
    return (step for _, step in takewhile(lambda placed: not placed[0], _placed(steps, fault)))


_ENDS: dict[str, Step] = {"reset": Reset(), "close": Close(), "eof": End()}


def _cut(steps: Steps, fault: Fault, _codec: Codec) -> Steps:
    if fault.bytes is None:
        return chain(_before(steps, fault), [_ENDS[fault.how]])
    return _cut_at(steps, fault.bytes, _ENDS[fault.how])


def _cut_at(steps: Steps, left: int, end: Step) -> Steps:
    for step in steps:
        if isinstance(step, Send) and len(step.data) > left:
            yield from (Send(step.data[:left]), end)
            return
        left -= len(step.data) if isinstance(step, Send) else 0
        yield step


def _stall(steps: Steps, fault: Fault, codec: Codec) -> Steps:
    pause: Iterable[Step] = [Wait(fault.seconds)]
    if fault.keepalive and "event-stream" in codec.content_type:  # AWS's framing has no comments
        pause = cycled((Wait(1.0), Send(b": keep-alive\n\n")), int(fault.seconds))
    return _inserted(steps, fault, pause)


def cycled(steps: tuple[Step, ...], times: int) -> Steps:
    """The steps again and again."""
    return chain.from_iterable(repeat(steps, times))


def _error(steps: Steps, fault: Fault, codec: Codec) -> Steps:
    status = _STATUS_OF.get(fault.type, 500)
    error = error_class(status)(fault.message, status=status, code=fault.type)
    frames = codec.dialect.writer(Request(model="", messages=())).fail(error)
    sent = [Send(codec.encode_frame(frame)) for frame in frames]
    return chain(_before(steps, fault), sent, [End()])


_STATUS_OF = {
    "overloaded_error": 529,
    "rate_limit_error": 429,
    "invalid_request_error": 400,
    "api_error": 500,
}


def _garble(steps: Steps, fault: Fault, codec: Codec) -> Steps:
    """One event more that cannot be parsed; the others stay whole."""
    return _inserted(steps, fault, [Send(codec.encode_frame(Frame(b'{"garbled": tru')))])


def _split(steps: Steps, _fault: Fault, _codec: Codec) -> Steps:
    for step in steps:
        if isinstance(step, Send):
            yield from (Send(step.data[at : at + 1]) for at in range(len(step.data)))
        else:
            yield step


def _duplicate(steps: Steps, _fault: Fault, _codec: Codec) -> Steps:
    return chain.from_iterable((step,) * (1 + (_role(step) == "finish")) for step in steps)


def _role(step: Step) -> str:
    return step.role if isinstance(step, Send) else ""


def _without(role: str) -> "_Play":
    return lambda steps, _fault, _codec: (step for step in steps if _role(step) != role)


_Play = Callable[[Steps, Fault, Codec], Steps]
FAULTS: dict[str, _Play] = {
    "status": _status,
    "refuse": lambda _steps, _fault, _codec: iter([Reset()]),
    "silent": lambda _steps, _fault, _codec: iter([Hang()]),
    "cut": _cut,
    "stall": _stall,
    "error": _error,
    "garble": _garble,
    "split": _split,
    "duplicate_finish": _duplicate,
    "no_finish": _without("finish"),
    "no_done": _without("done"),
}

REPLACING = frozenset({"status", "refuse", "silent"})
"""Faults that leave nothing of the answer for another fault to change."""
