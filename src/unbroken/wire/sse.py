"""text/event-stream: bytes to frames and back (WHATWG HTML, section 9.2).

The idea: almost every server sends `data: {...}`, an empty line, and nothing else, some with an
`event:` or `id:` line before it, so a read that holds only such blocks is cut with one `split`.
Everything the standard allows besides (CR, CRLF, comments, several data lines, a byte order mark)
takes the line reader, which gives the same frames. Partial lines are kept as pieces and joined
once: the work is linear in the bytes fed.
"""

import re
from functools import lru_cache

import msgspec

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
        if data.endswith(b"\n\n") and self._idle():
            frames = self._blocks(data[:-2])
            if frames is not None:
                return frames
        if not self._begun:
            data = self._begin(data)
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if b"\n" not in data and b"\r" not in data:
            self._hold(data)
            return []
        if self._tail:
            data = self._joined(data)
        return self._cut(data)

    def _idle(self) -> bool:
        """Between two events, with nothing kept: how most reads find it."""
        kept = self._tail or self._data or self._event or self._after_cr
        return self._begun and not kept

    def _blocks(self, data: bytes) -> list[Frame] | None:
        """The frames of plain blocks. An id is that of all events up to the next one (9.2.6)."""
        frames = _plain_blocks(data, self._id)
        if frames:
            self._id = frames[-1].id
        return frames

    def eof(self) -> list[Frame]:
        """The event that only lacks its empty line.

        The standard drops it, but servers close right after the last line
        (openai/openai-node#2725), and a JSON object that is whole can't have been cut.
        """
        frames: list[Frame] = []
        if self._tail:
            self._line(self._joined(b"").removesuffix(b"\r"), frames)
        if len(self._data) == 1 and _is_whole(self._data[0]):
            self._dispatch(frames)
        self._data.clear()
        return frames

    def _joined(self, data: bytes) -> bytes:
        """The pieces held so far, and `data`."""
        self._size -= sum(map(len, self._tail))
        data = b"".join((*self._tail, data))
        self._tail.clear()
        return data

    def _begin(self, data: bytes) -> bytes:
        """Drop one byte order mark, which may itself be cut in pieces."""
        data = self._joined(data)
        if len(data) < len(BOM) and BOM.startswith(data):
            self._hold(data)
            return b""
        self._begun = True
        return data.removeprefix(BOM)

    def _cut(self, data: bytes) -> list[Frame]:
        """Cut what ends in this read; between events and without odd lines, all at once."""
        between = not (self._data or self._event)
        end = data.rfind(b"\n\n") if between else -1
        frames = self._blocks(data[:end]) if end > 0 else None
        if frames is None:
            return self._whole_lines(data, [])
        rest = data[end + 2 :]
        if b"\n" in rest or b"\r" in rest:
            return self._whole_lines(rest, frames)
        self._hold(rest)
        return frames

    def _whole_lines(self, data: bytes, frames: list[Frame]) -> list[Frame]:
        self._after_cr = data.endswith(b"\r")
        *lines, rest = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            self._line(line, frames)
        self._hold(rest)
        return frames

    def _line(self, line: bytes, frames: list[Frame]) -> None:
        if not line:
            self._dispatch(frames)
        elif line.startswith(b"data:"):
            self._grow(len(line) + 1)
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
            self._grow(len(line) + 1)
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


def _is_whole(data: bytes) -> bool:
    if data.strip() == b"[DONE]":
        return True
    try:
        return isinstance(msgspec.json.decode(data), dict)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


_FIELD = re.compile(rb"\xef\xbb\xbf|(?:data|event|id|retry)?:")
_LONGEST_FIELD = len(b"event:")


def is_framed(head: bytes) -> bool | None:
    """Whether an event stream begins with these bytes: a field, a comment or a byte order mark.
    None while that is open.
    """
    if _FIELD.match(head):
        return True
    short = len(head) < _LONGEST_FIELD and head[:1] not in b"{[<" and b"\n" not in head
    return None if short else False


def _plain_blocks(data: bytes, id: str) -> list[Frame] | None:
    """The frames of blocks that hold one `data:` line, and before it at most one `event:` and one
    `id:` line; None if there is anything else. `data` comes without the last empty line.
    """
    if b"\r" in data:
        return None
    if data.startswith(b"data: ") and not id:
        only_data = data[6:].split(b"\n\ndata: ")
        if data.count(b"\n") == 2 * (len(only_data) - 1):
            return [Frame(block) for block in only_data]
    frames: list[Frame] = []
    for block in data.split(b"\n\n"):
        head, found, line = (b"\n" + block).partition(b"\ndata: ")
        fields = _fields(head, id) if found and b"\n" not in line else None
        if fields is None:
            return None
        event, id = fields
        frames.append(Frame(line, event, id))
    return frames


def _fields(head: bytes, id: str) -> tuple[str, str] | None:
    """Event and id in the lines before the data; None if there is anything else."""
    event = ""
    for line in head.split(b"\n")[1:]:
        if line.startswith(b"event: ") and not event:
            event = _name(line)
        elif line.startswith(b"id: ") and b"\0" not in line:
            id = line[4:].decode("utf-8", "replace")
        else:
            return None
    return event, id


@lru_cache(maxsize=64)  # a dialect has a dozen names
def _name(line: bytes) -> str:
    return line[7:].decode("utf-8", "replace")


def encode(frame: Frame) -> bytes:
    """The bytes of a frame; a line break in the data becomes another data line."""
    data = frame.data
    plain = b"\n" not in data and b"\r" not in data
    if plain and not (frame.event or frame.id):
        return b"data: %b\n\n" % data
    head = b""
    if frame.event:
        head += b"event: %b\n" % frame.event.encode()
    if frame.id:
        head += b"id: %b\n" % frame.id.encode()
    if not plain:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\ndata: ")
    return b"%bdata: %b\n\n" % (head, data)
