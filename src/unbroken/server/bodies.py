"""Reads request bodies so that none of them holds up the event loop.

Parsing costs little per byte and much per value: 30 MB of text take milliseconds, a million keys
take most of a second. So values, nesting, messages and tools are bounded, and larger bodies are
parsed in a thread, where other requests get their turn.
"""

import asyncio
import re
from collections.abc import AsyncIterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from unbroken.errors import BadRequest
from unbroken.messages import Request
from unbroken.wire.codec import Codec

MAX_VALUES = 65_536
"""Values in a body: fields, and items of lists."""

MAX_DEPTH = 100
"""Levels of nesting. Python's own stack ends at about a thousand."""

MAX_MESSAGES, MAX_TOOLS = 10_000, 1_024

_INLINE_BYTES, _INLINE_VALUES = 128 * 1024, 1_000
"""A body within both is parsed at once; starting a thread would take longer."""

_WINDOW = 1 << 18
"""Bytes that one regular expression is run over: it holds the interpreter's lock."""

_PARSER = ThreadPoolExecutor(1, "unbroken-parse")
"""One large body after the other, so that what each costs does not come at the same time."""

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)  # possessive: never backtracks
_BACKSLASHES = re.compile(rb"\\*")
_BRACKET = re.compile(rb"[\[\]{}]")


async def read_body(parts: AsyncIterable[bytes], most: int) -> bytes:
    """Return the whole body; BadRequest (413) if it has more than `most` bytes."""
    read, size = [], 0
    async for part in parts:
        size += len(part)
        if size > most:
            raise too_large(most)
        read.append(part)
    return b"".join(read)


def too_large(most: int) -> BadRequest:
    """Return the refusal of a body, or a message, of more bytes than `max_body`."""
    said = f"the body is larger than {most} bytes"
    return BadRequest(said, status=413, code="request_too_large")


async def parse_request(body: bytes, codec: Codec) -> Request:
    """Return the request in a body of that dialect. BadRequest names what is wrong with it."""
    if len(body) <= _INLINE_BYTES and _openings_and_commas(body) <= _INLINE_VALUES:
        return _parse(body, codec)
    return await asyncio.get_running_loop().run_in_executor(_PARSER, _parse, body, codec)


def _parse(body: bytes, codec: Codec) -> Request:
    check_structure(body)
    try:
        request = codec.dialect.decode_request(body)
    except RecursionError:  # references may nest deeper than their text
        raise _too_complex("it is nested too deeply") from None
    for name, found, most in (
        ("messages", request.messages, MAX_MESSAGES),
        ("tools", request.tools or (), MAX_TOOLS),
    ):
        if len(found) > most:
            raise _too_complex(f"it has {len(found)} {name}, and {most} are allowed")
    return request


def check_structure(body: bytes) -> None:
    """BadRequest (413) if the JSON has too many values, or too many levels."""
    if _openings_and_commas(body) <= MAX_DEPTH:
        return
    values, depth = 0, 0
    for structure in _without_strings(body):
        values += _openings_and_commas(structure)
        if values > MAX_VALUES:
            raise _too_complex(f"it has more than {MAX_VALUES} values")
        for bracket in _BRACKET.findall(structure):
            depth += 1 if bracket in b"[{" else -1
            if depth > MAX_DEPTH:
                raise _too_complex(f"it is nested more than {MAX_DEPTH} levels deep")


def _too_complex(why: str) -> BadRequest:
    return BadRequest(f"the body is too complex: {why}", status=413, code="request_too_complex")


def _openings_and_commas(text: bytes) -> int:
    """At least the number of values, and of levels."""
    return text.count(b",") + text.count(b"{") + text.count(b"[")


def _without_strings(body: bytes, size: int = _WINDOW) -> Iterator[bytes]:
    """Yield the JSON without what is in quotes, a window at a time."""
    start, inside = 0, False
    while start < len(body):
        end = start + size
        if body[end - 1 : end] == b"\\":  # an escape is not cut in two
            end = _BACKSLASHES.match(body, end).end() + 1  # type: ignore[union-attr]
        window = (b'"' if inside else b"") + body[start:end]
        outside, quote, _ = _STRING.sub(b"", window).partition(b'"')
        inside, start = bool(quote), end
        yield outside
