"""Streams for browsers and SDKs, over Starlette (the extra `server`)."""

try:
    from unbroken.server.feed import Feed
    from unbroken.server.gateway import Gateway
    from unbroken.server.protocols.stream import durable_sse
    from unbroken.server.settings import Settings
    from unbroken.server.sse import sse
except ModuleNotFoundError as error:
    if (error.name or "").startswith("unbroken"):
        raise  # a fault of our own
    raise ImportError(
        "this needs the extra `server`: pip install 'unbroken[server]'", name=error.name
    ) from error

__all__ = ["Feed", "Gateway", "Settings", "durable_sse", "sse"]
