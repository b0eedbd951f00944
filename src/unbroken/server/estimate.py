"""What an answer used, as it is charged: what the provider reported, if that can be true.

An answer that is stopped or cut comes without its usage, which stands at its end; some servers
report none at all, or zeros. Its tokens were made and are paid for, so they are estimated: a token
for every four bytes, the usual rule for English, and for a request that asks for reasoning the
silent time before the first content, at the pace of a model. An estimate is never less than what
was reported, and says so in `source`.

Numbers below zero, or beyond what any model takes or writes in one request, are replaced by the
estimate and logged: they would move a key's account by more than the answer can have cost.
"""

import math

import msgspec

from unbroken.client.history import estimate
from unbroken.events import Usage
from unbroken.messages import (
    Message,
    Native,
    Part,
    Reasoning,
    Refusal,
    Request,
    Text,
    ToolResult,
    ToolUse,
)
from unbroken.metrics.timing import StreamMetrics
from unbroken.response import Choice, Response
from unbroken.server.log import log_event

MAX_INPUT, MAX_OUTPUT = 20_000_000, 2_000_000
"""Tokens of one attempt: twice the largest context, ten times the longest answer of 2026."""

REASONING_PACE = 50.0
"""Tokens per second of a model that reasons out of sight."""

_PER_RESULT = 10  # tokens of the id and the tags around a result
_PER_IMAGE = 1000  # tokens, as `client/history.py` has it
_NO_REASONING = {None, "none", "minimal"}


def usage_of(request: Request, response: Response, metrics: StreamMetrics) -> Usage | None:
    """Return what the answer to `request` used; None if it failed before anything came."""
    reported = response.usage
    shown = sum(map(_shown, response.choices))
    if reported is None and not shown and response.end == "failed":
        return None
    known = _plausible(reported or Usage(source="partial"), request, response)
    if known.source == "reported" and (known.output_tokens or not shown):
        return known
    output = shown + _hidden_reasoning(request, metrics)
    return msgspec.structs.replace(
        known,
        input_tokens=max(known.input_tokens, prompt_tokens(request)),
        output_tokens=max(known.output_tokens, output),
        source="estimated",
    )


def cost_of(request: Request, response: Response, usage: Usage | None) -> float | None:
    """Return what that usage costs in USD, or None where no price is known.

    An estimate is priced as if the last attempt had made all of it; what is known is never less.
    """
    tried = [attempt for attempt in (*response.attempts, response.running) if attempt is not None]
    if usage is None or usage is response.usage or not tried:
        return _payable(response.cost)
    priced = tried[-1].quote(tried[-1].provider, tried[-1].model, usage)
    reported = response.cost if _is_priced_soundly(request, response) else None
    known = [cost for cost in (reported, priced) if cost is not None]
    return _payable(max(known, default=None))


def _payable(cost: float | None) -> float | None:
    return None if cost is None or not math.isfinite(cost) else max(cost, 0.0)


def _plausible(usage: Usage, request: Request, response: Response) -> Usage:
    """Return the usage without numbers that can't be true; then its source is `partial`."""
    attempts = max(1, len(response.attempts))
    wrong = _implausible(usage, attempts, attempts * (request.n or 1))
    if not wrong:
        return usage
    served_by = f"{response.provider}/{response.model}"
    log_event("usage_out_of_range", served_by=served_by, **wrong)
    return msgspec.structs.replace(usage, **dict.fromkeys(wrong, 0), source="partial")


def _implausible(usage: Usage, prompts: int, answers: int) -> dict[str, int]:
    """Return the numbers that so many prompts and answers can't have, by field."""
    limits = dict.fromkeys(_OF_PROMPTS, MAX_INPUT * prompts)
    limits |= dict.fromkeys(_OF_ANSWERS, MAX_OUTPUT * answers)
    return {
        field: tokens
        for field, limit in limits.items()
        if not 0 <= (tokens := getattr(usage, field)) <= limit
    }


_OF_PROMPTS = ("input_tokens", "cached_input_tokens", "cache_write_tokens")
_OF_ANSWERS = ("output_tokens", "reasoning_tokens")


def _is_priced_soundly(request: Request, response: Response) -> bool:
    """Whether no attempt was priced by numbers that can't be true."""
    reports = [attempt.usage for attempt in response.attempts if attempt.usage is not None]
    return not any(_implausible(usage, 1, request.n or 1) for usage in reports)


def _hidden_reasoning(request: Request, metrics: StreamMetrics) -> int:
    """Estimate what was thought before anything was shown. `max_tokens` bounds it."""
    if not _asks_for_reasoning(request):
        return 0
    first = metrics.time_to_first_token
    silent = metrics.duration if first is None else first
    return min(int(silent * REASONING_PACE), request.max_tokens or MAX_OUTPUT)


def _asks_for_reasoning(request: Request) -> bool:
    return request.reasoning_effort not in _NO_REASONING or any(
        request.option(field) for field in ("thinking", "reasoning")
    )


def prompt_tokens(request: Request) -> int:
    """Estimate the tokens of the conversation and of its tools."""
    words = [(tool.name, tool.description, tool.parameters) for tool in request.tools or ()]
    return (_encoded(words) if words else 0) + sum(map(_message, request.messages))


def _message(message: Message) -> int:
    return sum(map(_part, message.parts))


def _part(part: Part) -> int:
    """An image's bytes say nothing of its tokens; the tags around a text stand for the turn's."""
    if isinstance(part, ToolResult):
        return sum(map(_part, part.parts)) + _PER_RESULT
    if isinstance(part, Text) and len(part.text) > _LONG:
        return estimate(part.text)  # a copy of megabytes would hold up the event loop
    return _encoded(part) if isinstance(part, _WITH_TEXT) else _PER_IMAGE


def _encoded(value: object) -> int:
    return -(-len(msgspec.json.encode(value)) // 4)  # as `estimate` has it


_WITH_TEXT = (Text, ToolUse, Reasoning, Refusal, Native)
_LONG = 64 * 1024


def _shown(choice: Choice) -> int:
    text = choice.text + choice.reasoning + choice.refusal
    whole = [call.name + msgspec.json.encode(call.arguments).decode() for call in choice.tool_calls]
    begun = [call.name + call.arguments for call in choice.partial_tool_calls]
    return estimate("".join((text, *whole, *begun)))
