"""Fireworks AI (docs.fireworks.ai/api-reference/post-chatcompletions); the address ends before
`/v1`, as its SDK reads it. `top_k` is a parameter here.
"""

from unbroken.providers.base import BearerKey, Provider
from unbroken.wire.openai_chat.dialect import OpenAIChat, chat_codec

PROVIDER = Provider(
    name="fireworks",
    base_url="https://api.fireworks.ai/inference",
    base_url_env="FIREWORKS_BASE_URL",
    path="/v1/chat/completions",
    models_path="/v1/models",
    auth=BearerKey("FIREWORKS_API_KEY"),
    codec=chat_codec(OpenAIChat(unknown=frozenset())),
)
