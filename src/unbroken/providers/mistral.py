"""Mistral (docs.mistral.ai/api). Usage comes without being asked for.

A last message with `prefix` is gone on with, and said again first.
"""

from unbroken.providers.base import BearerKey, Prefill, Provider
from unbroken.wire.openai_chat import OpenAIChat, chat_codec

PROVIDER = Provider(
    name="mistral",
    base_url="https://api.mistral.ai/v1",
    path="/chat/completions",
    auth=BearerKey("MISTRAL_API_KEY"),
    codec=chat_codec(OpenAIChat(usage_option=False, prefix_message={"prefix": True})),
    prefixes=("mistral-", "ministral-", "codestral-", "magistral-", "devstral-", "pixtral-"),
    prefill=Prefill(echoes=True),
)
