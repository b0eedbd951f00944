"""OpenAI, by the Responses API (platform.openai.com/docs/api-reference/responses).

With `extra={"background": True}` the answer outlives its connection: it is followed again after
the last event that was seen, for some five minutes (openai/openai-python#2828).
"""

from unbroken.providers.base import BearerKey, Provider
from unbroken.wire.openai_responses.dialect import CODEC

PROVIDER = Provider(
    name="openai-responses",
    base_url="https://api.openai.com/v1",
    base_url_env="OPENAI_BASE_URL",
    path="/responses",
    resume_path="/responses/{id}?stream=true&starting_after={sequence}",
    auth=BearerKey("OPENAI_API_KEY"),
    codec=CODEC,
)
