"""Together AI, an aggregator (docs.together.ai/reference/chat-completions-1)."""

from unbroken.providers.base import BearerKey, Provider
from unbroken.wire.openai_chat import OpenAIChat, chat_codec

PROVIDER = Provider(
    name="together",
    base_url="https://api.together.xyz/v1",
    path="/chat/completions",
    auth=BearerKey("TOGETHER_API_KEY"),
    codec=chat_codec(OpenAIChat(unknown=frozenset())),
)
