"""The words that reader and writer of Bedrock's Converse share: ends, usage, exceptions."""

from typing import Any

from msgspec import Struct

from unbroken.errors import ProviderError, ServerError
from unbroken.events import FinishReason, Usage
from unbroken.ready import ready
from unbroken.wire.error_body import parse_error

DIALECT = "bedrock"

FINISH: dict[str, FinishReason] = {
    # service model of bedrock-runtime: StopReason; the last two are words of models behind it
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
    "malformed_model_output": "error",
    "malformed_tool_use": "error",
    "refusal": "content_filter",
    "pause_turn": "stop",
}
_WORDS: dict[FinishReason, str] = {
    "stop": "end_turn",
    "tool_calls": "tool_use",
    "length": "max_tokens",
    "content_filter": "content_filtered",
    "error": "malformed_model_output",
}

# Exceptions within the stream, and the status each stands for (service model of the runtime).
EXCEPTIONS = {
    "internalServerException": 500,
    "modelStreamErrorException": 424,
    "validationException": 400,
    "throttlingException": 429,
    "serviceUnavailableException": 503,
}


@ready
class ConverseUsage(Struct, gc=False, rename="camel"):
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None


def usage_from(wire: ConverseUsage) -> Usage:
    """The input is counted without what the cache held or took."""
    read, written = wire.cache_read_input_tokens or 0, wire.cache_write_input_tokens or 0
    return Usage(
        input_tokens=wire.input_tokens + read + written,
        output_tokens=wire.output_tokens,
        cached_input_tokens=read,
        cache_write_tokens=written,
    )


def usage_to(usage: Usage) -> dict[str, Any]:
    """The `usage` object of an answer."""
    read, written = usage.cached_input_tokens, usage.cache_write_tokens
    return {
        "inputTokens": max(0, usage.input_tokens - read - written),
        "outputTokens": usage.output_tokens,
        "totalTokens": usage.input_tokens + usage.output_tokens,
        "cacheReadInputTokens": read,
        "cacheWriteInputTokens": written,
    }


def word_for(reason: FinishReason, raw: str) -> str:
    """The word that clients of this dialect read: Bedrock's own, or one that no table has."""
    unknown = bool(raw) and raw.lower() not in FINISH and reason == "error"
    return raw if unknown or FINISH.get(raw) == reason else _WORDS[reason]


def failure(kind: str, body: bytes) -> ProviderError:
    """The error that an exception frame stands for. A broken model stream may be asked again."""
    status = EXCEPTIONS.get(kind, 500)
    error = parse_error(body, status)
    wanted = ServerError if status == 424 else type(error)
    return wanted(error.message, status=status, code=kind, body=body)
