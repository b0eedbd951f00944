"""Fireworks AI (docs.fireworks.ai/api-reference/post-chatcompletions)."""

from unbroken.providers.base import BearerKey, Provider
from unbroken.wire.openai_chat import OpenAIChat, chat_codec

PROVIDER = Provider(
    name="fireworks",
    base_url="https://api.fireworks.ai/inference/v1",
    path="/chat/completions",
    auth=BearerKey("FIREWORKS_API_KEY"),
    codec=chat_codec(OpenAIChat(unknown=frozenset())),
)
