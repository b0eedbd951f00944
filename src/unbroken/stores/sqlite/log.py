"""The writer's work on streams within a transaction.

The heads of the streams it writes to are remembered between transactions, so that an append asks
SQLite nothing. They hold as long as no other connection has written, which `data_version` says.
What a transaction changed is collected, for the followers in this process.
"""

import sqlite3
from collections.abc import Sequence

import msgspec

from unbroken.errors import StoreError
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
from unbroken.stores.counters import Charge, check_charges, check_limits, window_end
from unbroken.stores.sqlite import rows

HEAD_CACHE = 10_000  # remembered; then all are forgotten, which costs a query each
ROW_RECORDS = 256  # of one append in one row, which is read as a whole
DELETE_ROWS = 500  # rows of records deleted in one transaction: other writes must not wait long
# Not a number whose records are still to be deleted.
_NEXT_NUM = """
    1 + max(ifnull((SELECT max(num) FROM streams), 0), ifnull((SELECT max(num) FROM deleted), 0))
"""
_INSERT = f"""
    INSERT INTO streams (num, id, owner, key, labels, created, changed, producer, fence)
    VALUES ({_NEXT_NUM}, ?, ?, ?, ?, ?, ?, ?, ?)
"""  # noqa: S608
_COUNT = """
    INSERT INTO counters VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    value = CASE until WHEN excluded.until THEN value ELSE 0 END + excluded.value,
    until = excluded.until
"""


class Change(msgspec.Struct):
    """What a transaction did to a stream; `head` is None if it deleted it."""

    head: rows.Head | None
    first: Offset = 0  # the offset before the records
    records: list[bytes] = []


