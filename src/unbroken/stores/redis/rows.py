"""Reading what the scripts answer."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from unbroken.errors import OffsetConflict, OffsetUnknown, StoreError, StreamClosed, StreamMissing
from unbroken.stores.base import End, NewStream, Page, Record, StreamInfo
from unbroken.stores.redis.watch import Head


class Meta(msgspec.Struct, frozen=True, array_like=True):
    """The part of a stream that is given at its creation and never changes."""

    owner: str
    key: str
    labels: dict[str, str]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Meta).decode


def meta_to(new: NewStream) -> bytes:
    """Encode it as it is kept."""
    return _encode(Meta(new.owner, new.key, new.labels))


def meta_from(data: bytes) -> Meta:
    """Decode what `meta_to` has encoded."""
    return _decode(data)


class Row(NamedTuple):
    """A stream as `info` returns it, and what only the store needs."""

    info: StreamInfo
    number: int
    key: str


_WRONG: dict[bytes, tuple[type[StoreError], str]] = {
    b"missing": (StreamMissing, "there is no stream {0!r}"),
    b"closed": (StreamClosed, "stream {0!r} is closed ({1})"),
    b"fence": (OffsetConflict, "fence {2} of stream {0!r} is not the current {1}"),
    b"offset": (OffsetConflict, "offset {2} is not the tail {1} of stream {0!r}"),
    b"unknown": (OffsetUnknown, "stream {0!r} has no offset {2}: its tail is {1}"),
}


def check(stream: str, answer: list[Any], asked: object = None) -> list[Any]:
    """Return an answer, or raise what it says; `asked` is the offset or fence of the call."""
    if answer[0] not in _WRONG:
        return answer
    error, words = _WRONG[answer[0]]
    raise error(words.format(stream, answer[1].decode() if answer[1:] else "", asked))


def row_of(stream: str, fields: Sequence[Any]) -> Row:
    """Read the fields of `known` in the scripts."""
    tail, size, fence, created, changed, number, producer, cancelled, state, ml, kept = fields
    length = int(ml)
    meta = _decode(kept[:length])
    info = StreamInfo(
        id=stream,
        owner=meta.owner,
        labels=meta.labels,
        created=float(created),
        changed=float(changed),
        tail=int(tail),
        size=int(size),
        end=None if state is None else End(state.decode(), kept[length:]),
        cancelled=cancelled is not None,
        producer=producer.decode(),
        fence=int(fence),
    )
    return Row(info, int(number), meta.key)


def pairs_of(flat: Sequence[bytes]) -> list[tuple[str, str]]:
    """Read members with their scores, which come first here."""
    pairs = zip(flat[1::2], flat[::2], strict=True)
    return [(score.decode(), member.decode()) for score, member in pairs]


def page_of(stream: str, after: int, answer: Sequence[Any]) -> Page:
    """Read a page. StoreError if Redis has dropped records out of the middle."""
    _, tail, state, final, entries = answer
    records = [Record(int(id.partition(b"-")[0]), fields[1]) for id, fields in entries]
    following = after + len(records)
    there = following if records else int(tail)
    if (records and records[-1].offset != following) or (not records and after != there):
        raise StoreError(
            f"records behind {after} of stream {stream!r} are gone from Redis",
            hint="Its maxmemory-policy must be noeviction.",
        )
    end = None if state is None or following != int(tail) else End(state.decode(), final)
    return Page(records, following, end)


def head_of(answer: Sequence[Any]) -> Head | None:
    """Read a head; None if the stream does not exist."""
    if answer[0] != b"ok":
        return None
    _, tail, state, final, seen, last = answer
    end = None if state is None else End(state.decode(), final)
    return Head(int(tail), end, _fence(seen), _fence(last))


def _fence(id: bytes) -> int | None:
    return int(id.partition(b"-")[2]) if id else None
