"""The fields of Anthropic's messages (platform.claude.com/docs/en/api/messages; anthropic 2.11.0:
message_create_params and its beta form).
"""

from unbroken.wire.fields import OMITTED, REFUSED, Table, expand, hint, refused, said_as, same

_CACHE = hint("cache")

_BLOCKS = {
    "[text].text": said_as("text"),
    "[text].citations": OMITTED,
    "[image].source": said_as("image"),
    "[document].source": said_as("document"),
    "[document].title": hint("document_name"),
    "[document].context": OMITTED,
    "[document].citations": OMITTED,
    **same((f"[{kind}].type" for kind in ("text", "image", "document")), said_as("text")),
    **same((f"[{kind}].cache_control" for kind in ("text", "image", "document")), _CACHE),
}

_SERVER_BLOCKS = (
    "server_tool_use",
    "web_search_tool_result",
    "web_fetch_tool_result",
    "code_execution_tool_result",
    "bash_code_execution_tool_result",
    "text_editor_code_execution_tool_result",
    "tool_search_tool_result",
    "advisor_tool_result",
    "mcp_tool_use",
    "mcp_tool_result",
    "mcp_tool_listing",
    "fallback",
)
"""Records of what the provider's own tools did: the text that followed holds what matters."""

_TOOL_USE = {
    **same(("type", "id", "name", "input"), said_as("tools")),
    "cache_control": _CACHE,
    "caller": OMITTED,
    "toolset_name": OMITTED,
}

_TOOL_RESULT = {
    **same(("type", "tool_use_id", "content"), said_as("tools")),
    "is_error": hint("is_error", False),
    "cache_control": _CACHE,
    "toolset_name": OMITTED,
    **expand("content", {**_BLOCKS, "[tool_reference]": OMITTED, "[*]": REFUSED}),
}

TABLE = Table(
    "anthropic_messages",
    {
        **same(("model", "messages[].role", "messages[].content", "stream"), said_as("text")),
        **expand("messages[].content", _BLOCKS),
        **expand("messages[].content[tool_use].", _TOOL_USE),
        **expand("messages[].content[tool_result].", _TOOL_RESULT),
        "messages[].content[thinking]": hint("signed"),
        "messages[].content[redacted_thinking]": hint("signed"),
        **same((f"messages[].content[{kind}]" for kind in _SERVER_BLOCKS), OMITTED),
        "messages[].content[*]": REFUSED,
        "system": said_as("text"),
        **expand("system", _BLOCKS),
        "betas": hint("betas"),
        "billing_policy": OMITTED,
        "cache_control": OMITTED,
        "compaction": OMITTED,
        "container": REFUSED,
        "context_management": OMITTED,
        "diagnostics": OMITTED,
        "fallback_credit_token": OMITTED,
        "fallbacks": OMITTED,
        "inference_geo": refused("global"),
        "max_tokens": said_as("max_tokens"),
        "mcp_servers": refused([]),
        "metadata.user_id": hint("user"),
        "output_config.effort": said_as("effort"),
        "output_config.format": said_as("format"),
        "output_config.task_budget": OMITTED,
        "output_format": said_as("format"),
        "service_tier": OMITTED,
        "speed": OMITTED,
        "stop_sequences": hint("stop"),
        "temperature": said_as("temperature"),
        "thinking.type": said_as("effort", "disabled"),
        "thinking.budget_tokens": said_as("effort"),
        "thinking.display": OMITTED,
        "thread": REFUSED,
        "tool_choice.type": said_as("tool_choice"),
        "tool_choice.name": said_as("tool_choice"),
        "tool_choice.disable_parallel_tool_use": hint("parallel_tool_calls", False),
        "tools[function]": said_as("tools"),
        **expand(
            "tools[function].",
            same(("type", "name", "description", "input_schema"), said_as("tools")),
        ),
        "tools[function].strict": hint("strict"),
        "tools[function].cache_control": _CACHE,
        "tools[*]": OMITTED,
        "top_k": said_as("top_k"),
        "top_p": said_as("top_p"),
        "user_profile_id": OMITTED,
        "workspace_id": OMITTED,
    },
    also=frozenset({"file_id", "document_url"}),
)
