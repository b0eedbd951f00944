"""What becomes of an event that can't be read.

Half a surrogate pair is mended: servers that cut texts by UTF-16 units write an emoji as
`\\ud83d` in one event and `\\ude00` in the next (ECMA-262, JSON.stringify), which is JSON (RFC
8259, 8.2), but no text. What may be a piece of a tool call breaks the answer off, since arguments
with a hole in them may be arguments, too. Anything else is passed over and counted.
"""

import json
import re
from typing import Protocol

import msgspec

from unbroken.errors import RemoteProtocolError
from unbroken.events import Event
from unbroken.wire.codec import Frame

_OF_CALLS = re.compile(rb'(?:tool|function|arguments|partial_json)(?!\w*"\s*:\s*null)')
"""One of these words stands in every event of a call, in each of the dialects; some servers say in
every other event that it is null.
"""


class _Reads(Protocol):
    skipped: int

    def read(self, frames: list[Frame], out: list[Event], /) -> None: ...


def recover_or_skip(reader: _Reads, frame: Frame, out: list[Event]) -> None:
    """Read the event as well as can be. RemoteProtocolError if a tool call may lack it."""
    mended = repair_surrogates(frame.data)
    if mended is not None:
        reader.read([msgspec.structs.replace(frame, data=mended)], out)
    elif _OF_CALLS.search(frame.data):
        raise RemoteProtocolError("an event that may belong to a tool call can't be read")
    else:
        reader.skipped += 1


def repair_surrogates(data: bytes) -> bytes | None:
    """JSON with halves of surrogate pairs, with U+FFFD in their places; None if that is not it."""
    if b"\\ud" not in data.lower():
        return None
    try:
        text = json.dumps(json.loads(data), ensure_ascii=False)
    except (ValueError, RecursionError):
        return None
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
