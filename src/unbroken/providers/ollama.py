"""Ollama on this machine (docs.ollama.com/openai). It goes on from a last assistant message where
the model's template leaves it open, as those of its library do.
"""

from unbroken.providers.base import BearerKey, Prefill, Provider
from unbroken.wire.openai_chat import CODEC

PROVIDER = Provider(
    name="ollama",
    base_url="http://127.0.0.1:11434/v1",
    base_url_env="OLLAMA_BASE_URL",
    path="/chat/completions",
    auth=BearerKey("", required=False),
    codec=CODEC,
    local=True,
    prefill=Prefill(),
)
