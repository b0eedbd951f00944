"""The exceptions of this package, as one tree.

    UnbrokenError              .retryable  .response (what arrived)  .attempts  .request_id
    ├─ ConfigurationError      a key, model name or setting is missing or wrong
    ├─ TransportError          network failures
    │  ├─ ConnectFailed
    │  ├─ ConnectionLost
    │  └─ TimedOut             .phase: connect, first_event, idle, total
    ├─ ProtocolError           malformed or incomplete messages
    │  ├─ LocalProtocolError   the request can't be expressed
    │  ├─ RemoteProtocolError  the provider's bytes can't be read
    │  └─ StreamTruncated      the stream ended without its terminal event
    ├─ ProviderError           an error response: .status .body .code
    │  ├─ BadRequest           400, 413, 422
    │  │  ├─ ContextTooLong
    │  │  └─ ContentFiltered
    │  ├─ AuthenticationFailed 401
    │  ├─ PermissionDenied     403
    │  ├─ NotFound             404
    │  ├─ RateLimited          429: .retry_after
    │  │  └─ QuotaExhausted    the account has no credit left
    │  ├─ Overloaded           503, 529: .retry_after
    │  └─ ServerError          500 and the rest
    ├─ OutputMismatch          the finished answer is not what response_format asked for
    ├─ StreamInterrupted       recovery failed in mid-answer; see __cause__
    │  └─ ResumeMismatch
    └─ StoreError
       ├─ OffsetConflict
       ├─ OffsetUnknown
       ├─ StreamClosed
       └─ StreamMissing

An exception stores facts and formats them in `__str__`: what happened, to which provider and model,
at which attempt, and what to do about it. Callers never need to parse a message.
"""

from collections.abc import Iterable
from typing import ClassVar

from unbroken.response import Attempt, Response


