"""The chunked transfer coding, bytes in, bytes out (RFC 9112, section 7.1).

http.client reads one chunk a call, and a provider sends one event a chunk: at full speed that
costs more than everything else together. This takes all chunks that one read brought at once.
"""

from unbroken.errors import ConnectionLost

_LINE_LIMIT = 16 * 1024
"""Bytes of a size line or of the trailers; extensions are rare and short."""


class ChunkedDecoder:
    """Feed it what the socket gives; it gives the body. `done` after the last chunk."""

    def __init__(self) -> None:
        self.done = False
        self.clean = False  # nothing came after the end: the connection may serve again
        self._rest = b""  # bytes that no decision could be made on
        self._left = 0  # bytes of the open chunk still to come, its CRLF included

    def feed(self, data: bytes) -> bytes:
        """The body's bytes among these. Raises ConnectionLost if this is no chunked body."""
        if self._rest:
            data, self._rest = self._rest + data, b""
        out: list[bytes] = []
        at, end = 0, len(data)
        while at < end and not self.done:
            if not self._left:
                at = _whole_chunks(data, at, out)
                at = self._size_line(data, at) if at < end else at
            stop = min(at + self._left, end)
            body = max(at, at + self._left - 2)  # the chunk's own CRLF may be cut in two
            if stop > at:
                out.append(data[at : min(body, stop)])
                self._left -= stop - at
                at = stop
        if self.done:
            self.clean = at == end
        return b"".join(out)

    def _size_line(self, data: bytes, at: int) -> int:
        """Read a chunk's size; where to go on."""
        stop = data.find(b"\r\n", at)
        if stop < 0:
            return self._wait(data, at)
        try:
            size = int(data[at:stop].partition(b";")[0], 16)
        except ValueError:
            size = -1
        if size < 0:
            raise ConnectionLost("the body is not in chunks, though its headers say so")
        if size:
            self._left = size + 2
            return stop + 2
        return self._trailers(data, at, stop)

    def _trailers(self, data: bytes, at: int, stop: int) -> int:
        """After the last chunk: fields that nobody asked for, and an empty line."""
        end = stop if data[stop : stop + 4] == b"\r\n\r\n" else data.find(b"\r\n\r\n", stop)
        if end < 0:
            return self._wait(data, at)
        self.done = True
        return end + 4

    def _wait(self, data: bytes, at: int) -> int:
        self._rest = data[at:]
        if len(self._rest) > _LINE_LIMIT:
            raise ConnectionLost("a chunk's size line has no end")
        return len(data)


def _whole_chunks(data: bytes, at: int, out: list[bytes]) -> int:
    """Take chunks as long as they are whole and plain; where something else begins."""
    end, find = len(data), data.find
    while (stop := find(b"\r\n", at)) > 0:
        try:
            size = int(data[at:stop], 16)
        except ValueError:
            return at  # an extension, or no chunk at all
        body, after = stop + 2, stop + 4 + size
        if size <= 0 or after > end:
            return at
        out.append(data[body : after - 2])
        at = after
    return at
