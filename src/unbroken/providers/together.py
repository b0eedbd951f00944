"""Together AI, an aggregator (docs.together.ai/reference/chat-completions-1); the address is the
host, as its SDK reads it. `top_k` is a parameter here.
"""

from unbroken.providers.base import BearerKey, Provider
from unbroken.wire.openai_chat.dialect import OpenAIChat, chat_codec

PROVIDER = Provider(
    name="together",
    base_url="https://api.together.ai",
    base_url_env="TOGETHER_BASE_URL",
    path="/v1/chat/completions",
    models_path="/v1/models",
    auth=BearerKey("TOGETHER_API_KEY"),
    codec=chat_codec(OpenAIChat(unknown=frozenset())),
)
