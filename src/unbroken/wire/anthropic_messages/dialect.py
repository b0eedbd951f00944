"""Anthropic messages: the dialect, whole answers, errors (platform.claude.com: messages).

The streamed answer is in `anthropic_reader` and `anthropic_writer`, the request in
`anthropic_request`.
"""

from collections.abc import Mapping

import msgspec
from msgspec import Struct

from unbroken.errors import ProviderError
from unbroken.events import Event
from unbroken.messages import MESSAGES, Request
from unbroken.response import Response
from unbroken.wire import sse
from unbroken.wire.anthropic_messages.reader import MessagesReader
from unbroken.wire.anthropic_messages.request import decode_request, encode_request, left_out
from unbroken.wire.anthropic_messages.response import decode_body, encode_body
from unbroken.wire.anthropic_messages.vocabulary import (
    error_body,
)
from unbroken.wire.anthropic_messages.writer import MessagesWriter
from unbroken.wire.codec import Codec
from unbroken.wire.error_body import parse_error

_encode = msgspec.json.Encoder().encode


class AnthropicMessages(Struct, frozen=True):
    """The dialect. `default_max_tokens` stands in where the caller set none: the API wants one.

    It is as large as every current model allows without special headers.
    """

    default_max_tokens: int = 16_384

    @property
    def name(self) -> str:
        """The dialect's name, as it stands in natives."""
        return MESSAGES

    def encode_request(self, request: Request) -> bytes:
        """The body of POST /v1/messages; LocalProtocolError names what can't be expressed."""
        return encode_request(request, self.default_max_tokens)

    def omitted(self, request: Request) -> tuple[str, ...]:
        """The paths of what the body leaves out."""
        return left_out(request)

    def decode_request(self, body: bytes) -> Request:
        """The request in a body; BadRequest says what is wrong with it."""
        return decode_request(body)

    def reader(self, request: Request) -> MessagesReader:
        """A decoder for one streamed answer."""
        return MessagesReader()

    def writer(self, request: Request, created: int = 0) -> MessagesWriter:
        """An encoder for one streamed answer."""
        return MessagesWriter()

    def decode_response(self, body: bytes) -> list[Event]:
        """The events of a whole answer. RemoteProtocolError if it is none."""
        return decode_body(body)

    def encode_response(self, response: Response, created: int = 0) -> bytes:
        """The body of a whole answer."""
        return encode_body(response)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """The error an HTTP status of 400 and up stands for."""
        return parse_error(body, status, headers)

    def encode_error(self, error: ProviderError) -> bytes:
        """The error object that goes with `error.status`."""
        return _encode(error_body(error))


CODEC = Codec(sse.SseDecoder, sse.encode, AnthropicMessages(), is_framed=sse.is_framed)
