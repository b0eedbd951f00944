"""xAI (docs.x.ai/docs/api-reference)."""

from unbroken.providers.base import BearerKey, Provider
from unbroken.wire.openai_chat.dialect import OpenAIChat, chat_codec

PROVIDER = Provider(
    name="xai",
    base_url="https://api.x.ai/v1",
    path="/chat/completions",
    auth=BearerKey("XAI_API_KEY"),
    codec=chat_codec(OpenAIChat(max_tokens="max_completion_tokens")),
    prefixes=("grok-",),
)
