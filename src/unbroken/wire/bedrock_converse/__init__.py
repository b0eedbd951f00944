"""Amazon Bedrock Converse: the dialect and its codec."""

from unbroken.wire.bedrock_converse.dialect import CODEC, BedrockConverse

__all__ = ["CODEC", "BedrockConverse"]
