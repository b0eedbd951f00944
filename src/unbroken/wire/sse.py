"""text/event-stream: bytes to frames and back (WHATWG HTML, section 9.2).

The idea: almost every server sends `data: {...}\\n\\n` and nothing else, so a read that holds only
such blocks is cut with one `split`. Everything the standard allows besides (CR, CRLF, comments,
several data lines, names, ids, a byte order mark) takes the line reader, which gives the same
frames. Partial lines are kept as pieces and joined once: the work is linear in the bytes fed.
"""

from unbroken.errors import RemoteProtocolError
from unbroken.wire.codec import Frame

LIMIT = 16 * 1024 * 1024
"""Bytes of one event. Images and whole tool results come in one event from some providers; a
server that never ends its event must still not fill the memory."""

BOM = b"\xef\xbb\xbf"


class SseDecoder:
    """text/event-stream, bytes in, frames out. Raises RemoteProtocolError past the limit."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._tail: list[bytes] = []  # pieces of a line that has not ended
        self._size = 0  # bytes held: the tail and the data lines of an open event
        self._data: list[bytes] = []
        self._event = ""
        self._id = ""
        self._begun = False
        self._after_cr = False

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that these bytes complete."""
        if not self._begun:
            data = self._begin(data)
        if not self._size and not self._event and data.endswith(b"\n\n") and data[:6] == b"data: ":
            frames = _plain_blocks(data)
            if frames is not None:
                self._after_cr = False
                return _identified(frames, self._id) if self._id else frames
        return self._lines(data)

    def eof(self) -> None:
        """An event that is not whole is dropped, as the standard has it."""
        self._tail.clear()
        self._data.clear()

    def _begin(self, data: bytes) -> bytes:
        """Drop one byte order mark, which may itself be cut in pieces."""
        data = b"".join((*self._tail, data))
        self._tail.clear()
        self._size = 0
        if len(data) < len(BOM) and BOM.startswith(data):
            self._hold(data)
            return b""
        self._begun = True
        return data.removeprefix(BOM)

    def _lines(self, data: bytes) -> list[Frame]:
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if b"\n" not in data and b"\r" not in data:
            self._hold(data)
            return []
        return self._whole_lines(b"".join((*self._tail, data)))

    def _whole_lines(self, data: bytes) -> list[Frame]:
        self._size -= sum(map(len, self._tail))
        self._tail.clear()
        self._after_cr = data.endswith(b"\r")
        *lines, rest = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        frames: list[Frame] = []
        for line in lines:
            self._line(line, frames)
        self._hold(rest)
        return frames

    def _line(self, line: bytes, frames: list[Frame]) -> None:
        if not line:
            self._dispatch(frames)
        elif line.startswith(b"data:"):
            self._grow(len(line))
            self._data.append(line[6:] if line[5:6] == b" " else line[5:])
        else:
            self._field(line)

    def _field(self, line: bytes) -> None:
        """Every field but data. A line that begins with a colon is a comment: no name, no match."""
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")
        elif name == b"data":
            self._data.append(b"")

    def _dispatch(self, frames: list[Frame]) -> None:
        """An empty line ends the event; without data there is none (9.2.6)."""
        if self._data:
            frames.append(Frame(b"\n".join(self._data), self._event, self._id))
            self._data.clear()
        self._event = ""
        self._size = 0

    def _hold(self, piece: bytes) -> None:
        if piece:
            self._tail.append(piece)
            self._grow(len(piece))

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > self._limit:
            raise RemoteProtocolError(f"one event is larger than {self._limit} bytes")


def _plain_blocks(data: bytes) -> list[Frame] | None:
    """The frames of a read that holds nothing but `data: ...` blocks; None if it holds more."""
    if b"\r" in data:
        return None
    blocks = data[6:-2].split(b"\n\ndata: ")
    if data.count(b"\n") != 2 * len(blocks):
        return None
    return [Frame(block) for block in blocks]


def _identified(frames: list[Frame], last_id: str) -> list[Frame]:
    """The last id stays in force until another one comes."""
    return [Frame(frame.data, "", last_id) for frame in frames]


def encode(frame: Frame) -> bytes:
    """The bytes of a frame; a line break in the data becomes another data line."""
    head = b""
    if frame.event:
        head += b"event: %b\n" % frame.event.encode()
    if frame.id:
        head += b"id: %b\n" % frame.id.encode()
    data = frame.data
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return head + b"data: " + data.replace(b"\n", b"\ndata: ") + b"\n\n"
