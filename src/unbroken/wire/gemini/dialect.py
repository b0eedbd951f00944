"""Gemini: the dialect (ai.google.dev/api/generate-content).

The model, and whether the answer is streamed, stand in the path and not in the body. A stream is
server-sent events with `alt=sse`.
"""

from collections.abc import Mapping

from msgspec import Struct

from unbroken.errors import ProviderError
from unbroken.events import Event
from unbroken.messages import Request
from unbroken.response import Response
from unbroken.wire import sse
from unbroken.wire.codec import Codec
from unbroken.wire.error_body import parse_error
from unbroken.wire.gemini.reader import GeminiReader
from unbroken.wire.gemini.request import decode_request, encode_request, left_out
from unbroken.wire.gemini.response import decode_body, encode_body
from unbroken.wire.gemini.vocabulary import DIALECT, encode, error_body
from unbroken.wire.gemini.writer import GeminiWriter


class Gemini(Struct, frozen=True):
    """The dialect."""

    @property
    def name(self) -> str:
        """The dialect's name, as it stands in natives."""
        return DIALECT

    def encode_request(self, request: Request) -> bytes:
        """The body of generateContent; LocalProtocolError names what can't be said."""
        return encode_request(request)

    def omitted(self, request: Request) -> tuple[str, ...]:
        """The paths of what the body leaves out."""
        return left_out(request)

    def decode_request(self, body: bytes) -> Request:
        """The request in a body, without its model; BadRequest says what is wrong with it."""
        return decode_request(body)

    def reader(self, _request: Request) -> GeminiReader:
        """A decoder for one streamed answer."""
        return GeminiReader()

    def writer(self, _request: Request, _created: int = 0) -> GeminiWriter:
        """An encoder for one streamed answer."""
        return GeminiWriter()

    def decode_response(self, body: bytes) -> list[Event]:
        """The events of a whole answer. RemoteProtocolError or ProviderError if it is none."""
        return decode_body(body)

    def encode_response(self, response: Response, _created: int = 0) -> bytes:
        """The body of a whole answer."""
        return encode_body(response)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """The error an HTTP status stands for. A wrong key comes with a 400."""
        if status == 400 and b"API_KEY_INVALID" in body:
            status = 401
        return parse_error(body, status, headers)

    def encode_error(self, error: ProviderError) -> bytes:
        """The error object that goes with `error.status`."""
        return encode(error_body(error))


CODEC = Codec(sse.SseDecoder, sse.encode, Gemini())
