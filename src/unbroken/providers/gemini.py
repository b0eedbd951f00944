"""Google Gemini, by its OpenAI-compatible API (ai.google.dev/gemini-api/docs/openai).

The address is the host, as google-genai reads it from GOOGLE_GEMINI_BASE_URL. That library reads
the key from either variable too (ai.google.dev/gemini-api/docs/api-key).
"""

from unbroken.providers.base import BearerKey, Provider
from unbroken.wire.openai_chat.dialect import CODEC

PROVIDER = Provider(
    name="gemini",
    base_url="https://generativelanguage.googleapis.com",
    base_url_env="GOOGLE_GEMINI_BASE_URL",
    path="/v1beta/openai/chat/completions",
    models_path="/v1beta/openai/models",
    auth=BearerKey("GEMINI_API_KEY"),
    other_key_env="GOOGLE_API_KEY",
    codec=CODEC,
    prefixes=("gemini-",),
)
