"""Pass-through of Anthropic's blocks that this version does not model, frame by frame.

Server tools and their results, and newer kinds. The data of an
`OtherEvent` is the frame as it came; of a whole answer, the frame that would start the block.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

from unbroken.events import OtherEvent
from unbroken.response import Other

DIALECT = "anthropic_messages"


class Kept(Struct):
    """A frame that was kept: a block's start, a piece of a block, or an event of its own."""

    type: str = ""
    index: int = 0
    content_block: Raw = Raw(b"null")
    delta: Raw = Raw(b"null")


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Kept).decode
_object = msgspec.json.Decoder(dict[str, Any]).decode


def other(name: str, frame: bytes) -> OtherEvent:
    """An event for a frame that is not modelled."""
    return OtherEvent(name, frame.decode(), dialect=DIALECT)


def kept(event: OtherEvent) -> Kept | None:
    """The frame that the event stands for; None if it is of another dialect."""
    return _decode(event.data) if event.dialect == DIALECT else None


def starting(index: int, block: Raw) -> bytes:
    """The frame that would start a block of a whole answer."""
    return _encode({"type": "content_block_start", "index": index, "content_block": block})


def blocks_of(others: Sequence[Other]) -> list[tuple[int, dict[str, Any]]]:
    """The blocks of a whole answer that were kept, each with its place in the text."""
    made: list[tuple[int, dict[str, Any]]] = []
    at: dict[int, int] = {}  # index on the wire to index in `made`
    typed: dict[int, str] = {}  # the input of a server's tool, which grows as text
    for one in others:
        frame = kept(one.event)
        if frame is None:
            continue
        if frame.type == "content_block_start":
            at[frame.index] = len(made)
            made.append((one.at, _object(frame.content_block)))
        elif frame.type == "content_block_delta" and frame.index in at:
            place = at[frame.index]
            grown = _object(frame.delta)
            typed[place] = typed.get(place, "") + grown.pop("partial_json", "")
            grow(made[place][1], grown)
    for place, text in typed.items():
        made[place][1].update(typed_input(text))
    return made


def grow(block: dict[str, Any], delta: dict[str, Any]) -> None:
    """Texts go on; everything else is replaced."""
    for name, value in delta.items():
        old = block.get(name)
        if name != "type":
            block[name] = old + value if isinstance(old, str) and isinstance(value, str) else value


def typed_input(text: str) -> dict[str, Any]:
    """The input that came as text; nothing where it was cut short or never came."""
    try:
        return {"input": msgspec.json.decode(text)} if text else {}
    except msgspec.DecodeError:
        return {}
