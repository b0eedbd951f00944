"""What the simulator plays: an answer, its pace, and what goes wrong, all as data.

A scenario comes from the model's name (`demo?ttft=0.2&tps=80&fault=cut:events=20`), from the
header `x-unbroken-scenario` in the same syntax, or from a TOML file. Later sources win. An answer
has at most MAX_TOKENS tokens, whatever a scenario asks for: it ends with `length` there.
"""

import math
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta, Struct

from unbroken.errors import BadRequest
from unbroken.ready import ready
from unbroken.simulator.rng import Rng

Kind = Literal[
    "status",
    "refuse",
    "silent",
    "cut",
    "stall",
    "error",
    "garble",
    "split",
    "duplicate_finish",
    "no_finish",
    "no_done",
]


MAX_TOKENS = 100_000
"""Tokens of an answer: about as many as the largest models write."""

MAX_FAULTS = 8
"""Faults of one scenario."""

DAY = 86_400


class Fault(Struct, frozen=True, kw_only=True):
    """One thing that goes wrong.

    Where: after `events` or `words` of content, or `bytes` of the body. What: `status` with
    `retry_after` seconds; `how` a connection is cut (`reset` by RST, `close` in mid-body, `eof`
    a clean end); `seconds` of a stall, with comments if `keepalive`; `type` of an error event.
    `times`: only the first so many requests of this scenario get it; 0 means all.
    """

    kind: Kind
    times: int = 0
    events: int | None = None
    words: int | None = None
    bytes: Annotated[int, Meta(ge=0)] | None = None
    how: Literal["reset", "close", "eof"] = "reset"
    status: Annotated[int, Meta(ge=200, le=599)] = 500
    retry_after: float | None = None
    message: str = "simulated failure"
    type: str = "overloaded_error"
    seconds: float = 30.0
    keepalive: bool = False

    def __post_init__(self) -> None:
        _check_seconds(self, "seconds")


@ready
class Scenario(Struct, frozen=True, kw_only=True):
    """One answer. None means: drawn from the prompt, the model and `seed`.

    `ttft`: seconds to the first token; `tps`: tokens per second after it; `tokens`: length of the
    answer; `text`: the answer itself; `body`: the bytes of the answer as they are, for what no
    encoder of ours would send. `prefill`: what becomes of an answer that the request begins:
    it goes on `exact`ly, is `refuse`d with a 400, is said from its beginning (`echo`), has its
    last words said `again`, or soon becomes an`other` one. `varies`: every request is answered in
    other words, as a model at its usual temperature does.
    """

    ttft: float | None = None
    tps: float | None = None
    tokens: Annotated[int, Meta(ge=0)] | None = None
    seed: int = 0
    text: str | None = None
    body: bytes | None = None
    prefill: Literal["exact", "refuse", "echo", "again", "other"] = "exact"
    varies: bool = False
    faults: Annotated[tuple[Fault, ...], Meta(max_length=MAX_FAULTS)] = ()

    def __post_init__(self) -> None:
        _check_seconds(self, "ttft")


def _check_seconds(of: Struct, name: str) -> None:
    """ValueError for a time that never comes, which no event loop can wait for."""
    seconds = getattr(of, name)
    if seconds is not None and not 0 <= seconds <= DAY:
        raise ValueError(f"{name}={seconds} must be 0 to {DAY} seconds")


class Pace(Struct, frozen=True):
    """Seconds to the first token (median and 95th percentile) and tokens per second."""

    p50: float
    p95: float
    tps: float

    def first(self, rng: Rng) -> float:
        """A first-token time from the log-normal curve through both percentiles."""
        sigma = math.log(self.p95 / self.p50) / 1.6449  # the 95th percentile of a normal curve
        return self.p50 * math.exp(sigma * rng.normal())


# The published table of the streaming guide that many start from, and our own default.
PACES: dict[str, Pace] = {
    "gpt-4o-mini": Pace(0.21, 0.55, 110),
    "gpt-4o": Pace(0.38, 0.90, 55),
    "claude-3-5-sonnet": Pace(0.45, 1.10, 65),
    "claude-3-haiku": Pace(0.18, 0.42, 120),
    "": Pace(0.25, 0.50, 80),
}


def pace_of(model: str) -> Pace:
    """The pace of the model whose name is the longest beginning of this one."""
    return PACES[max((name for name in PACES if model.startswith(name)), key=len)]


def parse(query: str, base: Scenario | None = None) -> Scenario:
    """Read `ttft=0.2&fault=cut:events=20,how=eof` over `base`; BadRequest names what is wrong."""
    fields: dict[str, Any] = {}
    faults: list[dict[str, str]] = []
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "fault":
            faults.append(_fault(value))
        else:
            fields[name] = value
    if faults:
        fields["faults"] = faults
    return from_fields(fields, base)


def from_fields(fields: Mapping[str, Any], base: Scenario | None = None) -> Scenario:
    """A scenario from plain values, texts accepted for numbers, over `base`."""
    known = Scenario.__struct_fields__
    for name in fields.keys() - set(known):
        raise _wrong(f"a scenario has no {name!r}; it has {', '.join(known)}, and fault=KIND:...")
    try:
        read = msgspec.convert(dict(fields), Scenario, strict=False)
    except msgspec.ValidationError as error:
        raise _wrong(f"scenario: {error}") from error
    return msgspec.structs.replace(base or Scenario(), **{n: getattr(read, n) for n in fields})


def _fault(text: str) -> dict[str, str]:
    kind, _, rest = text.partition(":")
    pairs = [pair.partition("=") for pair in rest.split(",") if pair]
    known = Fault.__struct_fields__
    for name, _, _ in pairs:
        if name not in known:
            raise _wrong(f"a fault has no {name!r}; it has {', '.join(known)}")
    return {"kind": kind} | {name: value for name, _, value in pairs}


def _wrong(message: str) -> BadRequest:
    return BadRequest(message, status=400, code="invalid_scenario")


@cache
def named() -> dict[str, Scenario]:
    """The scenarios that have a name of their own: `sim/NAME` plays one."""
    return load(files(__package__).joinpath("named.toml").read_text("utf-8"))


def load(text: str) -> dict[str, Scenario]:
    """Scenarios by model name, from TOML: `[demo]`, `ttft = 0.2`, `[[demo.faults]]`, ..."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _wrong(f"scenario file: {error}") from error
    return {name: from_fields(table) for name, table in tables.items()}
