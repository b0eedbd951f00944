"""OpenAI responses: the dialect and its codec."""

from unbroken.wire.openai_responses.dialect import CODEC, OpenAIResponses

__all__ = ["CODEC", "OpenAIResponses"]
