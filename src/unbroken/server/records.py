"""What the log of an answer holds: first the request, then the events, batch by batch.

The first record is enough for any process to finish the answer. Records are JSON, so that a log
can be read by people and by programs of any version.
"""

from typing import Literal

import msgspec
from msgspec import Struct

from unbroken.errors import ProviderError, ServerError, UnbrokenError, error_class
from unbroken.events import Event, Usage
from unbroken.messages import Request
from unbroken.server.travel import ProviderFacts
from unbroken.server.wording import for_callers
from unbroken.stores.base import End

OnDisconnect = Literal["keep", "cancel", "grace"]
"""What happens to an answer when its last reader disconnects: it is finished; stopped at once; or
stopped unless a reader is back within the grace time."""

MAX_MESSAGE = 4096
"""Characters of an error message that are stored: a provider may send any number."""


class AnswerRequest(Struct, frozen=True, kw_only=True):
    """One request for an answer, with all that another process needs to finish it.

    `models` are tried in order. `owner` is charged. `created` is in Unix seconds, `grace` in
    seconds. `request_id` and `traceparent` belong to the HTTP request, for the log and the trace.
    `background` is the parameter of the Responses API, which returns it. `stored_in` names the
    stream that holds the request, if it is large (`server/large_requests.py`).
    """

    stored_in: str = ""  # first: a record is recognised by its beginning
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
        """Whether both ask for the same answer; how it is read does not count."""
        if self.models != other.models:
            return False
        one, two = self.request, other.request
        if _dialect_of(one) != _dialect_of(two):  # then only what both dialects express counts
            one, two = _without_natives(one), _without_natives(two)
        return _plain(one) == _plain(two)


def _plain(request: Request) -> Request:
    """Return the request without what only decides how its answer is read."""
    native = request.native
    if native is not None:
        data = {name: native.data[name] for name in native.data.keys() - _READING}
        native = msgspec.structs.replace(native, data=data)
    return msgspec.structs.replace(request, stream=True, include_usage=True, native=native)


def _dialect_of(request: Request) -> str:
    return "" if request.native is None else request.native.dialect


def _without_natives(request: Request) -> Request:
    messages = tuple(msgspec.structs.replace(m, native=None) for m in request.messages)
    tools = tuple(msgspec.structs.replace(t, native=None) for t in request.tools or ())
    return msgspec.structs.replace(
        request, native=None, messages=messages, tools=tools or None, headers={}
    )


_READING = frozenset({"stream", "stream_options"})


class Failure(Struct, frozen=True, omit_defaults=True):
    """Why an answer failed: the class of the error, its message, and what a dialect needs."""

    type: str
    message: str
    status: int | None = None
    code: str = ""
    retry_after: float | None = None
    body: str = ""
    dialect: str = ""
    request_id: str = ""

    @classmethod
    def from_error(cls, error: UnbrokenError) -> "Failure":
        """Return an error as it is stored. An interruption is stored as its cause, if a provider's
        error caused it.
        """
        cause = error.__cause__ if isinstance(error.__cause__, ProviderError) else error
        kind, message = type(error).__name__, for_callers(error)[:MAX_MESSAGE]
        if isinstance(cause, ProviderError):
            facts = (cause.status, cause.code, cause.retry_after)
            return cls(kind, message, *facts, *_shown(cause), error.request_id)
        return cls(kind, message)

    def to_error(self) -> ProviderError:
        """Return the error that a dialect shows its client. A failed connection to the provider is
        a 502; a missing key of ours is a 404, which clients do not retry.
        """
        default_status, default_code = _WITHOUT_STATUS.get(self.type, (502, "upstream_error"))
        status, code = self.status or default_status, self.code or default_code
        error = error_class(status)(
            self.message, status=status, code=code, retry_after=self.retry_after
        )
        error.body, error.dialect = self.body.encode(), self.dialect
        error.request_id = self.request_id
        return error


def _shown(error: ProviderError) -> tuple[str, str]:
    """The body that a client of the provider's own dialect may see, and that dialect. What is
    wrong with the gateway's own key is none of its clients' business.
    """
    if error.status in (401, 403) or not error.dialect or len(error.body) > MAX_BODY:
        return "", ""
    return error.body.decode("utf-8", "replace"), error.dialect


MAX_BODY = 16 * 1024
"""Bytes of a provider's error body that are kept."""

_WITHOUT_STATUS = {
    "TimedOut": (504, "upstream_error"),
    "AuthenticationFailed": (404, "model_not_found"),
    "ConfigurationError": (404, "model_not_found"),
}
"""Status and code of errors to which no provider gave a status."""


class Outcome(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How an answer ended; stored with the end of its stream. Times are in seconds, `cost` in USD.
    `usage` is an estimate, and marked as one, where the provider did not report all of it.

    `reason` says why it was cancelled: "stopped" on request, "left" without readers.
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
    facts: ProviderFacts = ProviderFacts()


_encode = msgspec.json.Encoder().encode
_events = msgspec.json.Decoder(list[Event]).decode
_request = msgspec.json.Decoder(AnswerRequest).decode
_outcome = msgspec.json.Decoder(Outcome).decode


def encode_request(request: AnswerRequest) -> bytes:
    """Encode the first record."""
    return _encode(request)


def decode_request(record: bytes) -> AnswerRequest:
    """Decode the first record."""
    return _request(record)


def encode_events(batch: list[Event]) -> bytes:
    """Encode one batch as a record, in no more memory than it needs: the encoder over-allocates."""
    return bytes(memoryview(_encode(batch)))


def decode_events(record: bytes) -> list[Event]:
    """Decode the batch of a record."""
    return _events(record)


def encode_outcome(outcome: Outcome) -> bytes:
    """Encode what is stored with the end."""
    return _encode(outcome)


def decode_outcome(data: bytes) -> Outcome:
    """Decode what is stored with the end."""
    return _outcome(data) if data else Outcome(state="failed")


def as_unbroken_error(error: Exception) -> UnbrokenError:
    """Return the error as one of ours. An unexpected one is named by its class only, because its
    text may hold what callers must not see.
    """
    if isinstance(error, UnbrokenError):
        return error
    return ServerError(f"Internal gateway error ({type(error).__name__}).", status=500)


DETACHED = "left"
"""The state of an end that is not the answer's own: its reader must come back for the rest."""


def detached(stream: str, why: str) -> End:
    """Return the end for a reader that is sent away. Most dialects have no way back to an answer,
    so they report it as an error: half of the answer must not be taken for the whole.
    """
    message = f"{why}; the answer goes on as {stream}"
    failure = Failure("Overloaded", message, 503, "overloaded_error", retry_after=1.0)
    return End(DETACHED, encode_outcome(Outcome(state=DETACHED, error=failure)))


def is_complete(end: End | None) -> bool:
    """Whether nothing is missing: only then may a tool call be executed."""
    return end is not None and end.state == "complete"


def end_error(end: End) -> ProviderError | None:
    """Return the error that a dialect reports for an end: None unless it failed or was cancelled.

    499 is nginx's number for a request that its client gave up; SDKs do not retry it.
    """
    if end.state in {"failed", DETACHED}:
        failure = decode_outcome(end.final).error or Failure("ServerError", "the answer failed")
        return failure.to_error()
    if end.state == "cancelled":
        return error_class(499)("the answer was stopped", status=499, code="cancelled")
    return None
