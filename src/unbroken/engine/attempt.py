"""What is known of the attempt that is under way."""

from collections.abc import Mapping

from unbroken.engine.recovery import Question
from unbroken.engine.seam import Seam
from unbroken.errors import ProviderError
from unbroken.events import Event
from unbroken.response import How
from unbroken.transport.base import HttpRequest
from unbroken.wire.codec import Decoder

_REQUEST_IDS = ("x-request-id", "request-id", "x-generation-id", "x-amzn-requestid")


class Try:
    """One attempt at `question`, sent `delay` seconds after `now`."""

    def __init__(self, question: Question, how: How, now: float, delay: float) -> None:
        self.question, self.how = question, how
        self.begin, self.delay = now + delay, delay
        self.decoder: Decoder | None = None
        self.seam: Seam | None = None
        self.status: int | None = None
        self.headers: Mapping[str, str] = {}
        self.request_id = ""
        self.spoke = False  # content has come, new or not
        self.cursor: dict[str, str] | None = None  # where the server could go on
        self.held: list[Event] = []  # what came before anything that counts
        self.heard: list[Event] = []  # what came through a seam, in case it must be said anew
        self.refusal = b""
        self._followed: Decoder | None = None

    @property
    def skipped(self) -> int:
        """Malformed events that were passed over."""
        return 0 if self.decoder is None else self.decoder.skipped

    def headed(self, status: int, headers: Mapping[str, str]) -> None:
        """The headers are there."""
        self.status, self.headers = status, headers
        self.request_id = next((headers[name] for name in _REQUEST_IDS if name in headers), "")

    def follow(self, before: "Try") -> HttpRequest:
        """The request that goes on where the server knows that `before` was cut."""
        assert before.cursor is not None
        self.cursor, self._followed = before.cursor, before._followed
        return self.question.follow(before.cursor)

    def listen(self) -> None:
        """The body begins: have it decoded."""
        request = self.question.request
        if self._followed is not None:
            self.decoder = self._followed.resumed()
            return
        whole = _is_whole(self.headers.get("content-type", ""), asked_to_stream=request.stream)
        self.decoder = self.question.provider.codec.decoder(request, whole=whole)

    def quiet(self) -> None:
        """The attempt is over: keep what a later one needs."""
        if self.decoder is not None:
            self.cursor, self._followed = self.decoder.cursor, self.decoder
        self.decoder = None

    def refusal_error(self) -> ProviderError:
        """What the error's status, headers and body say."""
        dialect = self.question.provider.codec.dialect
        error = dialect.decode_error(self.status or 500, self.headers, self.refusal)
        error.body, error.dialect = error.body or self.refusal, dialect.name
        return error


def _is_whole(content_type: str, *, asked_to_stream: bool) -> bool:
    """Whether the body is one answer in one piece; some servers ignore `stream`."""
    if "json" in content_type:
        return True
    return not asked_to_stream and "event-stream" not in content_type
