"""llama.cpp's `llama-server` on this machine (ggml-org/llama.cpp, tools/server).

It goes on from a last assistant message since April 2025 (ggml-org/llama.cpp#13174); since May 2026
even with `--no-prefill-assistant`, when told so with two fields (#23012). Where a model thinks,
older ones answer 400 instead.
"""

from unbroken.providers.base import BearerKey, Prefill, Provider
from unbroken.wire.openai_chat.dialect import OpenAIChat, chat_codec

_DIALECT = OpenAIChat(
    unknown=frozenset(),
    prefix_body={"continue_final_message": True, "add_generation_prompt": False},
)

PROVIDER = Provider(
    name="llamacpp",
    base_url="http://127.0.0.1:8080/v1",
    base_url_env="LLAMACPP_BASE_URL",
    path="/chat/completions",
    auth=BearerKey("LLAMA_API_KEY", required=False),
    codec=chat_codec(_DIALECT),
    local=True,
    prefill=Prefill(),
)
