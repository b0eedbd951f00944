"""Google Gemini, by its OpenAI-compatible API (ai.google.dev/gemini-api/docs/openai).

`gemini/` speaks Gemini's own API, which knows thoughts, signatures and grounding.
"""

from unbroken.providers.base import BearerKey, Provider
from unbroken.wire.openai_chat.dialect import CODEC

PROVIDER = Provider(
    name="gemini-openai",
    base_url="https://generativelanguage.googleapis.com",
    base_url_env="GOOGLE_GEMINI_BASE_URL",
    path="/v1beta/openai/chat/completions",
    models_path="/v1beta/openai/models",
    auth=BearerKey("GEMINI_API_KEY"),
    other_key_env="GOOGLE_API_KEY",
    codec=CODEC,
)
