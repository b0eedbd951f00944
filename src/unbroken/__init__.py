"""unbroken: LLM streams that survive.

    import unbroken

    with unbroken.Client() as client:
        with client.stream("openai/gpt-6-luna", "Explain the TCP handshake.") as stream:
            for text in stream.text:
                print(text, end="", flush=True)
        print(stream.response.usage)

`Client` and `AsyncClient` ask any provider; `stream` gives events as they come, `complete` the
whole `Response`. Whatever goes wrong is an `UnbrokenError`. Names are loaded when they are used:
importing this package loads nothing but the standard library.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unbroken.client._async import AsyncClient, AsyncStream
    from unbroken.client._shared import complete, stream
    from unbroken.client._sync import Client, Stream
    from unbroken.engine.policy import RecoveryPolicy, Timeouts
    from unbroken.errors import (
        AuthenticationFailed,
        BadRequest,
        ConfigurationError,
        ConnectFailed,
        ConnectionLost,
        ContentFiltered,
        ContextTooLong,
        LocalProtocolError,
        NotFound,
        Overloaded,
        PermissionDenied,
        ProtocolError,
        ProviderError,
        QuotaExhausted,
        RateLimited,
        RemoteProtocolError,
        ServerError,
        StreamInterrupted,
        StreamTruncated,
        TimedOut,
        TransportError,
        UnbrokenError,
    )
    from unbroken.messages import Message, Tool
    from unbroken.metrics.timing import StreamMetrics
    from unbroken.response import Response

_ROOMS = {
    "unbroken.client._async": ("AsyncClient", "AsyncStream"),
    "unbroken.client._sync": ("Client", "Stream"),
    "unbroken.client._shared": ("complete", "stream"),
    "unbroken.engine.policy": ("RecoveryPolicy", "Timeouts"),
    "unbroken.messages": ("Message", "Tool"),
    "unbroken.metrics.timing": ("StreamMetrics",),
    "unbroken.response": ("Response",),
    "unbroken.errors": (
        "AuthenticationFailed",
        "BadRequest",
        "ConfigurationError",
        "ConnectFailed",
        "ConnectionLost",
        "ContentFiltered",
        "ContextTooLong",
        "LocalProtocolError",
        "NotFound",
        "Overloaded",
        "PermissionDenied",
        "ProtocolError",
        "ProviderError",
        "QuotaExhausted",
        "RateLimited",
        "RemoteProtocolError",
        "ServerError",
        "StreamInterrupted",
        "StreamTruncated",
        "TimedOut",
        "TransportError",
        "UnbrokenError",
    ),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [  # noqa: PLE0604  # one table says where each name lives; this is its keys
    *sorted(_HOME),
]


def __getattr__(name: str) -> Any:
    """Load a public name from its room at its first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'unbroken' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
