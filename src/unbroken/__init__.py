"""unbroken: LLM streams that survive.

    import unbroken

    with unbroken.Client() as client:
        with client.stream("openai/gpt-6-luna", "Explain the TCP handshake.") as stream:
            for text in stream.text:
                print(text, end="", flush=True)
        print(stream.response.usage)

`Client` and `AsyncClient` ask any provider; `stream` gives events as they come, `complete` the
whole `Response`. Whatever goes wrong is an `UnbrokenError`. HTTP libraries and
providers are loaded when they are used.
"""

from typing import Any

from unbroken.client._async import AsyncClient, AsyncStream
from unbroken.client._shared import complete, stream
from unbroken.client._sync import Client, Stream
from unbroken.client.conversation import AsyncConversation, Conversation
from unbroken.engine.limits import Limits
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
    OutputMismatch,
    Overloaded,
    PermissionDenied,
    ProtocolError,
    ProviderError,
    QuotaExhausted,
    RateLimited,
    RemoteProtocolError,
    ResumeMismatch,
    ServerError,
    StreamInterrupted,
    StreamTruncated,
    TimedOut,
    TransportError,
    UnbrokenError,
    UnknownFinishReason,
)
from unbroken.messages import Message, Tool
from unbroken.metrics.timing import StreamMetrics
from unbroken.response import Response

__all__ = [
    "AsyncClient",
    "AsyncConversation",
    "AsyncStream",
    "AuthenticationFailed",
    "BadRequest",
    "Client",
    "ConfigurationError",
    "ConnectFailed",
    "ConnectionLost",
    "ContentFiltered",
    "ContextTooLong",
    "Conversation",
    "Limits",
    "LocalProtocolError",
    "Message",
    "NotFound",
    "OutputMismatch",
    "Overloaded",
    "PermissionDenied",
    "ProtocolError",
    "ProviderError",
    "QuotaExhausted",
    "RateLimited",
    "RecoveryPolicy",
    "RemoteProtocolError",
    "Response",
    "ResumeMismatch",
    "ServerError",
    "Stream",
    "StreamInterrupted",
    "StreamMetrics",
    "StreamTruncated",
    "TimedOut",
    "Timeouts",
    "Tool",
    "TransportError",
    "UnbrokenError",
    "UnknownFinishReason",
    "complete",
    "stream",
]


def __getattr__(name: str) -> Any:
    """`__version__`, read when somebody wants to know it: importlib.metadata is slow to import."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version

    return version("unbroken")
