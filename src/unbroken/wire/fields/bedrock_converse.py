"""The fields of Amazon Bedrock's Converse (docs.aws.amazon.com/bedrock: API_runtime_Converse;
botocore 1.44.5: bedrock-runtime).
"""

from unbroken.wire.fields import OMITTED, REFUSED, Table, expand, hint, refused, said_as, same

_DOCUMENT = {
    "format": said_as("document"),
    "name": hint("document_name"),
    "source.bytes": said_as("document"),
    "source.text": said_as("document"),
    "source.content": REFUSED,
    "source.s3Location": REFUSED,
    "context": OMITTED,
    "citations": OMITTED,
}

_MEDIA = {
    "text": said_as("text"),
    "image.format": said_as("image"),
    "image.source.bytes": said_as("image"),
    "image.source.s3Location": REFUSED,
    "image.error": OMITTED,
    **expand("document.", _DOCUMENT),
    "video": REFUSED,
    "audio.format": said_as("audio"),
    "audio.source.bytes": said_as("audio"),
    "audio.source.s3Location": REFUSED,
    "audio.error": OMITTED,
    "searchResult": REFUSED,
}

_BLOCKS = {
    **_MEDIA,
    **same((f"toolUse.{k}" for k in ("toolUseId", "name", "input")), said_as("tools")),
    "toolUse.type": OMITTED,
    "toolResult.toolUseId": said_as("tools"),
    "toolResult.status": hint("is_error", "success"),
    "toolResult.type": OMITTED,
    **expand("toolResult.content[].", {**_MEDIA, "json": said_as("text")}),
    "guardContent": REFUSED,
    "cachePoint": hint("cache"),
    "reasoningContent": hint("signed"),
    "citationsContent": REFUSED,
    "toolAddition": REFUSED,
    "toolRemoval": REFUSED,
}

TABLE = Table(
    "bedrock",
    {
        **same(("modelId", "messages[].role"), said_as("text")),
        **expand("messages[].content[].", _BLOCKS),
        "system[].text": said_as("text"),
        "system[].cachePoint": hint("cache"),
        "system[].guardContent": REFUSED,
        "inferenceConfig.maxTokens": said_as("max_tokens"),
        "inferenceConfig.temperature": said_as("temperature"),
        "inferenceConfig.topP": said_as("top_p"),
        "inferenceConfig.stopSequences": hint("stop"),
        "toolConfig.toolChoice": said_as("tool_choice"),
        "tools[function]": said_as("tools"),
        **expand(
            "tools[function].toolSpec.",
            same(("name", "description", "inputSchema"), said_as("tools")),
        ),
        "tools[function].toolSpec.strict": hint("strict"),
        "tools[*]": OMITTED,
        "guardrailConfig": REFUSED,
        "additionalModelRequestFields": refused({}),
        "additionalModelResponseFieldPaths": OMITTED,
        "promptVariables": refused({}),
        "requestMetadata": hint("metadata"),
        "performanceConfig": OMITTED,
        "serviceTier": OMITTED,
        "outputConfig.textFormat": said_as("format"),
        "outputConfig.effort": said_as("effort"),
    },
    blocks="messages[].content[]",
)

BETAS = frozenset(
    {
        "computer-use-2025-01-24",
        "context-1m-2025-08-07",
        "context-management-2025-06-27",
        "dev-full-thinking-2025-05-14",
        "effort-2025-11-24",
        "fine-grained-tool-streaming-2025-05-14",
        "interleaved-thinking-2025-05-14",
        "output-128k-2025-02-19",
        "token-efficient-tools-2025-02-19",
        "tool-examples-2025-10-29",
        "tool-search-tool-2025-10-19",
    }
)
"""Betas of Anthropic's that exist at Bedrock (docs.aws.amazon.com/bedrock: Anthropic Claude
messages API, `anthropic_beta`).
"""
