"""What can go wrong with an answer, as changes to its steps; one row in a table each."""

from collections.abc import Callable

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

_KINDS: dict[str, type[ProviderError]] = {
    "insufficient_quota": QuotaExhausted,
    "context_length_exceeded": ContextTooLong,
    "content_filter": ContentFiltered,
}


def _status(_steps: list[Step], fault: Fault, codec: Codec) -> list[Step]:
    """A refusal by status; for some types the provider's own code says more than it."""
    kind = _KINDS.get(fault.type, error_class(fault.status))
    code = fault.type if fault.type in _KINDS else ""
    error = kind(fault.message, status=fault.status, code=code, retry_after=fault.retry_after)
    return refuse(error, codec)


def _position(steps: list[Step], fault: Fault) -> int:
    """The index after the content that the fault lets pass."""
    events = words = 0
    for at, step in enumerate(steps):
        if isinstance(step, Send) and step.text:
            events += 1
            words += step.text.startswith((" ", "\n")) or words == 0
            passed = events if fault.words is None else words
            if passed >= (fault.events or fault.words or 0) > 0:
                return at + 1
        elif isinstance(step, Send) and step.role == "finish":
            return at
        if isinstance(step, Head) and not (fault.events or fault.words):
            return at + 1
    return len(steps) - 1


_ENDS: dict[str, Step] = {"reset": Reset(), "close": Close(), "eof": End()}


def _cut(steps: list[Step], fault: Fault, _codec: Codec) -> list[Step]:
    end = _ENDS[fault.how]
    if fault.bytes is None:
        return [*steps[: _position(steps, fault)], end]
    left = fault.bytes
    kept: list[Step] = []
    for step in steps:
        if isinstance(step, Send) and len(step.data) > left:
            return [*kept, Send(step.data[:left]), end]
        left -= len(step.data) if isinstance(step, Send) else 0
        kept.append(step)
    return kept


def _stall(steps: list[Step], fault: Fault, codec: Codec) -> list[Step]:
    at = _position(steps, fault)
    pause: list[Step] = [Wait(fault.seconds)]
    if fault.keepalive and "event-stream" in codec.content_type:  # AWS's framing has no comments
        beat: list[Step] = [Wait(1.0), Send(b": keep-alive\n\n")]
        pause = beat * int(fault.seconds)
    return [*steps[:at], *pause, *steps[at:]]


def _error(steps: list[Step], fault: Fault, codec: Codec) -> list[Step]:
    status = _STATUS_OF.get(fault.type, 500)
    error = error_class(status)(fault.message, status=status, code=fault.type)
    frames = codec.dialect.writer(Request(model="", messages=())).fail(error)
    sent = [Send(codec.encode_frame(frame)) for frame in frames]
    return [*steps[: _position(steps, fault)], *sent, End()]


_STATUS_OF = {
    "overloaded_error": 529,
    "rate_limit_error": 429,
    "invalid_request_error": 400,
    "api_error": 500,
}


def _garble(steps: list[Step], fault: Fault, codec: Codec) -> list[Step]:
    """One event more that nobody can read; the others stay whole."""
    at = _position(steps, fault)
    broken = codec.encode_frame(Frame(b'{"garbled": tru'))
    return [*steps[:at], Send(broken), *steps[at:]]


def _split(steps: list[Step], _fault: Fault, _codec: Codec) -> list[Step]:
    split: list[Step] = []
    for step in steps:
        if isinstance(step, Send):
            split.extend(Send(step.data[at : at + 1]) for at in range(len(step.data)))
        else:
            split.append(step)
    return split


def _duplicate(steps: list[Step], _fault: Fault, _codec: Codec) -> list[Step]:
    twice: list[Step] = []
    for step in steps:
        twice += [step, step] if _role(step) == "finish" else [step]
    return twice


def _role(step: Step) -> str:
    return step.role if isinstance(step, Send) else ""


def _without(role: str) -> "_Play":
    return lambda steps, _fault, _codec: [step for step in steps if _role(step) != role]


_Play = Callable[[list[Step], Fault, Codec], list[Step]]
FAULTS: dict[str, _Play] = {
    "status": _status,
    "refuse": lambda _steps, _fault, _codec: [Reset()],
    "silent": lambda _steps, _fault, _codec: [Hang()],
    "cut": _cut,
    "stall": _stall,
    "error": _error,
    "garble": _garble,
    "split": _split,
    "duplicate_finish": _duplicate,
    "no_finish": _without("finish"),
    "no_done": _without("done"),
}
