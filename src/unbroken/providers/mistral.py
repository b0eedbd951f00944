"""Mistral (docs.mistral.ai/api; parameters as in its SDK `mistralai` 3.7, others are refused).

Usage comes without being asked for. A last message with `prefix` is gone on with, and said again
first (docs.mistral.ai, "Prefix").
"""

from unbroken.providers.base import BearerKey, Prefill, Provider
from unbroken.wire.openai_chat.dialect import OpenAIChat, chat_codec

_DIALECT = OpenAIChat(
    unknown=frozenset({"user"}),
    renamed={"seed": "random_seed"},
    usage_option=False,
    prefix_message={"prefix": True},
)

PROVIDER = Provider(
    name="mistral",
    base_url="https://api.mistral.ai/v1",
    path="/chat/completions",
    auth=BearerKey("MISTRAL_API_KEY"),
    codec=chat_codec(_DIALECT),
    prefixes=("mistral-", "ministral-", "codestral-", "magistral-", "devstral-", "pixtral-"),
    prefill=Prefill(echoes=True),
)
