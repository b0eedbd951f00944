"""The fields of Gemini's generateContent (ai.google.dev/api/generate-content, ai.google.dev/api/
caching; the types of google-genai 3.6.1).
"""

from unbroken.wire.fields import OMITTED, REFUSED, Table, expand, hint, refused, said_as, same

_METADATA = (
    "audioMetadata",
    "audioTranscription",
    "documentMetadata",
    "mediaProcessing",
    "mediaResolution",
    "partMetadata",
    "speechMetadata",
    "spreadsheetMetadata",
)
"""Notes on how a part was or is to be processed."""

_MEDIA = {
    "inlineData.mimeType": said_as("image"),
    "inlineData.data": said_as("image"),
    "inlineData.displayName": hint("document_name"),
    "fileData.mimeType": said_as("image"),
    "fileData.fileUri": said_as("image"),
    "fileData.displayName": hint("document_name"),
    "videoMetadata": REFUSED,
    **same(_METADATA, OMITTED),
}

_PARTS = {
    "text": said_as("text"),
    "thought": hint("thoughts", False),
    "thoughtSignature": hint("gemini_signature"),
    **_MEDIA,
    **same((f"functionCall.{name}" for name in ("id", "name", "args")), said_as("tools")),
    "functionCall.partialArgs": REFUSED,
    "functionCall.willContinue": refused(False),
    **same((f"functionResponse.{name}" for name in ("id", "name", "response")), said_as("tools")),
    "functionResponse.parts": said_as("tools"),
    "functionResponse.scheduling": OMITTED,
    "functionResponse.willContinue": refused(False),
    # Records of what the provider's own tools did: the text that followed holds what matters.
    **same(("executableCode", "codeExecutionResult", "toolCall", "toolResponse"), OMITTED),
}

_DECLARATION = {
    **same(("name", "description", "parameters", "parametersJsonSchema"), said_as("tools")),
    "behavior": OMITTED,
    "response": OMITTED,
    "responseJsonSchema": OMITTED,
}

_GENERATION = {
    "temperature": said_as("temperature"),
    "topP": said_as("top_p"),
    "topK": said_as("top_k"),
    "maxOutputTokens": said_as("max_tokens"),
    "stopSequences": said_as("stop", []),
    "candidateCount": said_as("n", 1),
    "seed": said_as("seed"),
    "presencePenalty": said_as("presence_penalty", 0),
    "frequencyPenalty": said_as("frequency_penalty", 0),
    "responseLogprobs": said_as("logprobs", False),
    "logprobs": said_as("top_logprobs", 0),
    "responseMimeType": said_as("format", "text/plain"),
    "responseSchema": said_as("format"),
    "responseJsonSchema": said_as("format"),
    "responseFormat": REFUSED,
    "responseModalities": refused([], ["TEXT"]),
    "thinkingConfig.thinkingLevel": said_as("effort"),
    "thinkingConfig.thinkingBudget": said_as("effort"),
    "thinkingConfig.includeThoughts": OMITTED,
    "mediaResolution": OMITTED,
    "speechConfig": REFUSED,
    "imageConfig": REFUSED,
    "audioTimestamp": OMITTED,
    "audioTranscriptionConfig": OMITTED,
    "translationConfig": REFUSED,
    "enableAffectiveDialog": OMITTED,
    "enableEnhancedCivicAnswers": OMITTED,
    "modelSelectionConfig": OMITTED,
    "routingConfig": OMITTED,
}

TABLE = Table(
    "gemini",
    {
        "contents[].role": said_as("text"),
        **expand("contents[].parts[].", _PARTS),
        **same(("systemInstruction.role", "systemInstruction.parts"), said_as("text")),
        **expand("generationConfig.", _GENERATION),
        **expand("tools[function].", _DECLARATION),
        "tools[hosted]": REFUSED,
        "toolConfig.functionCallingConfig.mode": said_as("tool_choice"),
        "toolConfig.functionCallingConfig.allowedFunctionNames": said_as("tool_choice"),
        "toolConfig.functionCallingConfig.streamFunctionCallArguments": OMITTED,
        "toolConfig.includeServerSideToolInvocations": OMITTED,
        "toolConfig.retrievalConfig": OMITTED,
        "tools": OMITTED,  # the list as it came; each tool stands for itself
        "safetySettings": OMITTED,
        "cachedContent": REFUSED,
        "continuationToken": REFUSED,
        "labels": hint("metadata"),
        "serviceTier": OMITTED,
        "store": refused(True),
    },
    turns="contents[]",
    blocks="contents[].parts[]",
    also=frozenset({"document", "audio", "file_id", "is_error"}),
)
