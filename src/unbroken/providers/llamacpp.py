"""llama.cpp's `llama-server` on this machine (ggml-org/llama.cpp, tools/server). It goes on from a
last assistant message (ggml-org/llama.cpp#13174; `--no-prefill-assistant` switches it off).
"""

from unbroken.providers.base import BearerKey, Prefill, Provider
from unbroken.wire.openai_chat import OpenAIChat, chat_codec

PROVIDER = Provider(
    name="llamacpp",
    base_url="http://127.0.0.1:8080/v1",
    base_url_env="LLAMACPP_BASE_URL",
    path="/chat/completions",
    auth=BearerKey("LLAMACPP_API_KEY", required=False),
    codec=chat_codec(OpenAIChat(unknown=frozenset())),
    local=True,
    prefill=Prefill(),
)
