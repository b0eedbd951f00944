"""OpenAI, by chat completions (platform.openai.com/docs/api-reference/chat)."""

from unbroken.providers.base import BearerKey, Provider
from unbroken.wire.openai_chat.dialect import OpenAIChat, chat_codec

PROVIDER = Provider(
    name="openai",
    base_url="https://api.openai.com/v1",
    base_url_env="OPENAI_BASE_URL",
    path="/chat/completions",
    auth=BearerKey("OPENAI_API_KEY"),
    codec=chat_codec(OpenAIChat(max_tokens="max_completion_tokens")),
    prefixes=("gpt-", "chatgpt-", "o1", "o3", "o4"),
)
