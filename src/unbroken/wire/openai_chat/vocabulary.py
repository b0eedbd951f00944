"""The words that reader and writer of OpenAI chat completions share: ends, usage, errors."""

from typing import Any

from msgspec import Struct

from unbroken.errors import ProviderError
from unbroken.events import FinishReason, Usage
from unbroken.ready import ready

DONE = b"[DONE]"

FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "model_length": "length",  # Mistral
    "max_tokens": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "error": "error",
    "insufficient_system_resource": "error",  # DeepSeek
}


class _PromptDetails(Struct, gc=False):
    cached_tokens: int | None = None


class _CompletionDetails(Struct, gc=False):
    reasoning_tokens: int | None = None


@ready
class ChatUsage(Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


def usage_from(wire: ChatUsage) -> Usage:
    """OpenAI counts cached tokens within the prompt and reasoning within the completion."""
    prompt, completion = wire.prompt_tokens_details, wire.completion_tokens_details
    return Usage(
        input_tokens=wire.prompt_tokens or 0,
        output_tokens=wire.completion_tokens or 0,
        cached_input_tokens=(prompt and prompt.cached_tokens) or 0,
        reasoning_tokens=(completion and completion.reasoning_tokens) or 0,
    )


def usage_to(usage: Usage) -> dict[str, Any]:
    """The `usage` object of an answer."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_input_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def word_for(reason: FinishReason, raw: str) -> str:
    """This dialect's word: the provider's own if this dialect knows it, else the common one."""
    return raw if FINISH.get(raw) == reason else reason


def error_body(error: ProviderError) -> dict[str, Any]:
    """The error object of OpenAI, for a status and for the middle of a stream."""
    kind = ERROR_TYPES.get(error.status or 500, "invalid_request_error")
    kind = "server_error" if (error.status or 500) >= 500 else kind
    message = error.message or type(error).__name__
    return {"error": {"message": message, "type": kind, "param": None, "code": error.code or None}}


ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
