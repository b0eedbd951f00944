"""POST /v1/chat/completions, as OpenAI's (platform.openai.com/docs/api-reference/chat).

A field of ours, `fallbacks`, is a list of models that stand in for the first.
"""

from starlette.routing import Route

from unbroken.server.speak import speaking
from unbroken.wire.openai_chat.dialect import CODEC

routes = [Route("/v1/chat/completions", speaking(CODEC), methods=["POST"])]
