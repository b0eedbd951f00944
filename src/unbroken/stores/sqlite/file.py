"""The SQLite file: its tables, its settings, and what its errors mean here.

Records are one plain rowid table, appended at its end, with a small index: a table clustered by
stream would touch one page a stream in each commit (measured: more than twice the time). A row
is what one `append` brought: its records joined, their sizes beside them, the offset behind the
last one and the bytes of the stream up to there, so that neither tail nor size is stored twice.
"""

import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from msgspec import Struct

from unbroken.errors import StoreError

APPLICATION = 0x756E6272  # "unbr", so that another program's file is not taken for ours
WAL_PAGES = 4000  # 16 MB: a stream's page of the index is written back once, not at each commit

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
)


class Settings(Struct, frozen=True):
    """How the file is used; see `sqlite.SqliteStore`."""

    path: str
    synchronous: str = "full"
    busy: float = 10.0


@contextmanager
def told(settings: Settings) -> Iterator[None]:
    """The one place where sqlite3's errors become ours.

    TypeError and ValueError are what it says to values that no column takes, such as text with
    half a surrogate pair.
    """
    try:
        yield
    except (sqlite3.Error, TypeError, ValueError, OverflowError) as error:
        raise StoreError(f"{settings.path}: {error}", hint=_advice(error)) from error


def _advice(error: Exception) -> str:
    """What to do about it, where that is known."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return {
        sqlite3.SQLITE_BUSY: "Another process holds the file for too long.",
        sqlite3.SQLITE_FULL: "The disk is full.",
        sqlite3.SQLITE_NOTADB: "Name another file.",
        sqlite3.SQLITE_READONLY: "The file and its directory must be writable.",
        sqlite3.SQLITE_CANTOPEN: "The file and its directory must be writable.",
    }.get(code, "")


def connect(settings: Settings, *, reader: bool = False) -> sqlite3.Connection:
    """A connection that any one thread may use, with every transaction begun by hand."""
    database = sqlite3.connect(
        settings.path, timeout=settings.busy, isolation_level=None, check_same_thread=False
    )
    database.execute(f"PRAGMA synchronous = {settings.synchronous}")
    database.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
    database.execute(f"PRAGMA journal_size_limit = {WAL_PAGES * 4096}")
    database.execute(f"PRAGMA query_only = {int(reader)}")
    return database


def prepare(settings: Settings) -> sqlite3.Connection:
    """Make the file if there is none, bring it to the newest version, and connect to it."""
    with told(settings):
        _touch(settings)
        database = connect(settings)
        try:
            _check(database, settings)
            _use_wal(database, settings)
            _migrate(database, settings)
        except BaseException:
            database.close()
            raise
    return database


def _touch(settings: Settings) -> None:
    """Prompts are nobody else's business: SQLite gives its other files the mode of the first.

    The new file is not opened under its own name: closing it would end the locks that another
    store in this process may have on it already (sqlite.org/howtocorrupt.html, section 2.2).
    """
    path = Path(settings.path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            return
        handle, empty = tempfile.mkstemp(dir=path.parent)  # mode 0600
        os.close(handle)
        with suppress(FileExistsError):  # another process was faster
            os.link(empty, path)
        Path(empty).unlink()
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error


def _version(database: sqlite3.Connection) -> int:
    return int(database.execute("PRAGMA user_version").fetchone()[0])


def _check(database: sqlite3.Connection, settings: Settings) -> None:
    """Leave alone what is not ours or is newer than we are.

    In this order: a file that is used by now was signed in the same transaction.
    """
    used = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    application = database.execute("PRAGMA application_id").fetchone()[0]
    if used and application != APPLICATION:
        raise StoreError(f"{settings.path} is another program's file", hint="Name another file.")
    version = _version(database)
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{settings.path} has version {version}; this program knows {len(MIGRATIONS)}",
            hint="Upgrade unbroken, or name another file.",
        )


def _use_wal(database: sqlite3.Connection, settings: Settings) -> None:
    """Once set it stays; setting it asks for the file alone, and does not wait for it itself."""
    deadline = time.monotonic() + settings.busy
    mode = ""
    while mode != "wal":
        with suppress(sqlite3.OperationalError):  # locked: another process is setting it
            mode = database.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal" and time.monotonic() > deadline:
            raise StoreError(f"{settings.path} can't be used with a write-ahead log")
        time.sleep(0 if mode == "wal" else 0.01)


def _migrate(database: sqlite3.Connection, settings: Settings) -> None:
    """Several processes may start at once: the first does it, the others find it done."""
    database.execute("BEGIN IMMEDIATE")
    _check(database, settings)
    for script in MIGRATIONS[_version(database) :]:
        for statement in script.split(";"):
            database.execute(statement)
    database.execute(f"PRAGMA application_id = {APPLICATION}")
    database.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    database.execute("COMMIT")
