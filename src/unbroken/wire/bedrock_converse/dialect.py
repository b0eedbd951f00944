"""Amazon Bedrock's Converse: the dialect, whole answers, errors
(docs.aws.amazon.com/bedrock: API_runtime_Converse).
"""

from collections.abc import Mapping

import msgspec
from msgspec import Struct

from unbroken.errors import ProviderError
from unbroken.events import (
    Event,
)
from unbroken.messages import CONVERSE, Request
from unbroken.response import Response
from unbroken.wire import eventstream
from unbroken.wire.bedrock_converse.reader import ConverseReader
from unbroken.wire.bedrock_converse.request import decode_request, encode_request, left_out
from unbroken.wire.bedrock_converse.response import decode_body, encode_body
from unbroken.wire.bedrock_converse.writer import ConverseWriter
from unbroken.wire.codec import Codec
from unbroken.wire.error_body import parse_error

_encode = msgspec.json.Encoder().encode


class BedrockConverse(Struct, frozen=True):
    """The dialect."""

    @property
    def name(self) -> str:
        """The dialect's name, as it stands in natives."""
        return CONVERSE

    def encode_request(self, request: Request) -> bytes:
        """The body of POST /model/ID/converse; LocalProtocolError names what can't be said."""
        return encode_request(request)

    def omitted(self, request: Request) -> tuple[str, ...]:
        """The paths of what the body leaves out."""
        return left_out(request)

    def decode_request(self, body: bytes) -> Request:
        """The request in a body, without its model; BadRequest says what is wrong with it."""
        return decode_request(body)

    def reader(self, _request: Request) -> ConverseReader:
        """A decoder for one streamed answer."""
        return ConverseReader()

    def writer(self, _request: Request, _created: int = 0) -> ConverseWriter:
        """An encoder for one streamed answer."""
        return ConverseWriter()

    def decode_response(self, body: bytes) -> list[Event]:
        """The events of a whole answer. RemoteProtocolError or ProviderError if it is none."""
        return decode_body(body)

    def encode_response(self, response: Response, _created: int = 0) -> bytes:
        """The body of a whole answer."""
        return encode_body(response)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """The error an HTTP status stands for; its name comes in a header."""
        error = parse_error(body, status, headers)
        named = headers.get("x-amzn-errortype", "").partition(":")[0]
        error.code = named or error.code
        return error

    def encode_error(self, error: ProviderError) -> bytes:
        """The body that goes with `error.status`."""
        return _encode({"message": error.message or type(error).__name__})


CODEC = Codec(
    eventstream.EventStreamDecoder,
    eventstream.encode,
    BedrockConverse(),
    eventstream.CONTENT_TYPE,
    eventstream.is_framed,
)
