"""Anthropic, by messages (platform.claude.com/docs/en/api/messages).

The API version is the one that still knows `temperature` and `top_p`; 2026-10-21 removed them.
"""

from unbroken.providers.base import HeaderKey, Provider
from unbroken.wire.anthropic_messages import CODEC

PROVIDER = Provider(
    name="anthropic",
    base_url="https://api.anthropic.com",
    base_url_env="ANTHROPIC_BASE_URL",
    path="/v1/messages",
    auth=HeaderKey("ANTHROPIC_API_KEY", header="x-api-key"),
    headers={"anthropic-version": "2023-06-01"},
    codec=CODEC,
    prefixes=("claude-",),
)
