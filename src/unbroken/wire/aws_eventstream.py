"""The AWS event stream (application/vnd.amazon.eventstream): binary frames with two checksums.

    total length (4) · length of the headers (4) · CRC32 of those eight bytes (4)
    headers · payload · CRC32 of everything before (4)

(smithy.io, "Amazon event stream specification"). A frame becomes `Frame(payload, event)`: the
event's type, or `exception:TYPE` and `error:CODE` for what went wrong after the 200.
"""

import struct
from binascii import crc32
from collections.abc import Iterator

from unbroken.errors import RemoteProtocolError
from unbroken.wire.codec import Frame

CONTENT_TYPE = "application/vnd.amazon.eventstream"

_PRELUDE = struct.Struct(">III")
_TAIL = struct.Struct(">I")
_OVERHEAD = _PRELUDE.size + _TAIL.size

LIMIT = 24 * 1024 * 1024 + 128 * 1024 + _OVERHEAD
"""Bytes of a frame: the specification's largest payload and headers."""

# Sizes of header values by their type; strings and bytes (6, 7) say their own.
_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
_COUNTED, _STRING = (6, 7), 7


class EventStreamDecoder:
    """Bytes in, frames out, in any slicing. RemoteProtocolError on a checksum that is wrong."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that these bytes complete."""
        self._buffer += data
        frames, at = [], 0
        while (total := self._length(at)) and len(self._buffer) - at >= total:
            frames.append(_frame(bytes(self._buffer[at : at + total])))
            at += total
        del self._buffer[:at]
        return frames

    def eof(self) -> None:
        """Half a frame is nothing; the reader knows whether the end had come."""

    def _length(self, at: int) -> int:
        """The length of the frame that begins here; 0 until that is known."""
        if len(self._buffer) - at < _PRELUDE.size:
            return 0
        total, headers, check = _PRELUDE.unpack_from(self._buffer, at)
        if crc32(self._buffer[at : at + 8]) != check:
            raise RemoteProtocolError("an event stream's prelude has a wrong checksum")
        if not _OVERHEAD + headers <= total <= LIMIT:
            raise RemoteProtocolError(f"an event stream's frame claims {total} bytes")
        return int(total)


def _frame(raw: bytes) -> Frame:
    if crc32(raw[:-4]) != _TAIL.unpack_from(raw, len(raw) - 4)[0]:
        raise RemoteProtocolError("an event stream's frame has a wrong checksum")
    end = _PRELUDE.size + _PRELUDE.unpack_from(raw)[1]
    try:
        told = dict(_headers(raw[_PRELUDE.size : end]))
    except (IndexError, KeyError, struct.error, UnicodeDecodeError) as error:
        raise RemoteProtocolError("an event stream's headers can't be read") from error
    return Frame(raw[end:-4], event=_kind(told))


def _kind(told: dict[str, str]) -> str:
    message = told.get(":message-type", "event")
    if message == "event":
        return told.get(":event-type", "")
    return f"{message}:{told.get(f':{message}-type') or told.get(':error-code', '')}"


def _headers(raw: bytes) -> Iterator[tuple[str, str]]:
    """The headers that are strings; the others are passed over."""
    at = 0
    while at < len(raw):
        name = raw[at + 1 : at + 1 + raw[at]].decode()
        at += 1 + raw[at]
        kind = raw[at]
        at += 1
        if kind in _COUNTED:
            (size,) = struct.unpack_from(">H", raw, at)
            at += 2
        else:
            size = _SIZES[kind]
        if kind == _STRING:
            yield name, raw[at : at + size].decode()
        at += size


def encode(frame: Frame) -> bytes:
    """The bytes of a frame."""
    kind, _, name = frame.event.rpartition(":")
    message = kind or "event"
    fields = {
        f":{message}-type": name,
        ":content-type": "application/json",
        ":message-type": message,
    }
    headers = b"".join(map(_header, fields, fields.values()))
    total = _OVERHEAD + len(headers) + len(frame.data)
    prelude = struct.pack(">II", total, len(headers))
    body = prelude + _TAIL.pack(crc32(prelude)) + headers + frame.data
    return body + _TAIL.pack(crc32(body))


def _header(name: str, value: str) -> bytes:
    said = value.encode()
    return (
        bytes([len(name)]) + name.encode() + bytes([_STRING]) + struct.pack(">H", len(said)) + said
    )
