"""Atlas Cloud, an aggregator (atlascloud.ai/docs)."""

from unbroken.providers.base import BearerKey, Provider
from unbroken.wire.openai_chat import CODEC

PROVIDER = Provider(
    name="atlascloud",
    base_url="https://api.atlascloud.ai/v1",
    path="/chat/completions",
    auth=BearerKey("ATLASCLOUD_API_KEY"),
    codec=CODEC,
)