class Log:
    """One connection's writing side. All work is between `begin` and `commit`."""

    def __init__(self, database: sqlite3.Connection, clock: Clock) -> None:
        self.database = database
        self.changes: dict[str, Change] = {}
        self.now = clock
        self._heads: dict[str, rows.Head] = {}
        self._rows: list[tuple[int, Offset, int, bytes | None, bytes]] = []
        self._seen = self._data_version()

    def _data_version(self) -> int:
        return int(self.database.execute("PRAGMA data_version").fetchone()[0])

    def changed_externally(self) -> bool:
        """Whether another connection has written since this was last called."""
        before, self._seen = self._seen, self._data_version()
        return before != self._seen

    def begin(self) -> bool:
        """Take the write lock. True if another connection has written."""
        self.changes = {}
        self.database.execute("BEGIN IMMEDIATE")
        foreign = self.changed_externally()
        if foreign or len(self._heads) > HEAD_CACHE:
            self._heads.clear()
        return foreign

    def forget(self) -> None:
        """Trust no remembered head: another connection has written."""
        self._heads.clear()

    def commit(self) -> None:
        self.flush()
        self.database.execute("COMMIT")

    def rollback(self) -> None:
        self._rows.clear()
        self._heads.clear()
        self.changes = {}
        if self.database.in_transaction:
            self.database.execute("ROLLBACK")

    def flush(self) -> None:
        """Write the collected records, before a query that depends on them."""
        if self._rows:
            self.database.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?)", self._rows)
            self._rows.clear()

    def head(self, stream: str) -> rows.Head:
        """Return the head of a stream, to be changed in place. StreamMissing."""
        head = self._heads.get(stream)
        if head is None:
            head = self._heads[stream] = rows.head(self.database, stream)
        return head

    def forget_heads(self, streams: Sequence[str]) -> None:
        """Trust the file about these streams, not memory."""
        self.flush()
        for stream in streams:
            self._heads.pop(stream, None)

    def _publish(self, stream: str, head: rows.Head, records: Sequence[bytes] = ()) -> None:
        """Collect a change. Followers get a copy of the head: this one goes on changing."""
        change = self.changes.get(stream)
        if change is None:
            first = head.tail - len(records)
            change = self.changes[stream] = Change(head, first, [])
        change.head = msgspec.structs.replace(head)
        change.records += records

    def append(self, stream: str, records: Sequence[bytes], at: Offset, fence: int) -> Ack:
        head = self.head(stream)
        check_append(stream, head, at, fence)
        self._extend(head, records)
        self._publish(stream, head, records)
        return Ack(head.tail, head.cancelled)

    def close(
        self,
        stream: str,
        end: End,
        at: Offset,
        fence: int,
        records: Sequence[bytes],
        charges: Sequence[Charge],
    ) -> Ack:
        head = self.head(stream)
        if head.end is not None and head.end == end and not records:
            return Ack(head.tail, head.cancelled)  # it is closed once more
        check_append(stream, head, at, fence)
        self.charge(charges)
        self._extend(head, records)
        self._end(head, end)
        self._publish(stream, head, records)
        return Ack(head.tail, head.cancelled)

    def _extend(self, head: rows.Head, records: Sequence[bytes]) -> None:
        for start in range(0, len(records), ROW_RECORDS):
            some = records[start : start + ROW_RECORDS]
            sizes, data = rows.pack(some)
            head.tail += len(some)
            head.total += len(data)
            self._rows.append((head.num, head.tail, head.total, sizes, data))
        if records and head.takeovers:
            head.takeovers = 0
            self.database.execute("UPDATE streams SET takeovers = 0 WHERE num = ?", (head.num,))

    def _end(self, head: rows.Head, end: End) -> None:
        head.end = end
        self.database.execute(
            "UPDATE streams SET state = ?, final = ?, tail = ?, size = ?, changed = ?"
            " WHERE num = ?",
            (end.state, end.final, head.tail, head.total, self.now(), head.num),
        )
        self.database.execute("UPDATE totals SET closed = closed + ?", (head.total,))

    def create(
        self,
        new: NewStream,
        records: Sequence[bytes],
        producer: str,
        charges: Sequence[Charge],
    ) -> Created:
        known = self._known(new)
        if known is not None:
            if known.owner != new.owner:
                raise StoreError(f"the id {new.id!r} is taken")
            return Created(known, fresh=False)
        self.charge(charges)
        self._insert(new, producer)
        head = self.head(new.id)
        self._extend(head, records)
        self._publish(new.id, head, records)
        self.flush()
        lease = Lease(new.id, producer, head.fence, head.tail) if producer else None
        return Created(rows.info(self.database, new.id), fresh=True, lease=lease)

    def _known(self, new: NewStream) -> StreamInfo | None:
        """Return the stream that was created with the same key or id."""
        self.flush()
        for where, values in (
            ("owner = ? AND key = ?", (new.owner, new.key or None)),
            ("id = ?", (new.id,)),
        ):
            row = self.database.execute(f"{rows.INFO} WHERE {where}", values).fetchone()
            if row is not None:
                return rows.info_of(row)
        return None

    def _insert(self, new: NewStream, producer: str) -> None:
        now, labels = self.now(), msgspec.json.encode(new.labels).decode()
        given = (new.id, new.owner, new.key or None, labels)
        self.database.execute(_INSERT, (*given, now, now, producer, int(bool(producer))))

    def charge(self, charges: Sequence[Charge]) -> None:
        """Check all limits, then add all amounts."""
        check_charges(charges)
        now = self.now()
        for charge in charges:
            if charge.limits:
                used = rows.usage(self.database, charge.counter, charge.window, now)
                check_limits(charge, used, now)
        self.database.executemany(
            _COUNT,
            [
                (charge.counter, charge.window, field, window_end(charge.window, now), amount)
                for charge in charges
                for field, amount in charge.amounts.items()
            ],
        )

    def cancel(self, stream: str) -> bool:
        head = self.head(stream)
        if head.end is None and not head.cancelled:
            head.cancelled = True
            self.database.execute("UPDATE streams SET cancelled = 1 WHERE num = ?", (head.num,))
        return head.end is None

    def delete(self, stream: str) -> int | None:
        """Delete a stream and its first records; its number if there are more."""
        num = self.head(stream).num
        self.remove(stream, num)
        return num if self.delete_records(num) == DELETE_ROWS else None

    def remove(self, stream: str, num: int) -> None:
        """Delete a stream. Its records are left without a stream, and deleted in small steps."""
        self.forget_heads([stream])
        row = "DELETE FROM streams WHERE num = ? RETURNING iif(state IS NULL, 0, size)"
        [(size,)] = self.database.execute(row, (num,)).fetchall()
        self.database.execute("UPDATE totals SET closed = closed - ?", (size,))
        self.database.execute("INSERT INTO deleted VALUES (?)", (num,))
        self.changes[stream] = Change(None)

    def delete_records(self, num: int, limit: int = DELETE_ROWS) -> int:
        """Delete some records of a deleted stream; how many. Fewer than `limit` were the last."""
        some = "(SELECT rowid FROM records WHERE stream = ? LIMIT ?)"
        query = f"DELETE FROM records WHERE rowid IN {some}"  # noqa: S608
        count = self.database.execute(query, (num, limit)).rowcount
        if count < limit:
            self.database.execute("DELETE FROM deleted WHERE num = ?", (num,))
        return count
