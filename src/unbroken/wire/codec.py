"""How a dialect and its framing become one pair of decoder and encoder.

A framing (`sse`, later the AWS event stream) cuts bytes into frames; a dialect reads frames as
events and writes events as frames. `Codec` puts one of each together, and nothing above this
floor sees a frame.

Decoders are fed bytes as they come and return the events that are whole. They never wait and
never guess at a read's end. What a stream says about its own failure stands in `error` after the
events that came before it have been returned; `done` says that nothing more can follow.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from msgspec import Struct

from unbroken.errors import ProviderError, RemoteProtocolError, UnbrokenError
from unbroken.events import Event
from unbroken.messages import Request
from unbroken.response import Response


class Frame(Struct, gc=False):
    """One unit of framing: its payload, and the name and id that SSE or AWS give it."""

    data: bytes
    event: str = ""
    id: str = ""


class FrameDecoder(Protocol):
    """Bytes in, frames out; linear in the bytes fed, whatever the slicing."""

    def feed(self, data: bytes, /) -> list[Frame]: ...

    def eof(self) -> list[Frame]:
        """The body has ended: the frames that are whole by now."""


class FrameReader(Protocol):
    """Frames in, events out: one dialect's streaming decoder.

    `cursor` is where the server could go on, as the fields of the provider's `resume_path`; None
    where it can't. A reader is fed on, with fresh framing, when an answer is resumed.
    """

    error: UnbrokenError | None
    skipped: int
    done: bool
    cursor: dict[str, str] | None

    def read(self, frames: list[Frame], out: list[Event], /) -> None:
        """Append what the frames say to `out`."""

    def resumed(self) -> None:
        """What comes now is the rest of the answer, by another body."""

    def eof(self, out: list[Event], /) -> None:
        """The body has ended: append what that means in this dialect, if anything."""


class FrameWriter(Protocol):
    """Events in, bytes of frames out: one dialect's streaming encoder."""

    def write(self, event: Event, /) -> list[Frame]: ...

    def fail(self, error: ProviderError, /) -> list[Frame]:
        """The error event of the dialect, for failures after the 200."""


class TableWriter:
    """A writer of one choice, by a table of what each kind of event becomes."""

    _write: dict[type, Callable[[Any], list[Frame]]]

    def write(self, event: Event) -> list[Frame]:
        """The frames that say `event`; none where the dialect has no word for it."""
        write = self._write.get(type(event))
        if write is None or getattr(event, "choice", None):
            return []
        return write(event)


class Dialect(Protocol):
    """One provider's language, in both directions. Implementations are values."""

    @property
    def name(self) -> str:
        """The dialect's name, as it stands in natives."""

    def encode_request(self, request: Request, /) -> bytes:
        """The request body; LocalProtocolError names what this dialect can't express."""

    def omitted(self, request: Request, /) -> tuple[str, ...]:
        """The JSON paths of what the body leaves out, since this dialect can't express it."""

    def decode_request(self, body: bytes, /) -> Request:
        """The request a client sent us; BadRequest names what is wrong."""

    def reader(self, request: Request, /) -> FrameReader:
        """A decoder for the streamed answer to `request`."""

    def writer(self, request: Request, created: int = 0, /) -> FrameWriter:
        """An encoder for the streamed answer to `request`; `created` is in Unix seconds."""

    def decode_response(self, body: bytes, /) -> list[Event]:
        """The events a whole (not streamed) answer stands for."""

    def encode_response(self, response: Response, created: int = 0, /) -> bytes:
        """The body of a whole answer."""

    def decode_error(
        self, status: int, headers: Mapping[str, str], body: bytes, /
    ) -> ProviderError:
        """The error that an HTTP status of 400 and up stands for."""

    def encode_error(self, error: ProviderError, /) -> bytes:
        """The body that goes with `error.status`."""


class Decoder(Protocol):
    """Bytes of one answer in, events out. Both ways of answering look the same from above."""

    @property
    def error(self) -> UnbrokenError | None: ...

    @property
    def skipped(self) -> int: ...

    @property
    def done(self) -> bool: ...

    @property
    def cursor(self) -> dict[str, str] | None: ...

    def feed(self, data: bytes, /) -> list[Event]: ...

    def eof(self) -> list[Event]: ...

    def resumed(self) -> "Decoder":
        """A decoder for the rest of the same answer, which comes by another body."""


class StreamDecoder:
    """A streamed answer: framing and dialect, one after the other."""

    def __init__(self, framing: Callable[[], FrameDecoder], reader: FrameReader) -> None:
        frames = framing()
        self._cut, self._read = frames.feed, reader.read
        self._framing, self._frames, self._reader = framing, frames, reader

    @property
    def error(self) -> UnbrokenError | None:
        """Why the stream failed, if it did: an error it reports, or an event that can't be read."""
        return self._reader.error

    @property
    def skipped(self) -> int:
        """Malformed events passed over so far."""
        return self._reader.skipped

    @property
    def done(self) -> bool:
        """Whether nothing follows by the dialect's own end."""
        return self._reader.done

    @property
    def cursor(self) -> dict[str, str] | None:
        """Where the server could go on."""
        return self._reader.cursor

    def resumed(self) -> "StreamDecoder":
        """A decoder for the rest of the same answer, which comes by another body."""
        self._reader.resumed()
        return StreamDecoder(self._framing, self._reader)

    def feed(self, data: bytes) -> list[Event]:
        """The events that these bytes complete. Raises RemoteProtocolError on garbage."""
        out: list[Event] = []
        self._read(self._cut(data), out)
        return out

    def eof(self) -> list[Event]:
        """The body has ended."""
        out: list[Event] = []
        self._read(self._frames.eof(), out)
        if self._reader.error is None and not self._reader.done:
            self._reader.eof(out)
        return out


