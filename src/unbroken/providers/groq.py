"""Groq (console.groq.com/docs/api-reference); the address is the host, as its SDK reads it.

It goes on from a last assistant message (console.groq.com/docs/prefilling). That page shows Llama;
for the models that reason first it is not shown, and not declared.
"""

from unbroken.providers.base import BearerKey, Prefill, Provider
from unbroken.wire.openai_chat.dialect import OpenAIChat, chat_codec

PROVIDER = Provider(
    name="groq",
    base_url="https://api.groq.com",
    base_url_env="GROQ_BASE_URL",
    path="/openai/v1/chat/completions",
    models_path="/openai/v1/models",
    auth=BearerKey("GROQ_API_KEY"),
    codec=chat_codec(OpenAIChat(max_tokens="max_completion_tokens")),
    prefill=Prefill(("llama*", "meta-llama/*")),
)
