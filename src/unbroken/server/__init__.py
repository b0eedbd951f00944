"""Streams for browsers and SDKs, over Starlette (the extra `server`)."""

import warnings
from typing import Any

try:
    from unbroken.server.gateway import Gateway
    from unbroken.server.protocols.stream import durable_sse
    from unbroken.server.responses import StreamResponse
    from unbroken.server.settings import Settings
    from unbroken.server.sse import sse
except ModuleNotFoundError as error:
    if (error.name or "").startswith("unbroken"):
        raise  # a fault of our own
    raise ImportError(
        "this needs the extra `server`: pip install 'unbroken[server]'", name=error.name
    ) from error

__all__ = ["Gateway", "Settings", "StreamResponse", "durable_sse", "sse"]


def __getattr__(name: str) -> Any:
    """Return a name that has been renamed, with a warning."""
    if name == "Feed":
        message = "unbroken.server.Feed is now StreamResponse; the old name goes with release 1.0"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return StreamResponse
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