MAX_BODY = 64 * 1024 * 1024
"""Bytes of a body that is read whole. Larger than any answer with images in it; small enough
that a faulty server can't fill the memory."""


class BufferedDecoder:
    """An answer in one piece: it can't be read before its last byte."""

    skipped = 0
    done = False
    cursor: dict[str, str] | None = None
    error: UnbrokenError | None = None

    def __init__(self, decode: Callable[[bytes], list[Event]], limit: int = MAX_BODY) -> None:
        self._decode, self._limit = decode, limit
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[Event]:
        """Keep the bytes; raises RemoteProtocolError past the limit."""
        self._size += len(data)
        if self._size > self._limit:
            raise RemoteProtocolError(f"the answer is larger than {self._limit} bytes")
        self._parts.append(data)
        return []

    def eof(self) -> list[Event]:
        """Everything the answer says."""
        try:
            return self._decode(b"".join(self._parts))
        except ProviderError as error:
            self.error = error
            return []

    def resumed(self) -> "BufferedDecoder":
        """A decoder for the same answer from its beginning."""
        return BufferedDecoder(self._decode, self._limit)


class ContentDecoder:
    """An answer whose first bytes decide whether it is framed or in one piece.

    Content types are no help: compatible servers send SSE as `application/json`, JSON as
    `text/event-stream`, and proxies send pages of HTML and plain sentences with a 200.
    """

    def __init__(
        self,
        framed: Callable[[], Decoder],
        buffered: Callable[[], Decoder],
        is_framed: Callable[[bytes], bool | None],
        *,
        stream: bool,
    ) -> None:
        self._framed, self._buffered, self._is_framed = framed, buffered, is_framed
        self._stream = stream
        self._head = b""
        self._inner: Decoder | None = None

    @property
    def error(self) -> UnbrokenError | None:
        """Why the answer failed, if it did."""
        return None if self._inner is None else self._inner.error

    @property
    def skipped(self) -> int:
        """The number of events that were skipped."""
        return 0 if self._inner is None else self._inner.skipped

    @property
    def done(self) -> bool:
        """Whether nothing can follow."""
        return self._inner is not None and self._inner.done

    @property
    def cursor(self) -> dict[str, str] | None:
        """Where the server could go on."""
        return None if self._inner is None else self._inner.cursor

    def feed(self, data: bytes) -> list[Event]:
        """The events that these bytes complete. Raises RemoteProtocolError on garbage."""
        if self._inner is not None:
            return self._inner.feed(data)
        self._head = (self._head + data).lstrip(b" \t\r\n")  # some servers send blank lines first
        framed = self._is_framed(self._head) if self._head else None
        return [] if framed is None else self._begin(framed=framed)

    def eof(self) -> list[Event]:
        """The body has ended."""
        events: list[Event] = []
        if self._inner is None:
            events = self._begin(framed=self._stream and not self._head)
        assert self._inner is not None
        return [*events, *self._inner.eof()]

    def resumed(self) -> "ContentDecoder":
        """A decoder for the rest of the same answer, which comes by another body."""
        if self._inner is None:
            return self
        framed = self._inner.resumed
        return ContentDecoder(framed, self._buffered, self._is_framed, stream=self._stream)

    def _begin(self, *, framed: bool) -> list[Event]:
        self._inner = self._framed() if framed else self._buffered()
        head, self._head = self._head, b""
        return self._inner.feed(head) if head else []


def _is_no_json(head: bytes) -> bool:
    return head[:1] not in (b"{", b"[", b"<")


class Codec(Struct, frozen=True):
    """A framing and a dialect: all that there is to know about a provider's wire.

    `is_framed` says of the first bytes of a body whether the framing's frames begin with them;
    None while more bytes are needed.
    """

    frames: Callable[[], FrameDecoder]
    encode_frame: Callable[[Frame], bytes]
    dialect: Dialect
    content_type: str = "text/event-stream"
    is_framed: Callable[[bytes], bool | None] = _is_no_json

    def decoder(self, request: Request) -> Decoder:
        """A decoder for the answer to `request`, streamed or in one piece."""
        return ContentDecoder(
            lambda: StreamDecoder(self.frames, self.dialect.reader(request)),
            lambda: BufferedDecoder(self.dialect.decode_response),
            self.is_framed,
            stream=request.stream,
        )

    def encode_all(self, writer: FrameWriter, events: Iterable[Event]) -> bytes:
        """The bytes that say all of them."""
        write, framed = writer.write, self.encode_frame
        return b"".join([framed(frame) for event in events for frame in write(event)])

    def encode(self, writer: FrameWriter, event: Event) -> bytes:
        """The bytes that say `event` on the stream of `writer`."""
        return b"".join(map(self.encode_frame, writer.write(event)))
