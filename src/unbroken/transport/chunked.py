"""The chunked transfer coding, bytes in, bytes out (RFC 9112, section 7.1).

HTTP libraries give one chunk a call, and a provider sends one event a chunk: at full speed that
costs more than everything else together. This takes all chunks that one read brought at once.
"""

from unbroken.errors import ConnectionLost

_LINE_LIMIT = 16 * 1024
"""Bytes of a size line or of the trailers; extensions are rare and short."""

_SIZE_DIGITS = 16
"""Hexadecimal digits of a chunk's size; more than anybody can send."""


class ChunkedDecoder:
    """Decode what the socket gives. `done` is true after the last chunk.

    Raises ConnectionLost where the bytes are no chunked body, after all bytes before that place
    have been returned.
    """

    def __init__(self) -> None:
        self.done = False
        self.clean = False  # nothing came after the end: the connection may serve again
        self._rest = b""  # bytes that no decision could be made on
        self._left = 0  # bytes of the open chunk still to come, its CRLF included
        self.failure: ConnectionLost | None = None  # what ended the body, once all before it is out

    def feed(self, data: bytes) -> bytes:
        """Return the body's bytes among these."""
        out: list[bytes] = []
        try:
            if self.failure is not None:
                raise self.failure
            self._take(data, out)
        except ConnectionLost as error:
            self.failure = error
            if not out:
                raise
        return b"".join(out)

    def _take(self, data: bytes, out: list[bytes]) -> None:
        if self._rest:
            data, self._rest = self._rest + data, b""
        at, end = 0, len(data)
        while at < end and not self.done:
            if not self._left:
                at = _whole_chunks(data, at, out)
                at = self._size_line(data, at) if at < end else at
            stop = min(at + self._left, end)
            if stop > at:
                at = self._open_chunk(data, at, stop, out)
        if self.done:
            self.clean = at == end

    def _open_chunk(self, data: bytes, at: int, stop: int, out: list[bytes]) -> int:
        """Take a part of the open chunk. Its CRLF may come in two reads."""
        body = max(at, at + self._left - 2)
        if body > at:
            out.append(data[at : min(body, stop)])
        ending = data[min(body, stop) : stop]
        self._left -= stop - at
        if ending != b"\r\n"[2 - self._left - len(ending) : 2 - self._left]:
            raise ConnectionLost("malformed chunked encoding: a chunk is longer than its size")
        return stop

    def _size_line(self, data: bytes, at: int) -> int:
        """Read a chunk's size; return where to go on."""
        stop = data.find(b"\n", at)
        if stop < 0:
            return self._wait(data, at)
        size = _size(data[at : stop - 1].partition(b";")[0].strip())
        if size is None or data[stop - 1 : stop] != b"\r":
            raise ConnectionLost(f"malformed chunked encoding: {data[at : min(stop, at + 20)]!r}")
        if size:
            self._left = size + 2
            return stop + 1
        return self._trailers(data, at, stop - 1)

    def _trailers(self, data: bytes, at: int, stop: int) -> int:
        """After the last chunk: fields that are not used, and an empty line."""
        end = stop if data[stop : stop + 4] == b"\r\n\r\n" else data.find(b"\r\n\r\n", stop)
        if end < 0:
            return self._wait(data, at)
        self.done = True
        return end + 4

    def _wait(self, data: bytes, at: int) -> int:
        self._rest = data[at:]
        if len(self._rest) > _LINE_LIMIT:
            raise ConnectionLost("malformed chunked encoding: a size line without an end")
        return len(data)


def _size(digits: bytes) -> int | None:
    """A chunk's size; None if that is no hexadecimal number. int() alone reads 0x2, -2 and 1_0."""
    if not digits.isalnum() or len(digits) > _SIZE_DIGITS:
        return None
    try:
        return int(b"0" + digits, 16)
    except ValueError:
        return None


def _whole_chunks(data: bytes, at: int, out: list[bytes]) -> int:
    """Take chunks as long as they are whole and plain; return where something else begins."""
    end, find, is_at = len(data), data.find, data.startswith
    while (stop := find(b"\r\n", at)) > 0:
        size = _SIZES.get(data[at:stop])
        if size is None:
            size = _size(data[at:stop])
        if not size:
            return at  # the last chunk, an extension, or no chunk at all
        after = stop + 2 + size
        if after + 2 > end or not is_at(b"\r\n", after):
            return at
        out.append(data[stop + 2 : after])
        at = after + 2
    return at


_SIZES = {b"%x" % size: size for size in range(1, 4096)}
"""The sizes of nearly all chunks, in the spelling of nearly all servers."""
