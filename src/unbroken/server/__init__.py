"""Serving streams: over one's own routes (`sse`), or as a gateway with a durable log."""

from unbroken.server.feed import Feed
from unbroken.server.sse import sse

__all__ = ["Feed", "sse"]
