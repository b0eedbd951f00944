"""Any other server that speaks OpenAI chat completions: `Client(base_url=...)`, any model name."""

from unbroken.providers.base import BearerKey, Provider
from unbroken.wire.openai_chat.dialect import CODEC

PROVIDER = Provider(
    name="compatible",
    base_url="",
    base_url_env="UNBROKEN_BASE_URL",
    path="/chat/completions",
    auth=BearerKey("UNBROKEN_API_KEY", required=False),
    codec=CODEC,
)
