"""Streams for browsers and SDKs, over Starlette (the extra `server`)."""

from unbroken.server.feed import Feed
from unbroken.server.gateway import Gateway
from unbroken.server.protocols.stream import durable_sse
from unbroken.server.settings import Settings
from unbroken.server.sse import sse

__all__ = ["Feed", "Gateway", "Settings", "durable_sse", "sse"]
