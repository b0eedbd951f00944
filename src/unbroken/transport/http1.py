"""HTTP/1.1 responses, bytes in, bytes out (RFC 9112): one reader below both HTTP libraries.

urllib3 reads by http.client and aiohttp by llhttp, and the two disagree about early hints, long
and many headers, odd lengths, and bytes behind an answer; an answer that one client reads must not
be lost by the other. Tolerant in form: line ends, folded and malformed fields, a repeated length.
Strict where a wrong guess would change the body: lengths that contradict each other.
"""

import re
from collections.abc import Mapping

from msgspec import Struct

from unbroken.errors import ConnectionLost
from unbroken.transport.chunked import ChunkedDecoder
from unbroken.transport.compression import Decompression

HEAD_LIMIT = 256 * 1024
"""Bytes of a status line and its headers. Some servers send policies of tens of kilobytes."""

_STATUS = re.compile(rb"HTTP/1\.(\d) ([1-9]\d\d)(?: (.*))?\Z", re.DOTALL)
_END = re.compile(rb"\r?\n\r?\n")
_LENGTH = re.compile(r"\d{1,18}\Z", re.ASCII)
_FOLD = re.compile(rb"\r?\n[ \t]+")  # a value that goes on in the next line (obs-fold)


class Head(Struct, frozen=True):
    """Status line and headers. Names are in lower case, repeated ones are joined by a comma."""

    status: int
    reason: str
    minor: int  # of the version, 1.x
    headers: dict[str, str]

    @property
    def keep_alive(self) -> bool:
        """The server offers to keep the connection (RFC 9112, 9.3)."""
        options = tokens(self.headers, "connection")
        return "close" not in options and (self.minor > 0 or "keep-alive" in options)


def tokens(headers: Mapping[str, str], name: str) -> list[str]:
    """Return the items of a header that is a list, in lower case."""
    items = headers.get(name, "").lower().split(",")
    return [item.strip() for item in items if item.strip()]


class ResponseReader:
    """Read one response. Feed bytes; `head` is there first, then `feed` returns body bytes.

    `done`: the response is whole. `reusable`: so is the connection. ConnectionLost is raised for
    what is no HTTP/1 response, once all body bytes before that place have been returned.
    """

    def __init__(self, method: str) -> None:
        self.head: Head | None = None
        self.done = self.reusable = False
        self._method = method
        self._held = b""
        self._body: _Body = _Unbounded()

    @property
    def failure(self) -> ConnectionLost | None:
        """What ended the body too early, behind the bytes that were returned last."""
        return self._body.failure

    def feed(self, data: bytes) -> bytes:
        """Return body bytes, in the content coding that the server sent them in."""
        if self.head is None:
            data = self._read_head(data)
            if self.head is None:
                return b""
        body = self._body.feed(data) if data else b""
        self.done = self._body.done
        self.reusable = self.done and self._body.clean and self.head.keep_alive
        return body

    def eof(self) -> None:
        """The connection was closed. Raises ConnectionLost if the response is not whole."""
        if self.head is None:
            began = "in the headers" if self._held else "without a response"
            raise ConnectionLost(f"the server closed the connection {began}")
        self._body.eof()
        self.done = True

    def _read_head(self, data: bytes) -> bytes:
        """Read the head if it is whole, past any 1xx responses; return what follows it."""
        data = self._held + data
        data = data.lstrip(b"\r\n")
        end = _END.search(data)
        while end is not None:
            head = _parse_head(data[: end.start()])
            data = data[end.end() :]
            if head.status >= 200 or head.status == 101:
                self._body = _body_of(self._method, head)
                self.head, self._held = head, b""
                self.done = self._body.done
                return data
            end = _END.search(data)
        self._held = data
        if len(data) > HEAD_LIMIT or not b"HTTP/".startswith(data[:5]):
            _refuse_head(data)
        return b""


def _refuse_head(data: bytes) -> None:
    if len(data) > HEAD_LIMIT:
        raise ConnectionLost(f"the headers are larger than {HEAD_LIMIT} bytes")
    raise ConnectionLost(f"no HTTP response: it begins with {data[:40]!r}")


def _parse_head(data: bytes) -> Head:
    line, *fields = re.split(rb"\r?\n", _FOLD.sub(b" ", data))
    status = _STATUS.match(line)
    if status is None:
        raise ConnectionLost(f"no HTTP/1 response: it begins with {line[:40]!r}")
    headers: dict[str, str] = {}
    for field in fields:
        name, colon, value = field.decode("latin-1").partition(":")
        if colon and (key := name.strip().lower()):
            text = value.strip(" \t")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
    reason = (status[3] or b"").decode("latin-1").strip()
    return Head(int(status[2]), reason, int(status[1]), headers)


# How long the body is (RFC 9112, section 6.3)


class _Body:
    """Body bytes of one framing. `clean`: the connection is at the start of the next response."""

    done = clean = False
    failure: ConnectionLost | None = None

    def feed(self, data: bytes) -> bytes:
        raise NotImplementedError

    def eof(self) -> None:
        raise ConnectionLost("the connection was closed in the middle of the body")


class _Unbounded(_Body):
    """Until the connection closes: where nothing says how long it is."""

    def feed(self, data: bytes) -> bytes:
        return data

    def eof(self) -> None:
        self.done = True


class _Sized(_Body):
    """So many bytes. What follows them belongs to nothing, and costs the connection."""

    def __init__(self, size: int) -> None:
        self._size = self._left = size
        self.done = self.clean = not size

    def feed(self, data: bytes) -> bytes:
        body = data if len(data) <= self._left else data[: self._left]
        self._left -= len(body)
        self.done = not self._left
        self.clean = self.done and len(body) == len(data)
        return body

    def eof(self) -> None:
        if self._left:
            came = self._size - self._left
            raise ConnectionLost(
                f"the connection was closed after {came} of {self._size} bytes of the body"
            )


class _Chunked(_Body):
    """The chunked coding. `alone`: no other header speaks of the length, and no other coding."""

    def __init__(self, *, alone: bool) -> None:
        self._chunks, self._alone = ChunkedDecoder(), alone

    def feed(self, data: bytes) -> bytes:
        body = self._chunks.feed(data)
        self.done = self._chunks.done
        self.clean = self._chunks.clean and self._alone
        self.failure = self._chunks.failure
        return body

    def eof(self) -> None:
        if not self.done:
            super().eof()


def _body_of(method: str, head: Head) -> _Body:
    if method == "HEAD" or head.status in (101, 204, 304):
        return _Sized(0)
    codings = [name for name in tokens(head.headers, "transfer-encoding") if name != "identity"]
    if codings and codings[-1] == "chunked":
        return _Chunked(alone="content-length" not in head.headers)
    lengths = set(tokens(head.headers, "content-length"))
    if codings or not lengths:
        return _Unbounded()
    if len(lengths) > 1 or not all(map(_LENGTH.match, lengths)):
        raise ConnectionLost(f"content-length is {head.headers['content-length'][:60]!r}")
    return _Sized(int(lengths.pop()))


def decompression(headers: Mapping[str, str]) -> Decompression:
    """Return what undoes the codings of a body, of content and of transfer."""
    names = ("content-encoding", "transfer-encoding")
    return Decompression([coding for name in names for coding in tokens(headers, name)])
