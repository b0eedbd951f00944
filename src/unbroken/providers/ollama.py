"""Ollama on this machine (docs.ollama.com/api/openai-compatibility), where OLLAMA_HOST says.

It goes on from a last assistant message where the model's template or renderer leaves that message
open; others close it and begin anew. Declared are those of which it is known: llama3.1 (by the
maintainers, ollama/ollama#6778) and those whose renderers do it (model/renderers, seen in August
2026). Not with `n`, which it does not read.
"""

from unbroken.providers.base import BearerKey, Prefill, Provider
from unbroken.wire.openai_chat.dialect import OpenAIChat, chat_codec

PROVIDER = Provider(
    name="ollama",
    base_url="http://127.0.0.1:11434/v1",
    host_env="OLLAMA_HOST",
    path="/chat/completions",
    auth=BearerKey("OLLAMA_API_KEY", required=False),
    codec=chat_codec(OpenAIChat(unknown=frozenset({"top_k", "n"}))),
    local=True,
    prefill=Prefill(("llama3.1*", "qwen3-coder*", "qwen3-vl*", "qwen3.5*")),
)
