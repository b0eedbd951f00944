"""OpenRouter, an aggregator (openrouter.ai/docs/api-reference). `top_k` is a parameter here, and
usage comes without being asked for; names of parameters as in its SDK `openrouter` 1.3.

Whether an answer can be gone on with depends on who serves the model; none is declared.
"""

from unbroken.providers.base import BearerKey, Provider
from unbroken.wire.openai_chat.dialect import OpenAIChat, chat_codec

_DIALECT = OpenAIChat(max_tokens="max_completion_tokens", unknown=frozenset(), usage_option=False)

PROVIDER = Provider(
    name="openrouter",
    base_url="https://openrouter.ai/api/v1",
    path="/chat/completions",
    auth=BearerKey("OPENROUTER_API_KEY"),
    codec=chat_codec(_DIALECT),
)
