"""The words that reader and writer of Anthropic messages share: ends, usage, errors."""

from typing import Any

import msgspec
from msgspec import Struct

from unbroken.errors import ProviderError
from unbroken.events import FinishReason, Usage
from unbroken.ready import ready

FINISH: dict[str, FinishReason] = {
    # platform.claude.com: stop reasons
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    # compatible servers: words of their own engines (vLLM, SGLang, Z.ai, Moonshot, MiniMax)
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "compaction": "stop",
    "content_filter": "content_filter",
    "sensitive": "content_filter",
    "safety": "content_filter",
    "error": "error",
    "abort": "error",
    "cancelled": "error",
    "failed": "error",
    "network_error": "error",
    "malformed_function_call": "error",
}
OWN = frozenset(
    {
        "end_turn",
        "stop_sequence",
        "pause_turn",
        "max_tokens",
        "model_context_window_exceeded",
        "tool_use",
        "refusal",
        "compaction",
    }
)
_WORD: dict[FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "error": "end_turn",
}

# The type that goes with a status; the others go by their hundred (platform.claude.com: errors).
ERROR_TYPES: dict[int | None, str] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    503: "overloaded_error",
    529: "overloaded_error",
}


class _OutputDetails(Struct, gc=False):
    thinking_tokens: int | None = None


@ready
class MessagesUsage(Struct, gc=False):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    output_tokens_details: _OutputDetails | None = None


def merged(old: MessagesUsage, new: MessagesUsage) -> MessagesUsage:
    """Return cumulative counts: new ones replace old ones, missing ones keep their value."""
    given = {k: v for k, v in msgspec.structs.asdict(new).items() if v is not None}
    return msgspec.structs.replace(old, **given)


def usage_from(wire: MessagesUsage) -> Usage:
    """Anthropic counts cached tokens beside the input, we count them within it."""
    cached = wire.cache_read_input_tokens or 0
    written = wire.cache_creation_input_tokens or 0
    details = wire.output_tokens_details
    return Usage(
        input_tokens=(wire.input_tokens or 0) + cached + written,
        output_tokens=wire.output_tokens or 0,
        cached_input_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=(details and details.thinking_tokens) or 0,
    )


def usage_to(usage: Usage) -> dict[str, Any]:
    """The `usage` object of an answer."""
    cached, written = usage.cached_input_tokens, usage.cache_write_tokens
    details = {"output_tokens_details": {"thinking_tokens": usage.reasoning_tokens}}
    return {
        "input_tokens": max(0, usage.input_tokens - cached - written),
        "output_tokens": usage.output_tokens,
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": written,
        **(details if usage.reasoning_tokens else {}),
    }


def message_body(id: str, model: str, usage: dict[str, Any]) -> dict[str, Any]:
    """The message object, as it is before any content."""
    body = {"id": id, "type": "message", "role": "assistant", "model": model, "content": []}
    return {**body, "stop_reason": None, "stop_sequence": None, "usage": usage}


def word_for(reason: FinishReason, raw: str) -> str:
    """The word that clients of this dialect read: one of Anthropic's, or one that no table has."""
    unknown = bool(raw) and raw.lower() not in FINISH and reason == "error"
    return raw if unknown or (raw in OWN and FINISH[raw] == reason) else _WORD[reason]


def error_body(error: ProviderError) -> dict[str, Any]:
    """The error object, for a status and for the middle of a stream."""
    theirs = 400 <= (error.status or 500) < 500
    kind = ERROR_TYPES.get(error.status, "invalid_request_error" if theirs else "api_error")
    return {"type": "error", "error": {"type": kind, "message": error.message or "no reason given"}}
