"""Opening the SQLite file, its settings, and the translation of its errors."""

import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from msgspec import Struct

from unbroken.errors import StoreError
from unbroken.stores.sqlite.migrations import MIGRATIONS, migrate

APPLICATION = 0x756E6272  # "unbr", so that another program's file is not taken for ours
WAL_PAGES = 4000  # 16 MB: a stream's page of the index is written back once, not at each commit


class Settings(Struct, frozen=True):
    """How the file is used; see `SqliteStore`."""

    path: str
    synchronous: str = "full"
    busy: float = 10.0


@contextmanager
def translate_errors(settings: Settings) -> Iterator[None]:
    """Turn sqlite3's errors into StoreError: the one place for that.

    It raises TypeError and ValueError for values that no column takes, such as text with half a
    surrogate pair.
    """
    try:
        yield
    except (sqlite3.Error, TypeError, ValueError, OverflowError) as error:
        raise StoreError(f"{settings.path}: {error}", hint=_advice(error)) from error


def _advice(error: Exception) -> str:
    """Return what to do about an error, where that is known."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return {
        sqlite3.SQLITE_BUSY: "Another process holds the file for too long.",
        sqlite3.SQLITE_FULL: "The disk is full.",
        sqlite3.SQLITE_NOTADB: "Name another file.",
        sqlite3.SQLITE_READONLY: "The file and its directory must be writable.",
        sqlite3.SQLITE_CANTOPEN: "The file and its directory must be writable.",
    }.get(code, "")


def connect(settings: Settings, *, reader: bool = False) -> sqlite3.Connection:
    """Open a connection that any one thread may use; its transactions are explicit."""
    database = sqlite3.connect(
        settings.path, timeout=settings.busy, isolation_level=None, check_same_thread=False
    )
    database.execute(f"PRAGMA synchronous = {settings.synchronous}")
    database.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
    database.execute(f"PRAGMA journal_size_limit = {WAL_PAGES * 4096}")
    database.execute(f"PRAGMA query_only = {int(reader)}")
    return database


def open_database(settings: Settings) -> sqlite3.Connection:
    """Make the file if there is none, bring it to the newest version, and connect to it."""
    with translate_errors(settings):
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
    """Make the file with mode 0600; SQLite gives the same mode to its other files.

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
    """StoreError for a file that is not ours, or is newer than this program.

    In this order: a file that is used by now was signed in the same transaction.
    """
    used = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    application = database.execute("PRAGMA application_id").fetchone()[0]
    if used and application != APPLICATION:
        raise StoreError(f"{settings.path} is another program's file", hint="Name another file.")
    version = _version(database)
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{settings.path} was written by a newer unbroken: it has version {version}, this one"
            f" reads {len(MIGRATIONS)}",
            hint="Upgrade unbroken, or name another file.",
        )


def _use_wal(database: sqlite3.Connection, settings: Settings) -> None:
    """Set the journal mode, which stays. SQLite does not wait for the lock that this needs."""
    deadline = time.monotonic() + settings.busy
    mode = ""
    while mode != "wal":
        with suppress(sqlite3.OperationalError):  # locked: another process is setting it
            mode = database.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal" and time.monotonic() > deadline:
            raise StoreError(f"{settings.path} can't be used with a write-ahead log")
        time.sleep(0 if mode == "wal" else 0.01)


def _migrate(database: sqlite3.Connection, settings: Settings) -> None:
    """Migrate the file. Of several processes that start at once the first does it."""
    database.execute("BEGIN IMMEDIATE")
    _check(database, settings)
    migrate(database, _version(database))
    database.execute(f"PRAGMA application_id = {APPLICATION}")
    database.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    database.execute("COMMIT")