class UnbrokenError(Exception):
    """Base class of every exception that this package raises.

    `response` is the part of the answer that arrived, `attempts` the attempts so far, `request_id`
    the provider's id of the request (quote it to the provider's support).
    """

    retryable: ClassVar[bool] = False
    hint: ClassVar[str] = ""

    def __init__(self, message: str = "", *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.advice = hint or self.hint
        self.provider = ""
        self.model = ""
        self.request_id = ""
        self.response = Response()
        self.attempts: tuple[Attempt, ...] = ()

    def facts(self) -> Iterable[str]:
        """Yield the clauses of the message, without provider and model."""
        yield self.message or type(self).__name__

    def __str__(self) -> str:
        who = f"{self.provider}/{self.model}: " if self.provider else ""
        tries = f" (after {len(self.attempts)} attempts)" if len(self.attempts) > 1 else ""
        what = ", ".join(self.facts()).rstrip(".")
        advice = f". {self.advice}" if self.advice else ""
        return f"{who}{what}{tries}{advice}"


class ConfigurationError(UnbrokenError):
    """A key, a model name or a setting is missing or wrong; nothing was sent."""


class TransportError(UnbrokenError):
    """The connection to the provider failed."""

    retryable = True


class ConnectFailed(TransportError):
    """No connection could be made: DNS, refused, unreachable, TLS."""

    hint = "Check the network and the base URL."


class ConnectionLost(TransportError):
    """The connection broke before the answer was complete."""


class TimedOut(TransportError):
    """A timeout expired. `phase` is `connect`, `first_event`, `idle` or `total`."""

    def __init__(self, message: str = "", *, phase: str = "", seconds: float | None = None) -> None:
        super().__init__(message)
        self.phase = phase
        self.seconds = seconds

    def facts(self) -> Iterable[str]:
        waited = "" if self.seconds is None else f" after {self.seconds:g} s"
        yield f"timed out{waited} ({self.phase or 'total'})"
        if self.message:
            yield self.message


class ProtocolError(UnbrokenError):
    """A message violates its protocol."""


class LocalProtocolError(ProtocolError):
    """The request can't be expressed in this provider's dialect; nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """The provider sent bytes that can't be read."""

    retryable = True


class StreamTruncated(ProtocolError):
    """The stream ended cleanly, but without the dialect's terminal event."""

    retryable = True


class UnknownFinishReason(ProtocolError):
    """The provider ended the answer with a finish reason that is not known."""

    hint = "If such answers are complete, set RecoveryPolicy(unknown_finish='accept')."

    def __init__(self, reason: str = "") -> None:
        super().__init__(f"unknown finish reason {reason!r}")
        self.reason = reason


class ProviderError(UnbrokenError):
    """The provider answered with an error.

    `status` is the HTTP status, or the status that the error's code stands for if it arrived
    after a 200; `code` is the provider's own code; `body` holds the bytes it sent; `retry_after`
    is in seconds.
    """

    def __init__(
        self,
        message: str = "",
        *,
        status: int | None = None,
        code: str = "",
        body: bytes = b"",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.body = body
        self.dialect = ""
        self.retry_after = retry_after
        self.should_retry: bool | None = None

    def facts(self) -> Iterable[str]:
        number = f"{self.status} " if self.status else ""
        code = f" [{self.code}]" if self.code else ""
        yield f"{number}{type(self).__name__}{code}: {self.message or 'no reason given'}"
        if self.retry_after is not None:
            yield f"retry after {self.retry_after:g} s"


class BadRequest(ProviderError):
    """The request is invalid; repeating it does not help (400, 413, 422)."""


class ContextTooLong(BadRequest):
    """Prompt and answer do not fit into the model's context."""

    hint = "Shorten the prompt or choose a model with a larger context."


class ContentFiltered(BadRequest):
    """The provider's content policy blocked it; repeating it does not help."""


class AuthenticationFailed(ProviderError):
    """The key is missing, wrong or revoked (401)."""

    hint = "Check the provider's API key."


class PermissionDenied(ProviderError):
    """The key is valid but lacks permission (403)."""

    hint = "Check that the key's project may use this model."


class NotFound(ProviderError):
    """No such model or path (404)."""

    hint = "Check the model name and the base URL."


class RateLimited(ProviderError):
    """Too many requests or tokens (429). `retry_after` is the provider's Retry-After in seconds."""

    retryable = True


class QuotaExhausted(RateLimited):
    """The account has no credit left; waiting does not help."""

    retryable = False
    hint = "Check the account's plan and billing."


class Overloaded(ProviderError):
    """The provider is overloaded (503, 529)."""

    retryable = True


class ServerError(ProviderError):
    """The provider failed or asks for a retry (5xx; 408, 409, 425)."""

    retryable = True


class StreamInterrupted(UnbrokenError):
    """The answer was interrupted and could not be continued.

    `response` holds everything that was delivered; `__cause__` is the error that interrupted it.
    """

    def facts(self) -> Iterable[str]:
        yield f"interrupted after {len(self.response.text)} characters"
        if self.__cause__ is not None:
            yield str(self.__cause__)


class ResumeMismatch(StreamInterrupted):
    """A second answer differed from what had been delivered of the first."""


class OutputMismatch(UnbrokenError):
    """The finished answer is not what `response_format` asked for; `response` holds it."""

    def facts(self) -> Iterable[str]:
        yield f"the answer does not fit the response_format: {self.message}"


class StoreError(UnbrokenError):
    """The log could not be written or read."""


class OffsetConflict(StoreError):
    """Another producer has appended: this one has lost its lease."""


class OffsetUnknown(StoreError):
    """The stream has no such offset."""


class StreamClosed(StoreError):
    """The stream is closed; nothing can be appended."""


class StreamMissing(StoreError):
    """No such stream."""


_BY_STATUS: dict[int, type[ProviderError]] = {
    400: BadRequest,
    401: AuthenticationFailed,
    403: PermissionDenied,
    404: NotFound,
    408: ServerError,
    409: ServerError,
    413: BadRequest,
    422: BadRequest,
    425: ServerError,
    429: RateLimited,
    503: Overloaded,
    529: Overloaded,
}


def error_class(status: int) -> type[ProviderError]:
    """Return the exception class for an HTTP status."""
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return BadRequest if status < 500 else ServerError  # a redirect means a wrong base URL
