"""Azure OpenAI by its v1 API: the model is the deployment's name
(learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle).
"""

from unbroken.providers.base import HeaderKey, Provider
from unbroken.wire.openai_chat import OpenAIChat, chat_codec

PROVIDER = Provider(
    name="azure",
    base_url="{AZURE_OPENAI_ENDPOINT}",
    path="/openai/v1/chat/completions",
    auth=HeaderKey("AZURE_OPENAI_API_KEY", header="api-key"),
    codec=chat_codec(OpenAIChat(max_tokens="max_completion_tokens")),
)
