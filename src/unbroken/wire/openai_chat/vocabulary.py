"""The words that reader and writer of OpenAI chat completions share: ends, usage, errors."""

from typing import Any

from msgspec import Struct

from unbroken.errors import ProviderError
from unbroken.events import FinishReason, Usage
from unbroken.ready import ready

DONE = b"[DONE]"

FINISH: dict[str, FinishReason] = {
    # OpenAI's API reference; every compatible server has these
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    # other words for a natural end: TGI, Together and SiliconFlow, llama.cpp's own API, Baidu,
    # Cohere, proxies of Anthropic (platform.claude.com: stop reasons)
    "eos": "stop",
    "eos_token": "stop",
    "stop_token": "stop",
    "stop_sequence": "stop",
    "word": "stop",
    "normal": "stop",
    "complete": "stop",
    "completed": "stop",
    "end_turn": "stop",
    "pause_turn": "stop",
    # limits: Mistral, Gemini, watsonx, llama.cpp, Z.ai, SGLang and vLLM (repetition)
    "model_length": "length",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "max_completion_tokens": "length",
    "token_limit": "length",
    "limit": "length",
    "error_limit": "length",
    "model_context_window_exceeded": "length",
    "context_length_exceeded": "length",
    "repetition": "length",
    # calls: Anthropic and Cohere behind proxies
    "tool_use": "tool_calls",
    "tool_call": "tool_calls",
    # filters: Gemini (ai.google.dev: FinishReason), Z.ai and Hunyuan (sensitive), Cohere, Bedrock
    "safety": "content_filter",
    "recitation": "content_filter",
    "language": "content_filter",
    "blocklist": "content_filter",
    "prohibited_content": "content_filter",
    "spii": "content_filter",
    "image_safety": "content_filter",
    "image_prohibited_content": "content_filter",
    "image_recitation": "content_filter",
    "model_armor": "content_filter",
    "sensitive": "content_filter",
    "refusal": "content_filter",
    "error_toxic": "content_filter",
    "content_filtered": "content_filter",
    "guardrail_intervened": "content_filter",
    # failures: vLLM and SGLang (vllm-project/vllm#57082), DeepSeek, Z.ai (promptfoo#9905), Gemini
    # (BerriAI/litellm#21744), watsonx, TensorRT-LLM, Cohere
    "error": "error",
    "abort": "error",
    "aborted": "error",
    "cancel": "error",
    "cancelled": "error",
    "canceled": "error",
    "user_cancel": "error",
    "failed": "error",
    "failure": "error",
    "incomplete": "error",
    "interrupted": "error",
    "timeout": "error",
    "time_limit": "error",
    "network_error": "error",
    "server_error": "error",
    "internal_error": "error",
    "overloaded": "error",
    "insufficient_system_resource": "error",
    "malformed_function_call": "error",
    "unexpected_tool_call": "error",
    "too_many_tool_calls": "error",
    "missing_thought_signature": "error",
    "malformed_response": "error",
    "malformed_model_output": "error",
    "malformed_tool_use": "error",
    "image_other": "error",
    "no_image": "error",
}
"""What the words mean, in lower case. One that is not here is never read as `stop`."""

NOT_FINISHED = frozenset({"", "null", "none", "not_finished", "finish_reason_unspecified"})
"""Words of servers that name a finish reason in every chunk: DashScope, watsonx, Gemini."""


class _PromptDetails(Struct, gc=False):
    cached_tokens: int | None = None


class _CompletionDetails(Struct, gc=False):
    reasoning_tokens: int | None = None


@ready
class ChatUsage(Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


def usage_from(wire: ChatUsage) -> Usage | None:
    """The usage, or None if no token is counted: some servers send zeros before the real numbers.

    OpenAI counts cached tokens within the prompt and reasoning within the completion. xAI
    (vercel/ai#12425) and Gemini count reasoning beside the completion, within the total alone.
    """
    prompt, completion = wire.prompt_tokens or 0, wire.completion_tokens or 0
    if not prompt and not completion:
        return None
    before, after = wire.prompt_tokens_details, wire.completion_tokens_details
    beside = max(0, (wire.total_tokens or 0) - prompt - completion)
    return Usage(
        input_tokens=prompt,
        output_tokens=completion + beside,
        cached_input_tokens=(before and before.cached_tokens) or 0,
        reasoning_tokens=(after and after.reasoning_tokens) or beside,
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


OWN = frozenset({"stop", "length", "tool_calls", "function_call", "content_filter"})
"""The words that clients of this dialect have types for."""


def word_for(reason: FinishReason, raw: str) -> str:
    """The word that clients of this dialect read: one of OpenAI's, or one that no table has."""
    unknown = bool(raw) and raw.lower() not in FINISH and reason == "error"
    return raw if unknown or (raw in OWN and FINISH[raw] == reason) else reason


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
