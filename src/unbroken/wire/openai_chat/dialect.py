"""OpenAI chat completions and everything compatible: requests, whole answers, errors.

`OpenAIChat` is a value: its fields are what compatible servers disagree about. The request is in
`request`, the streamed answer in `reader` and `writer`.
"""

from collections.abc import Mapping

import msgspec

from unbroken.errors import ProviderError
from unbroken.events import (
    Event,
)
from unbroken.messages import CHAT, Request
from unbroken.response import Response
from unbroken.wire import sse
from unbroken.wire.codec import Codec
from unbroken.wire.error_body import parse_error
from unbroken.wire.openai_chat.reader import ChatReader
from unbroken.wire.openai_chat.request import Variant, decode_request
from unbroken.wire.openai_chat.response import decode_body
from unbroken.wire.openai_chat.vocabulary import (
    error_body,
)
from unbroken.wire.openai_chat.writer import ChatWriter, answer_body

_encode = msgspec.json.Encoder().encode


class OpenAIChat(Variant, frozen=True):
    """The dialect, as one server speaks it."""

    @property
    def name(self) -> str:
        """The dialect's name, as it stands in natives."""
        return CHAT

    def decode_request(self, body: bytes) -> Request:
        """The request in a body; BadRequest says what is wrong with it."""
        return decode_request(body, usage=not self.usage_option)

    def reader(self, request: Request) -> ChatReader:
        """A decoder for one streamed answer."""
        return ChatReader(request.n or 1, implied_finish=self.implied_finish)

    def writer(self, request: Request, created: int = 0) -> ChatWriter:
        """An encoder for one streamed answer."""
        return ChatWriter(request.n or 1, created, include_usage=request.include_usage)

    def decode_response(self, body: bytes) -> list[Event]:
        """The events of a whole answer. RemoteProtocolError if it is none."""
        return decode_body(body)

    def encode_response(self, response: Response, created: int = 0) -> bytes:
        """The body of a whole answer."""
        return answer_body(response, created)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """The error an HTTP status of 400 and up stands for."""
        return parse_error(body, status, headers)

    def encode_error(self, error: ProviderError) -> bytes:
        """The error object that goes with `error.status`."""
        return _encode(error_body(error))


def chat_codec(dialect: OpenAIChat | None = None) -> Codec:
    """The codec of an OpenAI-compatible server."""
    return Codec(sse.SseDecoder, sse.encode, dialect or OpenAIChat(), is_framed=sse.is_framed)


CODEC = chat_codec()
