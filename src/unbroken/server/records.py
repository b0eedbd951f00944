"""What stands in the log of an answer: first what was asked, then the events, batch by batch.

The first record is enough for any process to finish the answer. Records are JSON, so that a log
can be read by people and by programs of any version.
"""

from typing import Literal

import msgspec
from msgspec import Struct

from unbroken.errors import ProviderError, ServerError, UnbrokenError, error_class
from unbroken.events import Event, Usage
from unbroken.messages import Request
from unbroken.stores.base import End

OnDisconnect = Literal["keep", "cancel", "grace"]
"""What becomes of an answer when its last reader has left: it is finished; stopped at once; or
stopped unless somebody is back within the grace time."""


class AnswerRequest(Struct, frozen=True, kw_only=True):
    """The question and the manner of its answer; `models` stand in for each other in order.

    `created` is in Unix seconds, `grace` in seconds. `request_id` and `traceparent` are of the
    request that asked, for the log and the trace. `background` is how it was asked through the
    Responses dialect, which tells it back.
    """

    models: list[str]
    request: Request
    created: int
    owner: str = ""
    on_disconnect: OnDisconnect = "keep"
    grace: float = 10.0
    hedge_after: float | None = None
    request_id: str = ""
    traceparent: str = ""
    background: bool = False

    def same(self, other: "AnswerRequest") -> bool:
        """Whether both ask the same; how the answer is read is no part of the question."""
        return self.models == other.models and _plain(self.request) == _plain(other.request)


def _plain(request: Request) -> Request:
    return msgspec.structs.replace(request, stream=True, include_usage=True)


class Failure(Struct, frozen=True, omit_defaults=True):
    """Why an answer failed: the class of the error, its message, and what a dialect needs."""

    type: str
    message: str
    status: int | None = None
    code: str = ""
    retry_after: float | None = None

    @classmethod
    def from_error(cls, error: UnbrokenError) -> "Failure":
        """Return an error as it is stored. An interruption is stored as its cause, if a provider's
        error caused it.
        """
        cause = error.__cause__ if isinstance(error.__cause__, ProviderError) else error
        kind, message = type(error).__name__, str(error)
        if isinstance(cause, ProviderError):
            return cls(kind, message, cause.status, cause.code, cause.retry_after)
        return cls(kind, message)

    def to_error(self) -> ProviderError:
        """Return the error that a dialect shows its client. A failed connection to the provider is
        a 502; a missing key of ours is a 404, which clients do not retry.
        """
        default_status, default_code = _WITHOUT_STATUS.get(self.type, (502, "upstream_error"))
        status, code = self.status or default_status, self.code or default_code
        return error_class(status)(
            self.message, status=status, code=code, retry_after=self.retry_after
        )


_WITHOUT_STATUS = {
    "TimedOut": (504, "upstream_error"),
    "AuthenticationFailed": (404, "model_not_found"),
    "ConfigurationError": (404, "model_not_found"),
}
"""Status and code of errors to which no provider gave a status."""


class Outcome(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How it ended: what stands behind the last record. Times in seconds, `cost` in USD; `usage` is
    an estimate, and says so, where the provider did not report all (`server/estimate.py`).

    `reason` says why it was cancelled: "stopped", somebody asked for it; "left", nobody read it.
    """

    state: str
    reason: str = ""
    error: Failure | None = None
    usage: Usage | None = None
    cost: float | None = None
    provider: str = ""
    model: str = ""
    attempts: int = 1
    metrics: dict[str, float | None] = {}


_encode = msgspec.json.Encoder().encode
_events = msgspec.json.Decoder(list[Event]).decode
_asked = msgspec.json.Decoder(AnswerRequest).decode
_final = msgspec.json.Decoder(Outcome).decode


def encode_request(asked: AnswerRequest) -> bytes:
    """The first record."""
    return _encode(asked)


def decode_request(record: bytes) -> AnswerRequest:
    """What the first record says."""
    return _asked(record)


def encode_events(batch: list[Event]) -> bytes:
    """One batch as a record, in no more memory than it needs: the encoder leaves room to grow."""
    return bytes(memoryview(_encode(batch)))


def decode_events(record: bytes) -> list[Event]:
    """The batch in a record."""
    return _events(record)


def encode_outcome(final: Outcome) -> bytes:
    """The bytes that stand with the end."""
    return _encode(final)


def decode_outcome(data: bytes) -> Outcome:
    """What stands with the end."""
    return _final(data) if data else Outcome(state="failed")


def as_unbroken_error(error: Exception) -> UnbrokenError:
    """What went wrong, as ours. Of a fault that nobody thought of only its kind is told."""
    if isinstance(error, UnbrokenError):
        return error
    return ServerError(f"a fault of the gateway: {type(error).__name__}", status=500)


DETACHED = "left"
"""The state of an end that is none of the answer's: its reader is let go in the middle of it."""


def detached(stream: str, why: str) -> End:
    """The end for a reader that is let go. Most dialects have no way back to an answer, so that
    they must say so, or half of it is taken for the whole.
    """
    said = f"{why}; the answer goes on as {stream}"
    failure = Failure("Overloaded", said, 503, "overloaded_error", retry_after=1.0)
    return End(DETACHED, encode_outcome(Outcome(state=DETACHED, error=failure)))


def is_complete(end: End | None) -> bool:
    """Whether nothing is missing: only then may a tool call be carried out."""
    return end is not None and end.state == "complete"


def end_error(end: End) -> ProviderError | None:
    """What a dialect has to say of an end: nothing, unless the answer failed or was cancelled.

    499 is nginx's number for a request that was given up; it is none that SDKs try again.
    """
    if end.state in {"failed", DETACHED}:
        failure = decode_outcome(end.final).error or Failure("ServerError", "the answer failed")
        return failure.to_error()
    if end.state == "cancelled":
        return error_class(499)("the answer was stopped", status=499, code="cancelled")
    return None
