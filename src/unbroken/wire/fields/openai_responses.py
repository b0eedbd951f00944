"""The fields of OpenAI's Responses API
(platform.openai.com/docs/api-reference/responses/create; openai 3.52.0: response_create_params,
response_input_param).
"""

from unbroken.wire.fields import OMITTED, REFUSED, Table, expand, hint, refused, said_as, same

_TEXTS = ("input_text", "output_text", "text", "summary_text")

_CONTENT = {
    **same((f"[{kind}].text" for kind in _TEXTS), said_as("text")),
    **same((f"[{kind}].type" for kind in _TEXTS), said_as("text")),
    **same((f"[{kind}].annotations" for kind in _TEXTS), OMITTED),
    "[refusal].refusal": said_as("text"),
    "[refusal].type": said_as("text"),
    "[input_image].type": said_as("text"),
    "[input_image].image_url": said_as("image"),
    "[input_image].file_id": said_as("openai_file"),
    "[input_image].detail": hint("detail", "auto"),
    "[input_file].type": said_as("text"),
    "[input_file].file_data": said_as("document"),
    "[input_file].file_url": said_as("document_url"),
    "[input_file].file_id": said_as("openai_file"),
    "[input_file].filename": hint("document_name"),
}

_CALL = same(("type", "call_id", "name", "namespace"), said_as("tools"))
_IDS = same(("id", "status", "caller", "created_by", "internal_chat_message_metadata"), OMITTED)

_SERVER_ITEMS = (
    "web_search_call",
    "file_search_call",
    "code_interpreter_call",
    "image_generation_call",
    "tool_search_call",
    "tool_search_output",
    "mcp_list_tools",
    "mcp_call",
    "mcp_approval_request",
    "mcp_approval_response",
    "program",
    "program_output",
    "configuration_update",
)
"""Records of what the provider's own tools did: the text that followed holds what matters."""


TABLE = Table(
    "openai-responses",
    {
        **same(("model", "input", "stream", "instructions"), said_as("text")),
        "input[message].role": said_as("text"),
        "input[message].type": said_as("text"),
        "input[message].phase": OMITTED,
        "input[message].content": said_as("text"),
        **expand("input[message].", _IDS),
        **expand("input[message].content", _CONTENT),
        "input[reasoning]": hint("reasoning_items"),
        **expand("input[function_call].", {**_CALL, **_IDS, "arguments": said_as("tools")}),
        **expand("input[custom_tool_call].", {**_CALL, **_IDS, "input": said_as("tools")}),
        **expand("input[local_shell_call].", {**_CALL, **_IDS, "action": said_as("tools")}),
        **expand("input[function_call_output].", {**_CALL, **_IDS}),
        "input[function_call_output].output": said_as("tools"),
        **expand("input[function_call_output].output", _CONTENT),
        **expand("input[custom_tool_call_output].", {**_CALL, **_IDS}),
        "input[custom_tool_call_output].output": said_as("tools"),
        **expand("input[custom_tool_call_output].output", _CONTENT),
        **expand("input[local_shell_call_output].", {**_CALL, **_IDS}),
        "input[local_shell_call_output].output": said_as("tools"),
        **same((f"input[{kind}]" for kind in _SERVER_ITEMS), OMITTED),
        "input[*]": REFUSED,
        "access_programs": OMITTED,
        "background": OMITTED,
        "client_metadata": OMITTED,
        "context_management": OMITTED,
        "conversation": REFUSED,
        "image": REFUSED,
        "include": OMITTED,
        "max_output_tokens": said_as("max_tokens"),
        "max_tool_calls": OMITTED,
        "metadata": hint("metadata"),
        "moderation": hint("moderation"),
        "parallel_tool_calls": hint("parallel_tool_calls", True),
        "previous_response_id": REFUSED,
        "prompt": REFUSED,
        "prompt_cache_key": hint("prompt_cache_key"),
        "prompt_cache_options": hint("prompt_cache_options"),
        "prompt_cache_retention": hint("prompt_cache_retention"),
        "reasoning.effort": said_as("effort", "none"),
        "reasoning.summary": OMITTED,
        "reasoning.generate_summary": OMITTED,
        "reasoning.context": OMITTED,
        "reasoning.mode": OMITTED,
        "safety_identifier": hint("safety_identifier"),
        "service_tier": hint("service_tier"),
        "store": hint("store"),
        "stream_options": OMITTED,
        "temperature": said_as("temperature"),
        "text.format": said_as("format", {"type": "text"}),
        "text.verbosity": hint("verbosity"),
        "tool_choice": said_as("tool_choice"),
        "tools[function]": said_as("tools"),
        **expand(
            "tools[function].",
            same(("type", "name", "description", "parameters"), said_as("tools")),
        ),
        "tools[function].strict": hint("strict"),
        "tools[custom]": said_as("tools"),
        "tools[namespace]": said_as("tools"),
        "tools[*]": OMITTED,
        "top_logprobs": said_as("top_logprobs", 0),
        "top_p": said_as("top_p"),
        "truncation": refused("disabled"),
        "user": hint("user"),
    },
    turns="input",
    blocks="input",
    also=frozenset({"file_id"}),
)
