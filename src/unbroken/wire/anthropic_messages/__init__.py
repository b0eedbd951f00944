"""Anthropic messages, as a client and as a server: the dialect and its codec."""

from unbroken.wire.anthropic_messages.dialect import CODEC, AnthropicMessages

__all__ = ["CODEC", "AnthropicMessages"]
