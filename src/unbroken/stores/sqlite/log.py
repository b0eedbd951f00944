"""What the writer does within a transaction.

The heads of the streams it writes to are remembered between transactions, so that an append asks
SQLite nothing. They hold as long as no other connection has written, which `data_version` says.
What a transaction changed is collected as news, for the followers in this process.
"""

import sqlite3
from collections.abc import Sequence

import msgspec

from unbroken.errors import StoreError, StreamClosed
from unbroken.stores.sqlite import rows
from unbroken.stores.base import (
    Ack,
    Clock,
    Created,
    End,
    Lease,
    NewStream,
    Offset,
    StreamInfo,
    check_append,
)

_HEADS = 10_000  # remembered; then all are forgotten, which costs a question each
_PIECE = 50  # streams deleted in one transaction: producers must not wait long


class News(msgspec.Struct):
    """What a transaction did to a stream; `head` is None if it deleted it."""

    head: rows.Head | None
    first: Offset = 0  # the offset before the records
    records: list[bytes] = []


class Log:
    """One connection's writing side; every method but `foreign` within `begin` and `commit`."""

    def __init__(self, database: sqlite3.Connection, clock: Clock) -> None:
        self.database = database
        self.news: dict[str, News] = {}
        self._clock = clock
        self._heads: dict[str, rows.Head] = {}
        self._rows: list[tuple[int, Offset, int, bytes | None, bytes]] = []
        self._seen = self._data_version()

    def _data_version(self) -> int:
        return int(self.database.execute("PRAGMA data_version").fetchone()[0])

    def foreign(self) -> bool:
        """Whether another connection has written since the last time this was asked."""
        before, self._seen = self._seen, self._data_version()
        return before != self._seen

    def begin(self) -> bool:
        """Alone from here on. True if another connection has written."""
        self.news = {}
        self.database.execute("BEGIN IMMEDIATE")
        foreign = self.foreign()
        if foreign or len(self._heads) > _HEADS:
            self._heads.clear()
        return foreign

    def forget(self) -> None:
        """Trust no remembered head: somebody else has written."""
        self._heads.clear()

    def commit(self) -> None:
        self._flush()
        self.database.execute("COMMIT")

    def rollback(self) -> None:
        self._rows.clear()
        self._heads.clear()
        self.news = {}
        if self.database.in_transaction:
            self.database.execute("ROLLBACK")

    def _flush(self) -> None:
        if self._rows:
            self.database.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?)", self._rows)
            self._rows.clear()

    def _head(self, stream: str) -> rows.Head:
        head = self._heads.get(stream)
        if head is None:
            head = self._heads[stream] = rows.head(self.database, stream)
        return head

    def _tell(self, stream: str, head: rows.Head, records: Sequence[bytes] = ()) -> None:
        """Remember the news. Followers get a copy of the head: this one goes on changing."""
        news = self.news.get(stream)
        if news is None:
            first = head.tail - len(records)
            news = self.news[stream] = News(head, first, [])
        news.head = msgspec.structs.replace(head)
        news.records += records

    def append(
        self, stream: str, records: Sequence[bytes], at: Offset, fence: int, end: End | None
    ) -> Ack:
        head = self._head(stream)
        if head.end is None or head.end != end or records:  # else it is closed once more
            check_append(stream, head, at, fence)
            self._extend(head, records)
            if end is not None:
                self._close(head, end)
            self._tell(stream, head, records)
        return Ack(head.tail, head.cancelled)

    def _extend(self, head: rows.Head, records: Sequence[bytes]) -> None:
        if records:
            sizes, data = rows.pack(records)
            head.tail += len(records)
            head.total += len(data)
            self._rows.append((head.num, head.tail, head.total, sizes, data))

    def _close(self, head: rows.Head, end: End) -> None:
        head.end = end
        self.database.execute(
            "UPDATE streams SET state = ?, final = ?, size = ?, changed = ? WHERE num = ?",
            (end.state, end.final, head.total, self._clock(), head.num),
        )

    def create(
        self, new: NewStream, records: Sequence[bytes], producer: str, seconds: float
    ) -> Created:
        known = self._known(new)
        if known is not None:
            if known.owner != new.owner:
                raise StoreError(f"the id {new.id!r} is taken")
            return Created(known, fresh=False)
        self._insert(new)
        self.append(new.id, records, 0, 0, None)
        lease = self.acquire(new.id, producer, seconds) if producer else None
        self._flush()
        return Created(rows.info(self.database, new.id), fresh=True, lease=lease)

    def _known(self, new: NewStream) -> StreamInfo | None:
        """The stream that this one would be again."""
        self._flush()
        for where, values in (
            ("owner = ? AND key = ?", (new.owner, new.key or None)),
            ("id = ?", (new.id,)),
        ):
            row = self.database.execute(f"{rows.INFO} WHERE {where}", values).fetchone()
            if row is not None:
                return rows.info_of(row)
        return None

    def _insert(self, new: NewStream) -> None:
        now = self._clock()
        labels = msgspec.json.encode(new.labels).decode()
        self.database.execute(
            "INSERT INTO streams (id, owner, key, labels, created, changed)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (new.id, new.owner, new.key or None, labels, now, now),
        )

    def cancel(self, stream: str) -> bool:
        head = self._head(stream)
        if head.end is None and not head.cancelled:
            head.cancelled = True
            self.database.execute("UPDATE streams SET cancelled = 1 WHERE num = ?", (head.num,))
            self._tell(stream, head)
        return head.end is None

    def attend(self, stream: str, seconds: float) -> None:
        self.database.execute(
            "UPDATE streams SET attended = max(attended, ?) WHERE num = ?",
            (self._clock() + seconds, self._head(stream).num),
        )

    def acquire(self, stream: str, producer: str, seconds: float) -> Lease | None:
        head = self._head(stream)
        if head.end is not None:
            raise StreamClosed(f"stream {stream!r} is closed ({head.end.state})")
        asked = "SELECT producer, expires FROM streams WHERE num = ?"
        holder, expires = self.database.execute(asked, (head.num,)).fetchone()
        if holder != producer and expires > self._clock():
            return None
        head.fence += 1
        return self._lease(stream, head, producer, self._clock() + seconds)

    def _lease(self, stream: str, head: rows.Head, producer: str, expires: float) -> Lease:
        self.database.execute(
            "UPDATE streams SET producer = ?, fence = ?, expires = ? WHERE num = ?",
            (producer, head.fence, expires, head.num),
        )
        return Lease(stream, producer, head.fence, expires, head.tail, head.cancelled)

    def renew(self, lease: Lease, seconds: float) -> Lease:
        head = self._head(lease.stream)
        check_append(lease.stream, head, head.tail, lease.fence)
        return self._lease(lease.stream, head, lease.producer, self._clock() + seconds)

    def release(self, lease: Lease) -> None:
        head = rows.heads(self.database, [lease.stream]).get(lease.stream)
        if head is not None and head.end is None and head.fence == lease.fence:
            self._heads.pop(lease.stream, None)
            head.fence += 1
            self._lease(lease.stream, head, "", 0.0)

    def delete(self, stream: str) -> None:
        self._delete(stream, self._head(stream).num)

    def _delete(self, stream: str, num: int) -> None:
        self._flush()
        self.database.execute("DELETE FROM records WHERE stream = ?", (num,))
        self.database.execute("DELETE FROM streams WHERE num = ?", (num,))
        self._heads.pop(stream, None)
        self.news[stream] = News(None)

    def prune_age(self, age: float) -> int:
        """Delete a piece of what has been over for so long; 0 if there is nothing."""
        before = self._clock() - age
        old = self.database.execute(
            "SELECT id, num FROM streams WHERE state IS NOT NULL AND changed <= ?1"
            " OR state IS NULL AND expires <= ?1 AND created <= ?1 LIMIT ?2",
            (before, _PIECE),
        ).fetchall()
        for stream, num in old:
            self._delete(stream, num)
        return len(old)

    def prune_size(self, size: int) -> int:
        """Delete a piece of the oldest closed streams while all together are too large."""
        self._flush()
        total = f"SELECT total(ifnull(size, {rows.TOTAL})) FROM streams"  # noqa: S608
        excess = self.database.execute(total).fetchone()[0] - size
        oldest = "SELECT id, num, size FROM streams WHERE state IS NOT NULL ORDER BY changed"
        count = 0
        for stream, num, bytes_ in self.database.execute(f"{oldest} LIMIT ?", (_PIECE,)).fetchall():
            if excess <= 0:
                break
            self._delete(stream, num)
            excess -= bytes_
            count += 1
        return count
