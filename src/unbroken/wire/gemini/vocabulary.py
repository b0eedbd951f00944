"""The words that reader and writer of Gemini share: ends, usage, errors.

Sources: ai.google.dev/api/generate-content (FinishReason, BlockReason, UsageMetadata) and the types
of google-genai 3.6.1; errors: google.rpc.Code and google.rpc.RetryInfo (AIP-193).
"""

from typing import Any

import msgspec
from msgspec import Struct

from unbroken.errors import ProviderError
from unbroken.events import FinishReason, Usage
from unbroken.parts import GEMINI
from unbroken.ready import ready

DIALECT = GEMINI

FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "max_tokens": "length",
    "safety": "content_filter",
    "recitation": "content_filter",
    "language": "content_filter",
    "blocklist": "content_filter",
    "prohibited_content": "content_filter",
    "spii": "content_filter",
    "jailbreak": "content_filter",
    "model_armor": "content_filter",
    "image_safety": "content_filter",
    "image_prohibited_content": "content_filter",
    "image_recitation": "content_filter",
    "malformed_function_call": "error",
    "malformed_response": "error",
    "unexpected_tool_call": "error",
    "too_many_tool_calls": "error",
    "missing_thought_signature": "error",
    "image_other": "error",
    "no_image": "error",
    "other": "error",
}
"""Finish reasons and, where the prompt itself was blocked, block reasons; in lower case."""

_WORD: dict[FinishReason, str] = {
    "stop": "STOP",
    "tool_calls": "STOP",
    "length": "MAX_TOKENS",
    "content_filter": "SAFETY",
    "error": "OTHER",
}

_STATUS: dict[int | None, str] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
    529: "UNAVAILABLE",
}
"""Statuses of google.rpc.Code; the others go by their hundred."""


@ready
class UsageMetadata(Struct, gc=False, rename="camel", omit_defaults=True):
    prompt_token_count: int | None = None
    candidates_token_count: int | None = None
    total_token_count: int | None = None
    cached_content_token_count: int | None = None
    thoughts_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None


def usage_from(wire: UsageMetadata, *, final: bool = True) -> Usage:
    """Gemini counts thoughts beside the answer, and what its tools read beside the prompt."""
    thoughts = wire.thoughts_token_count or 0
    return Usage(
        input_tokens=(wire.prompt_token_count or 0) + (wire.tool_use_prompt_token_count or 0),
        output_tokens=(wire.candidates_token_count or 0) + thoughts,
        cached_input_tokens=wire.cached_content_token_count or 0,
        reasoning_tokens=thoughts,
        source="reported" if final else "partial",
    )


def usage_to(usage: Usage) -> UsageMetadata:
    """The `usageMetadata` of an answer."""
    return UsageMetadata(
        prompt_token_count=usage.input_tokens,
        candidates_token_count=max(0, usage.output_tokens - usage.reasoning_tokens),
        total_token_count=usage.input_tokens + usage.output_tokens,
        cached_content_token_count=usage.cached_input_tokens or None,
        thoughts_token_count=usage.reasoning_tokens or None,
    )


def word_for(reason: FinishReason, raw: str) -> str:
    """This dialect's word: the provider's own if this dialect knows it, else the common one."""
    known = FINISH.get(raw.lower())
    same = known == reason or (known == "stop" and reason == "tool_calls")
    return raw.upper() if same else _WORD[reason]


def error_body(error: ProviderError) -> dict[str, Any]:
    """The error object, for a status and for the middle of a stream."""
    code = error.status or 500
    status = _STATUS.get(code) or ("INVALID_ARGUMENT" if 400 <= code < 500 else "INTERNAL")
    body: dict[str, Any] = {
        "code": code,
        "message": error.message or "no reason given",
        "status": status,
    }
    if error.retry_after is not None:
        kind = "type.googleapis.com/google.rpc.RetryInfo"
        body["details"] = [{"@type": kind, "retryDelay": f"{error.retry_after:g}s"}]
    return {"error": body}


def call_id(response_id: str, number: int) -> str:
    """An id for a call that has none: Gemini tells calls apart by their order alone."""
    return f"{NAMELESS}{response_id[:40]}_{number}"


NAMELESS = "gcall_"
"""The beginning of the ids that `call_id` makes. They are not sent to Gemini."""


def encode(value: Any) -> bytes:
    """JSON of a value."""
    return msgspec.json.encode(value)
