"""How streams and records lie in rows, and the questions that only read."""

import sqlite3
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from unbroken.errors import OffsetUnknown, StreamMissing
from unbroken.stores.base import (
    BEGINNING,
    PAGE_BYTES,
    End,
    Found,
    Offset,
    Page,
    Record,
    Search,
    StreamInfo,
    matches,
)

_TAIL = "ifnull((SELECT max(last) FROM records WHERE stream = num), 0)"
TOTAL = "ifnull((SELECT total FROM records WHERE stream = num ORDER BY last DESC LIMIT 1), 0)"
_COLUMNS = f"num, id, owner, labels, created, changed, {_TAIL}, ifnull(size, {TOTAL}), state"
INFO = f"SELECT {_COLUMNS}, final, cancelled, producer, fence, expires FROM streams "  # noqa: S608
_HEAD = f"SELECT id, num, {_TAIL}, {TOTAL}, fence, cancelled, state, final FROM streams "  # noqa: S608
_BATCH = 64  # heads asked for at once, so that there is one statement to prepare
_HEADS = f"{_HEAD} WHERE id IN ({', '.join('?' * _BATCH)})"
_RECORDS = "SELECT last, sizes, data FROM records WHERE stream = ? AND last > ? ORDER BY last"
_labels = msgspec.json.Decoder(dict[str, str])

Row = tuple[Any, ...]


class Head(msgspec.Struct):
    """What decides whether somebody may append, and whether followers have something to read."""

    num: int
    tail: Offset
    total: int
    fence: int
    cancelled: bool
    end: End | None


def _head(row: Row) -> Head:
    _, num, tail, total, fence, cancelled, state, final = row
    return Head(num, tail, total, fence, bool(cancelled), _end(state, final))


def _end(state: str | None, final: bytes | None) -> End | None:
    return None if state is None else End(state, final or b"")


def info_of(row: Row) -> StreamInfo:
    """A row of INFO."""
    _, id, owner, labels, created, changed, tail, size, *rest = row
    state, final, cancelled, producer, fence, expires = rest
    return StreamInfo(
        id=id,
        owner=owner,
        labels=_labels.decode(labels),
        created=created,
        changed=changed,
        tail=tail,
        size=size,
        end=_end(state, final),
        cancelled=bool(cancelled),
        producer=producer,
        fence=fence,
        expires=expires,
    )


def pack(records: Sequence[bytes]) -> tuple[bytes | None, bytes]:
    """The sizes of some records, needed if there are several, and all of them joined."""
    if len(records) == 1:
        return None, bytes(records[0])
    return struct.pack(f"<{len(records)}I", *map(len, records)), b"".join(records)


def _unpack(row: Row) -> Iterator[Record]:
    last, sizes, data = row
    if sizes is None:
        yield Record(last, data)
        return
    start, count = 0, len(sizes) // 4
    for at, size in enumerate(struct.unpack(f"<{count}I", sizes), last - count + 1):
        yield Record(at, data[start : start + size])
        start += size


def missing(stream: str) -> StreamMissing:
    """The error for a stream that is not there."""
    return StreamMissing(f"there is no stream {stream!r}")


def head(database: sqlite3.Connection, stream: str) -> Head:
    """The head of a stream; StreamMissing."""
    row = database.execute(f"{_HEAD} WHERE id = ?", (stream,)).fetchone()
    if row is None:
        raise missing(stream)
    return _head(row)


def heads(database: sqlite3.Connection, streams: Sequence[str]) -> dict[str, Head]:
    """The heads of many streams; the missing are left out."""
    found: dict[str, Head] = {}
    for start in range(0, len(streams), _BATCH):
        some = streams[start : start + _BATCH]
        rows = database.execute(_HEADS, (*some, *[None] * (_BATCH - len(some))))
        found |= {row[0]: _head(row) for row in rows}
    return found


def info(database: sqlite3.Connection, stream: str) -> StreamInfo:
    """All about a stream; StreamMissing."""
    row = database.execute(f"{INFO} WHERE id = ?", (stream,)).fetchone()
    if row is None:
        raise missing(stream)
    return info_of(row)


def page(database: sqlite3.Connection, stream: str, after: Offset, limit: int) -> Page:
    """Records behind an offset. The head is read first: what follows it can only be more."""
    known = head(database, stream)
    if not BEGINNING <= after <= known.tail:
        raise OffsetUnknown(f"stream {stream!r} has no offset {after}")
    records = _some(database.execute(_RECORDS, (known.num, after)), after, limit)
    following = records[-1].offset if records else after
    return Page(records, following, known.end if following == known.tail else None)


def attended(database: sqlite3.Connection, stream: str, now: float) -> float:
    """For how long somebody has said to read it; StreamMissing."""
    row = database.execute("SELECT attended FROM streams WHERE id = ?", (stream,)).fetchone()
    if row is None:
        raise missing(stream)
    return max(float(row[0]) - now, 0.0)


def _some(rows: sqlite3.Cursor, after: Offset, limit: int) -> list[Record]:
    """As many records as a page holds."""
    records: list[Record] = []
    size = 0
    for record in (record for row in rows for record in _unpack(row) if record.offset > after):
        size += len(record.data)
        if len(records) == limit or (records and size > PAGE_BYTES):
            break
        records.append(record)
    return records


def find(database: sqlite3.Connection, owner: str | None, search: Search) -> Found:
    """Labels are compared here and not in SQL, which knows upper and lower case of ASCII only."""
    before = 1 << 62 if search.before is None else search.before
    owned = "" if owner is None else "AND owner = :owner"
    found: list[StreamInfo] = []
    for row in database.execute(
        f"{INFO} WHERE num < :before {owned} ORDER BY num DESC", {"before": before, "owner": owner}
    ):
        if matches(known := info_of(row), search):
            found.append(known)
        if len(found) == search.limit:
            return Found(found, row[0])
    return Found(found)


def orphans(database: sqlite3.Connection, now: float, limit: int) -> list[StreamInfo]:
    """Open streams whose lease has run out."""
    where = "WHERE state IS NULL AND expires <= ? ORDER BY expires LIMIT ?"
    return [info_of(row) for row in database.execute(f"{INFO} {where}", (now, limit))]
