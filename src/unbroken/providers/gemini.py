"""Google Gemini, by its OpenAI-compatible API (ai.google.dev/gemini-api/docs/openai)."""

from unbroken.providers.base import BearerKey, Provider
from unbroken.wire.openai_chat import CODEC

PROVIDER = Provider(
    name="gemini",
    base_url="https://generativelanguage.googleapis.com/v1beta/openai",
    path="/chat/completions",
    auth=BearerKey("GEMINI_API_KEY"),
    codec=CODEC,
    prefixes=("gemini-",),
)
