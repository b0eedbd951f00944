"""POST /v1/messages, as Anthropic's (platform.claude.com/docs/en/api/messages)."""

from starlette.routing import Route

from unbroken.server.endpoints import chat_endpoint
from unbroken.wire.anthropic_messages.dialect import CODEC

routes = [Route("/v1/messages", chat_endpoint(CODEC), methods=["POST"])]
