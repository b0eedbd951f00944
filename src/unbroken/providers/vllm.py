"""vLLM's server on this machine (docs.vllm.ai, OpenAI-compatible server).

It goes on from a last assistant message when told so with two fields (vllm-project/vllm#8942; since
0.6.4 without saying it again, #10111); a model's template may trim the message's end. SGLang reads
the first of the fields and may be asked through this provider (sgl-project/sglang#4226).
"""

from unbroken.providers.base import BearerKey, Prefill, Provider
from unbroken.wire.openai_chat.dialect import OpenAIChat, chat_codec

_DIALECT = OpenAIChat(
    unknown=frozenset(),
    prefix_body={"continue_final_message": True, "add_generation_prompt": False},
)

PROVIDER = Provider(
    name="vllm",
    base_url="http://127.0.0.1:8000/v1",
    base_url_env="VLLM_BASE_URL",
    path="/chat/completions",
    auth=BearerKey("VLLM_API_KEY", required=False),
    codec=chat_codec(_DIALECT),
    local=True,
    prefill=Prefill(keeps_space=False),
)
