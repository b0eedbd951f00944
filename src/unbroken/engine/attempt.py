"""The state of one attempt."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from unbroken.engine.recovery import Target
from unbroken.engine.stitch import StitchFilter
from unbroken.errors import ProviderError
from unbroken.events import Event
from unbroken.response import How
from unbroken.transport.base import Deadlines, HttpRequest
from unbroken.wire.codec import Decoder

_REQUEST_IDS = ("x-request-id", "request-id", "x-generation-id", "x-amzn-requestid")

_MAX_ERROR_BODY = 64 * 1024
"""Bytes of an error body that are read."""


class NextAttempt(Struct, frozen=True):
    """What the driver does next: wait `delay` seconds, then open `http` by the deadlines."""

    http: HttpRequest
    delay: float
    deadlines: Deadlines


class CurrentAttempt:
    """One attempt at `target`, sent `delay` seconds after `now`."""

    def __init__(self, target: Target, how: How, now: float, delay: float) -> None:
        self.target, self.how = target, how
        self.begin, self.delay = now + delay, delay
        self.tokens = 0.0  # taken from the rate limiter
        self.has_turn = False
        self.url, self.omitted = "", tuple[str, ...]()
        self.decoder: Decoder | None = None
        self.filter: StitchFilter | None = None
        self.status: int | None = None
        self.headers: Mapping[str, str] = {}
        self.request_id = ""
        self.received_content = False  # new or not
        self.cursor: dict[str, str] | None = None  # where the server could go on
        self.pending: list[Event] = []  # what came before anything that counts
        self.raw_events: list[Event] = []  # what the filter was given, for a restart
        self.error_body = b""
        self._resumed: Decoder | None = None

    def take_turn(self, now: float) -> None:
        """Take the turn at the rate limiter."""
        self.tokens, self.has_turn = self.target.tokens(), True
        self.target.limiter.acquire(now, self.tokens)

    def give_back_turn(self, now: float) -> None:
        """Give the turn back if the request was never sent."""
        if self.has_turn and now < self.begin:
            self.has_turn = False
            self.target.limiter.release(self.tokens)

    @property
    def skipped(self) -> int:
        """The number of malformed events that were skipped."""
        return 0 if self.decoder is None else self.decoder.skipped

    def on_headers(self, status: int, headers: Mapping[str, str]) -> None:
        """Take the status and the headers of the response."""
        self.status, self.headers = status, headers
        self.request_id = next((headers[name] for name in _REQUEST_IDS if name in headers), "")

    def resume_from(self, before: "CurrentAttempt") -> HttpRequest:
        """Return the request that goes on where the server knows that `before` was cut."""
        assert before.cursor is not None
        self.cursor, self._resumed = before.cursor, before._resumed
        return self.target.resume(before.cursor)

    def start_body(self) -> None:
        """Make the decoder of the body."""
        request = self.target.request
        if self._resumed is not None:
            self.decoder = self._resumed.resumed()
            return
        self.decoder = self.target.provider.codec.decoder(request)

    def facts(self) -> dict[str, Any]:
        """Return the fields of a Response that are of this attempt alone."""
        return {
            "request_id": self.request_id,
            "omitted": self.omitted,
            "dialect": self.target.provider.codec.dialect.name,
            "headers": dict(self.headers),
        }

    def collect_error(self, data: bytes) -> bool:
        """Take more of an error body; return whether there may be more of it."""
        self.error_body += data
        return bool(data) and len(self.error_body) < _MAX_ERROR_BODY

    def finish(self) -> None:
        """Finish the attempt and keep the state needed to resume."""
        if self.decoder is not None:
            self.cursor, self._resumed = self.decoder.cursor, self.decoder
        self.decoder = None

    def response_error(self) -> ProviderError:
        """Return the error that status, headers and body describe."""
        dialect = self.target.provider.codec.dialect
        error = dialect.decode_error(self.status or 500, self.headers, self.error_body)
        error.body, error.dialect = error.body or self.error_body, dialect.name
        return error
