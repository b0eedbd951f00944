"""Anthropic, by messages (platform.claude.com/docs/en/api/messages).

The API version is the one that still knows `temperature` and `top_p`; 2026-10-21 removed them.
"""

from unbroken.providers.base import HeaderKey, Prefill, Provider
from unbroken.wire.anthropic_messages.dialect import CODEC

# Those that go on with a last assistant message; from 4.6 on it is a 400 ("Prefill Claude's
# response"). White space at its end is refused.
_CONTINUE = (
    "claude-2*",
    "claude-instant*",
    "claude-3*",
    "claude-*-4-0",
    "claude-*-4-1*",
    "claude-*-4-5*",
    "claude-*-4-2025*",
)

PROVIDER = Provider(
    name="anthropic",
    base_url="https://api.anthropic.com",
    base_url_env="ANTHROPIC_BASE_URL",
    path="/v1/messages",
    models_path="/v1/models?limit=1000",
    auth=HeaderKey("ANTHROPIC_API_KEY", header="x-api-key"),
    headers={"anthropic-version": "2023-06-01"},
    codec=CODEC,
    prefill=Prefill(_CONTINUE, keeps_space=False),
    prefixes=("claude-",),
)
