"""The rows of streams and records, and the queries that only read."""

import sqlite3
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from unbroken.errors import OffsetUnknown, StreamMissing
from unbroken.stores.base import (
    BEGINNING,
    FIND_SCAN,
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
from unbroken.stores.counters import Window, window_end

_LAST = "ifnull((SELECT max(last) FROM records WHERE stream = num), 0)"
_BYTES = "ifnull((SELECT total FROM records WHERE stream = num ORDER BY last DESC LIMIT 1), 0)"
# Of a closed stream both stand in its row.
TAIL, SIZE = f"ifnull(tail, {_LAST})", f"ifnull(size, {_BYTES})"
_COLUMNS = f"num, id, owner, labels, created, changed, {TAIL}, {SIZE}, state"
INFO = f"SELECT {_COLUMNS}, final, cancelled, producer, fence FROM streams "  # noqa: S608
_HEAD = "SELECT id, num, {}, {}, fence, cancelled, takeovers, state, final FROM streams "
_HEAD = _HEAD.format(TAIL, SIZE)
_BATCH = 64  # heads asked for at once, so that there is one statement to prepare
_HEADS = f"{_HEAD} WHERE id IN ({', '.join('?' * _BATCH)})"
_RECORDS = "SELECT last, sizes, data FROM records WHERE stream = ? AND last > ? ORDER BY last"
_labels = msgspec.json.Decoder(dict[str, str]).decode
# When a stream lost its producer: the process's last heartbeat, or the release; what was migrated
# has its last lease there. A stream without a producer has fence 0.
_SINCE = """
    CASE producer WHEN '' THEN released ELSE ifnull(until, max(released, created)) END
"""
_LOST = """
    FROM streams LEFT JOIN processes ON name = producer
    WHERE state IS NULL AND fence > 0 AND ifnull(until, 0) <= :now
"""
_ORPHANS = f"SELECT id {_LOST} ORDER BY {_SINCE} LIMIT :limit"
_ANY_ORPHAN = f"SELECT 1 {_LOST} LIMIT 1"
_OLD_ORPHANS = f"SELECT id, num {_LOST} AND max({_SINCE}, created) <= :before LIMIT :limit"

Row = tuple[Any, ...]


class Head(msgspec.Struct):
    """What decides whether an append is admitted, and whether there is something to read."""

    num: int
    tail: Offset
    total: int
    fence: int
    cancelled: bool
    takeovers: int
    end: End | None


def _head(row: Row) -> Head:
    _, num, tail, total, fence, cancelled, takeovers, state, final = row
    return Head(num, tail, total, fence, bool(cancelled), takeovers, _end(state, final))


def _end(state: str | None, final: bytes | None) -> End | None:
    return None if state is None else End(state, final or b"")


def info_of(row: Row) -> StreamInfo:
    """Read a row of INFO."""
    _, id, owner, labels, created, changed, tail, size, *rest = row
    state, final, cancelled, producer, fence = rest
    return StreamInfo(
        id=id,
        owner=owner,
        labels=_labels(labels),
        created=created,
        changed=changed,
        tail=tail,
        size=size,
        end=_end(state, final),
        cancelled=bool(cancelled),
        producer=producer,
        fence=fence,
    )


def pack(records: Sequence[bytes]) -> tuple[bytes | None, bytes]:
    """Return the sizes of some records, needed if there are several, and all of them joined."""
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
    """Return the error for a stream that does not exist."""
    return StreamMissing(f"there is no stream {stream!r}")


def head(database: sqlite3.Connection, stream: str) -> Head:
    """Return the head of a stream; StreamMissing."""
    row = database.execute(f"{_HEAD} WHERE id = ?", (stream,)).fetchone()
    if row is None:
        raise missing(stream)
    return _head(row)


def heads(database: sqlite3.Connection, streams: Sequence[str]) -> dict[str, Head]:
    """Return the heads of many streams; the missing are left out."""
    found: dict[str, Head] = {}
    for start in range(0, len(streams), _BATCH):
        some = streams[start : start + _BATCH]
        rows = database.execute(_HEADS, (*some, *[None] * (_BATCH - len(some))))
        found |= {row[0]: _head(row) for row in rows}
    return found


def info(database: sqlite3.Connection, stream: str) -> StreamInfo:
    """Return what is known of a stream; StreamMissing."""
    row = database.execute(f"{INFO} WHERE id = ?", (stream,)).fetchone()
    if row is None:
        raise missing(stream)
    return info_of(row)


def page(database: sqlite3.Connection, stream: str, after: Offset, limit: int) -> Page:
    """Return records behind an offset. The head is read first: there can only be more by then."""
    known = head(database, stream)
    if not BEGINNING <= after <= known.tail:
        raise OffsetUnknown(f"stream {stream!r} has no offset {after}")
    records = _some(database.execute(_RECORDS, (known.num, after)), after, limit)
    following = records[-1].offset if records else after
    return Page(records, following, known.end if following == known.tail else None)


def reader_leases(
    database: sqlite3.Connection, streams: Sequence[str], now: float
) -> dict[str, float]:
    """Return the seconds left of the announcements of readers, where there are some."""
    asked = "SELECT id, attended FROM streams WHERE id IN (SELECT value FROM json_each(?))"
    rows = database.execute(asked, (_json(streams),))
    return {id: until - now for id, until in rows if until > now}


def _json(values: Sequence[object]) -> str:
    return msgspec.json.encode(values).decode()


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
    """Search, in at most FIND_SCAN streams.

    Labels are compared here and not in SQL, which knows upper and lower case of ASCII only. The
    scan reads no more than they need; the rest is read of those that match.
    """
    nums: list[int] = []
    num, scanned = 0, 0
    for num, labels, closed in _scan(database, owner, search.before):
        scanned += 1
        if matches(search, _labels(labels), closed=bool(closed)):
            nums.append(num)
        if len(nums) == search.limit:
            break
    done = len(nums) < search.limit and scanned < FIND_SCAN
    where = "WHERE num IN (SELECT value FROM json_each(?)) ORDER BY num DESC"
    rows = database.execute(f"{INFO} {where}", (_json(nums),))
    return Found([info_of(row) for row in rows], None if done else num)


def _scan(database: sqlite3.Connection, owner: str | None, before: int | None) -> sqlite3.Cursor:
    owned = "" if owner is None else "AND owner = :owner"
    return database.execute(
        "SELECT num, labels, state IS NOT NULL FROM streams"  # noqa: S608
        f" WHERE num < :before {owned} ORDER BY num DESC LIMIT {FIND_SCAN}",
        {"before": 1 << 62 if before is None else before, "owner": owner},
    )


def orphans(database: sqlite3.Connection, now: float, limit: int) -> list[str]:
    """Return open streams whose process is dead or has released them, longest waiting first."""
    return [id for (id,) in database.execute(_ORPHANS, {"now": now, "limit": limit})]


def any_orphan(database: sqlite3.Connection, now: float) -> bool:
    """Whether there is a stream to adopt."""
    return database.execute(_ANY_ORPHAN, {"now": now}).fetchone() is not None


def old_orphans(
    database: sqlite3.Connection, now: float, before: float, limit: int
) -> list[tuple[str, int]]:
    """Return the ids and numbers of orphans that have been waiting since before some time."""
    asked = {"now": now, "before": before, "limit": limit}
    return database.execute(_OLD_ORPHANS, asked).fetchall()


def usage(database: sqlite3.Connection, counter: str, window: Window, now: float) -> dict[str, int]:
    """Return the amounts of a counter in its current window."""
    asked = "SELECT field, value FROM counters WHERE name = ? AND window = ? AND until = ?"
    return dict(database.execute(asked, (counter, window, window_end(window, now))).fetchall())
