"""OpenAI chat completions and everything compatible: the dialect and its codec."""

from unbroken.wire.openai_chat.dialect import CODEC, OpenAIChat, chat_codec

__all__ = ["CODEC", "OpenAIChat", "chat_codec"]
