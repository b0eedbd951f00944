"""POST /v1/chat/completions, as OpenAI's (platform.openai.com/docs/api-reference/chat).

A field of ours, `fallbacks`, is a list of models that stand in for the first.
"""

from starlette.routing import Route

from unbroken.server.endpoints import chat_endpoint
from unbroken.wire.openai_chat.dialect import CODEC

routes = [Route("/v1/chat/completions", chat_endpoint(CODEC), methods=["POST"])]
