"""Google Gemini, by its own API (ai.google.dev/api/generate-content).

The address is the host, as google-genai reads it from GOOGLE_GEMINI_BASE_URL. That library reads
the key from either variable too (ai.google.dev/gemini-api/docs/api-key).
"""

from unbroken.providers.base import HeaderKey, Provider
from unbroken.wire.gemini.dialect import CODEC

PROVIDER = Provider(
    name="gemini",
    base_url="https://generativelanguage.googleapis.com",
    base_url_env="GOOGLE_GEMINI_BASE_URL",
    path="/v1beta/models/{model}:streamGenerateContent?alt=sse",
    whole_path="/v1beta/models/{model}:generateContent",
    models_path="/v1beta/models?pageSize=1000",
    auth=HeaderKey("GEMINI_API_KEY", header="x-goog-api-key"),
    other_key_env="GOOGLE_API_KEY",
    codec=CODEC,
    prefixes=("gemini-",),
)
