"""Azure OpenAI by its v1 API; the model is the name of a deployment
(learn.microsoft.com/azure/ai-foundry/openai/latest: POST {endpoint}/openai/v1/chat/completions).
Both variables are those of the official SDK's `AzureOpenAI`.
"""

from unbroken.providers.base import HeaderKey, Provider
from unbroken.wire.openai_chat.dialect import OpenAIChat, chat_codec

PROVIDER = Provider(
    name="azure",
    base_url="{AZURE_OPENAI_ENDPOINT}/openai/v1",
    path="/chat/completions",
    auth=HeaderKey("AZURE_OPENAI_API_KEY", header="api-key"),
    codec=chat_codec(OpenAIChat(max_tokens="max_completion_tokens")),
)
