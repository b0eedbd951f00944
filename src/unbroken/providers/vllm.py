"""vLLM's server on this machine (docs.vllm.ai, OpenAI-compatible server). It goes on from a last
assistant message when told so with two fields (`continue_final_message`).
"""

from unbroken.providers.base import BearerKey, Prefill, Provider
from unbroken.wire.openai_chat import OpenAIChat, chat_codec

PROVIDER = Provider(
    name="vllm",
    base_url="http://127.0.0.1:8000/v1",
    base_url_env="VLLM_BASE_URL",
    path="/chat/completions",
    auth=BearerKey("VLLM_API_KEY", required=False),
    codec=chat_codec(
        OpenAIChat(
            unknown=frozenset(),
            prefix_body={"continue_final_message": True, "add_generation_prompt": False},
        )
    ),
    local=True,
    prefill=Prefill(),
)
