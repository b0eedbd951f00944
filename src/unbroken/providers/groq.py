"""Groq (console.groq.com/docs/api-reference). It goes on from a last assistant message
(console.groq.com/docs/prefilling).
"""

from unbroken.providers.base import BearerKey, Prefill, Provider
from unbroken.wire.openai_chat import OpenAIChat, chat_codec

PROVIDER = Provider(
    name="groq",
    base_url="https://api.groq.com/openai/v1",
    path="/chat/completions",
    auth=BearerKey("GROQ_API_KEY"),
    codec=chat_codec(OpenAIChat(max_tokens="max_completion_tokens")),
    prefill=Prefill(),
)
