"""The words that reader and writer of the Responses API share."""

from unbroken.events import FinishReason

DIALECT = "openai-responses"
"""The dialect of events that are passed through."""

FINISH: dict[str, FinishReason] = {
    # a response's `status` (platform.openai.com: the response object)
    "completed": "stop",
    "failed": "error",
    "cancelled": "error",
    # `incomplete_details.reason`; the shorter words are those of compatible servers
    "max_output_tokens": "length",
    "max_tokens": "length",
    "length": "length",
    "model_context_window_exceeded": "length",
    "max_prompt_tokens": "length",
    "content_filter": "content_filter",
    "safety": "content_filter",
    "stop": "stop",
    "tool_calls": "tool_calls",
    "max_tool_calls": "stop",
    "error": "error",
    "abort": "error",
    "timeout": "error",
}
