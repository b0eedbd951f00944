"""The AWS event stream (application/vnd.amazon.eventstream): binary frames with two checksums.

    total length (4) · length of the headers (4) · CRC32 of those eight bytes (4)
    headers · payload · CRC32 of everything before (4)

(smithy.io, "Amazon event stream specification"). A frame becomes `Frame(payload, event)`: the
event's type, or `exception:TYPE` and `error:CODE` for what went wrong after the 200. An error has
no payload; its message stands in a header and is made one, so that both read alike.

Frames that came before a broken one are given out, and the fault is raised with the next call: so
the cuts between reads make no difference. Nothing behind a broken frame can be found again.
"""

import struct
from binascii import crc32
from collections.abc import Iterator

import msgspec

from unbroken.errors import RemoteProtocolError
from unbroken.wire.codec import Frame

CONTENT_TYPE = "application/vnd.amazon.eventstream"

_PRELUDE = struct.Struct(">III")
_TAIL = struct.Struct(">I")
_OVERHEAD = _PRELUDE.size + _TAIL.size

MOST_HEADERS = 128 * 1024
MOST_PAYLOAD = 24 * 1024 * 1024
"""Bytes. The specification's own limits, which botocore keeps to (botocore, `eventstream.py`): a
peer that claims more is broken, and would otherwise have us hold up to 4 GiB."""

# Sizes of header values by their type; byte arrays and strings (6, 7) say their own.
_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
_COUNTED, _STRING = (6, 7), 7

_encode = msgspec.json.Encoder().encode


class EventStreamDecoder:
    """Bytes in, frames out, in any slicing. RemoteProtocolError on a checksum that is wrong."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._broken: RemoteProtocolError | None = None

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that these bytes complete."""
        self._raise()
        self._buffer += data
        frames: list[Frame] = []
        at = 0
        try:
            while (total := self._length(at)) and len(self._buffer) - at >= total:
                frames.append(_frame(bytes(self._buffer[at : at + total])))
                at += total
        except RemoteProtocolError as error:
            self._broken = error
        del self._buffer[:at]
        if not frames:
            self._raise()
        return frames

    def eof(self) -> list[Frame]:
        """No frame: half of one is nothing, and the reader knows whether the end had come."""
        self._raise()
        return []

    def _raise(self) -> None:
        if self._broken is not None:
            raise self._broken

    def _length(self, at: int) -> int:
        """The length of the frame that begins here; 0 until that is known."""
        if len(self._buffer) - at < _PRELUDE.size:
            return 0
        total, headers, check = _PRELUDE.unpack_from(self._buffer, at)
        if crc32(self._buffer[at : at + 8]) != check:
            raise RemoteProtocolError("an event stream's prelude has a wrong checksum")
        if headers > MOST_HEADERS or not 0 <= total - headers - _OVERHEAD <= MOST_PAYLOAD:
            raise RemoteProtocolError(
                f"an event stream's frame claims {total} bytes, {headers} of them headers"
            )
        return int(total)


def _frame(raw: bytes) -> Frame:
    if crc32(memoryview(raw)[:-4]) != _TAIL.unpack_from(raw, len(raw) - 4)[0]:
        raise RemoteProtocolError("an event stream's frame has a wrong checksum")
    end = _PRELUDE.size + _PRELUDE.unpack_from(raw)[1]
    try:
        headers = dict(_headers(raw[_PRELUDE.size : end]))
    except (IndexError, KeyError, struct.error, UnicodeDecodeError) as error:
        raise RemoteProtocolError("an event stream's headers can't be read") from error
    message = headers.get(":message-type", "event")
    if message == "event":
        return Frame(raw[end:-4], event=headers.get(":event-type", ""))
    if message == "error":
        body = _encode({"message": headers.get(":error-message", "")})
        return Frame(body, event=f"error:{headers.get(':error-code') or 'unknown'}")
    return Frame(raw[end:-4], event=f"{message}:{headers.get(f':{message}-type') or 'unknown'}")


def _headers(raw: bytes) -> Iterator[tuple[str, str]]:
    """The headers that are strings; those of the nine other types are passed over."""
    at = 0
    while at < len(raw):
        begin = at + 1 + raw[at]
        name, kind = raw[at + 1 : begin].decode(), raw[begin]
        begin += 1
        if kind in _COUNTED:
            (size,) = struct.unpack_from(">H", raw, begin)
            begin += 2
        else:
            size = _SIZES[kind]
        at = begin + size
        if at > len(raw):
            raise IndexError(name)
        if kind == _STRING:
            yield name, raw[begin:at].decode()


def encode(frame: Frame) -> bytes:
    """The bytes of a frame."""
    message, _, name = frame.event.rpartition(":")
    if message == "error":
        sentence = msgspec.json.decode(frame.data, type=dict[str, str]).get("message", "")
        fields = {":message-type": "error", ":error-code": name, ":error-message": sentence}
        return _framed(fields, b"")
    fields = {
        f":{message or 'event'}-type": name,
        ":content-type": "application/json",
        ":message-type": message or "event",
    }
    return _framed(fields, frame.data)


def _framed(fields: dict[str, str], payload: bytes) -> bytes:
    headers = b"".join(map(_header, fields, fields.values()))
    prelude = struct.pack(">II", _OVERHEAD + len(headers) + len(payload), len(headers))
    body = prelude + _TAIL.pack(crc32(prelude)) + headers + payload
    return body + _TAIL.pack(crc32(body))


def _header(name: str, value: str) -> bytes:
    """Values hold up to 32767 bytes; ours are names, and messages that may be cut."""
    text = value.encode()[:32767].decode("utf-8", "ignore").encode()
    kind = bytes([_STRING]) + struct.pack(">H", len(text))
    return bytes([len(name)]) + name.encode() + kind + text


def is_framed(head: bytes) -> bool:
    """Whether frames begin with these bytes: their first byte is that of a length below 16 MiB."""
    return head[:1] in (b"\0", b"\1")
