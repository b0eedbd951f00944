"""LM Studio's server on this machine (lmstudio.ai/docs/developer/openai-compat); the token is
wanted only where it is switched on (docs/developer/core/authentication).
"""

from unbroken.providers.base import BearerKey, Provider
from unbroken.wire.openai_chat.dialect import CODEC

PROVIDER = Provider(
    name="lmstudio",
    base_url="http://127.0.0.1:1234/v1",
    base_url_env="LMSTUDIO_BASE_URL",
    path="/chat/completions",
    auth=BearerKey("LM_API_TOKEN", required=False),
    codec=CODEC,
    local=True,
)
