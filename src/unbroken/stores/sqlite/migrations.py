"""The versions of the SQLite file.

Records are one plain rowid table, appended at its end, with a small index: a table clustered by
stream would touch one page a stream in each commit (measured: more than twice the time). A row
is what one `append` brought: its records joined, their sizes beside them, the offset behind the
last one and the bytes of the stream up to there, so that neither tail nor size is stored twice
while a stream is open. When it is closed both are copied to its row, where lists are read.
"""

import sqlite3
import time

import msgspec

# One script a version of the file; what is released is never changed, only added to.
MIGRATIONS = (
    """
    CREATE TABLE streams (
        num INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        owner TEXT NOT NULL,
        key TEXT,
        labels TEXT NOT NULL,
        created REAL NOT NULL,
        changed REAL NOT NULL,
        producer TEXT NOT NULL DEFAULT '',
        fence INTEGER NOT NULL DEFAULT 0,
        expires REAL NOT NULL DEFAULT 0,
        cancelled INTEGER NOT NULL DEFAULT 0,
        state TEXT,
        final BLOB,
        size INTEGER
    );
    CREATE UNIQUE INDEX streams_key ON streams(owner, key) WHERE key IS NOT NULL;
    CREATE INDEX streams_owner ON streams(owner);
    CREATE INDEX streams_open ON streams(expires) WHERE state IS NULL;
    CREATE INDEX streams_closed ON streams(changed) WHERE state IS NOT NULL;
    CREATE TABLE records (
        stream INTEGER NOT NULL,
        last INTEGER NOT NULL,
        total INTEGER NOT NULL,
        sizes BLOB,
        data BLOB NOT NULL
    );
    CREATE UNIQUE INDEX records_of ON records(stream, last);
    """,
    "ALTER TABLE streams ADD COLUMN attended REAL NOT NULL DEFAULT 0",
    # Heartbeats of processes instead of leases of streams; counters; deletion in small steps.
    # `deleted` has the numbers of streams whose records are still to be deleted.
    """
    DROP INDEX streams_open;
    ALTER TABLE streams RENAME COLUMN expires TO released;
    ALTER TABLE streams ADD COLUMN takeovers INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE streams ADD COLUMN tail INTEGER;
    UPDATE streams SET tail = ifnull((SELECT max(last) FROM records WHERE stream = num), 0)
        WHERE state IS NOT NULL;
    UPDATE streams SET producer = '', fence = 0, released = 0
        WHERE state IS NULL AND producer = 'keys';
    CREATE INDEX streams_open ON streams(producer, fence) WHERE state IS NULL;
    CREATE INDEX streams_cancelled ON streams(producer) WHERE state IS NULL AND cancelled = 1;
    CREATE TABLE processes (name TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID;
    CREATE TABLE locks (
        name TEXT PRIMARY KEY,
        holder TEXT NOT NULL,
        until REAL NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE counters (
        name TEXT NOT NULL,
        window TEXT NOT NULL,
        field TEXT NOT NULL,
        until INTEGER NOT NULL,
        value INTEGER NOT NULL,
        PRIMARY KEY (name, window, field)
    ) WITHOUT ROWID;
    CREATE INDEX counters_until ON counters(until);
    CREATE TABLE deleted (num INTEGER PRIMARY KEY);
    CREATE TABLE totals (closed INTEGER NOT NULL);
    INSERT INTO totals SELECT ifnull(sum(size), 0) FROM streams WHERE state IS NOT NULL
    """,
)
_ACCOUNTS = "_spent"  # the owner of the streams that version 2 kept accounts in, one a key and day
_DAY = 86_400


def migrate(database: sqlite3.Connection, version: int) -> None:
    """Bring a file of some version to the newest one, within a transaction."""
    for number, script in enumerate(MIGRATIONS[version:], version + 1):
        for statement in script.split(";"):
            database.execute(statement)
        if number == 3:
            _convert_accounts(database)


def _convert_accounts(database: sqlite3.Connection) -> None:
    """Make counters of today's accounts, so that an upgrade gives no key a second day."""
    today = int(time.time()) // _DAY
    for num, id in database.execute(
        "SELECT num, id FROM streams WHERE owner = ?", (_ACCOUNTS,)
    ).fetchall():
        counter, _, day = id.rpartition("_")
        if day == str(today):
            used = _used(database, num)
            rows = [(counter, "day", field, (today + 1) * _DAY, n) for field, n in used.items()]
            database.executemany("INSERT INTO counters VALUES (?, ?, ?, ?, ?)", rows)
        database.execute("DELETE FROM streams WHERE num = ?", (num,))
        database.execute("INSERT INTO deleted VALUES (?)", (num,))


def _used(database: sqlite3.Connection, num: int) -> dict[str, int]:
    """Sum up an account: JSON objects with requests, tokens and USD, one after the other."""
    sums = {"requests": 0.0, "tokens": 0.0, "usd": 0.0}
    for (data,) in database.execute("SELECT data FROM records WHERE stream = ?", (num,)):
        for entry in msgspec.json.decode(b"[%b]" % data.replace(b"}{", b"},{")):
            for field, amount in entry.items():
                sums[field] += amount
    return {field: round(n * 1e6 if field == "usd" else n) for field, n in sums.items()}
