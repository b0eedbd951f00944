"""Atlas Cloud, an aggregator (atlascloud.ai/docs/api-keys, docs/createChatCompletion). `top_k` is a
parameter here.
"""

from unbroken.providers.base import BearerKey, Provider
from unbroken.wire.openai_chat.dialect import OpenAIChat, chat_codec

PROVIDER = Provider(
    name="atlascloud",
    base_url="https://api.atlascloud.ai/v1",
    path="/chat/completions",
    auth=BearerKey("ATLASCLOUD_API_KEY"),
    codec=chat_codec(OpenAIChat(unknown=frozenset())),
)
