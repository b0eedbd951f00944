"""OpenAI's Responses API: the dialect, whole answers, errors
(platform.openai.com/docs/api-reference/responses).

The streamed answer is in `openai_responses_reader` and `_writer`, the request in `_request`.
"""

from collections.abc import Mapping

import msgspec
from msgspec import Struct

from unbroken.errors import ProviderError
from unbroken.events import (
    Event,
)
from unbroken.messages import RESPONSES, Request
from unbroken.response import Response
from unbroken.wire import sse
from unbroken.wire.codec import Codec
from unbroken.wire.error_body import parse_error
from unbroken.wire.openai_chat.vocabulary import error_body
from unbroken.wire.openai_responses.reader import ResponsesReader
from unbroken.wire.openai_responses.request import decode_request, encode_request, left_out
from unbroken.wire.openai_responses.response import decode_body, encode_body
from unbroken.wire.openai_responses.writer import ResponsesWriter

_encode = msgspec.json.Encoder().encode


class OpenAIResponses(Struct, frozen=True):
    """The dialect."""

    @property
    def name(self) -> str:
        """The dialect's name, as it stands in natives."""
        return RESPONSES

    def encode_request(self, request: Request) -> bytes:
        """The body of POST /responses; LocalProtocolError names what can't be expressed."""
        return encode_request(request)

    def omitted(self, request: Request) -> tuple[str, ...]:
        """The paths of what the body leaves out."""
        return left_out(request)

    def decode_request(self, body: bytes) -> Request:
        """The request in a body; BadRequest says what is wrong with it."""
        return decode_request(body)

    def reader(self, _request: Request) -> ResponsesReader:
        """A decoder for one streamed answer."""
        return ResponsesReader()

    def writer(self, request: Request, created: int = 0) -> ResponsesWriter:
        """An encoder for one streamed answer."""
        return ResponsesWriter(created, background=bool(request.option("background")))

    def decode_response(self, body: bytes) -> list[Event]:
        """The events of a whole answer. RemoteProtocolError or ProviderError if it is none."""
        return decode_body(body)

    def encode_response(self, response: Response, created: int = 0) -> bytes:
        """The body of a whole answer."""
        return encode_body(response, created)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """The error an HTTP status of 400 and up stands for."""
        return parse_error(body, status, headers)

    def encode_error(self, error: ProviderError) -> bytes:
        """The error object that goes with `error.status`."""
        return _encode(error_body(error))


CODEC = Codec(sse.SseDecoder, sse.encode, OpenAIResponses(), is_framed=sse.is_framed)
