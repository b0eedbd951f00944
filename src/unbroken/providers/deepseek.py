"""DeepSeek (api-docs.deepseek.com). A last message with `prefix` is gone on with, under /beta
(api-docs.deepseek.com/guides/chat_prefix_completion). Its models think unless they are told not to,
and a turn that called tools must bring its reasoning back (.../guides/thinking_mode, tool calls).

It has no SDK of its own; the key's name is that of its documentation.
"""

from unbroken.providers.base import BearerKey, Prefill, Provider
from unbroken.wire.openai_chat.dialect import OpenAIChat, chat_codec

PROVIDER = Provider(
    name="deepseek",
    base_url="https://api.deepseek.com",
    path="/chat/completions",
    auth=BearerKey("DEEPSEEK_API_KEY"),
    codec=chat_codec(OpenAIChat(prefix_message={"prefix": True}, thoughts_with_calls=True)),
    prefixes=("deepseek-",),
    prefill=Prefill(path="/beta/chat/completions"),
)
