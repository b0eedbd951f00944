"""Streams in one SQLite file; see `store`."""

from unbroken.stores.sqlite.store import SqliteStore, from_url

__all__ = ["SqliteStore", "from_url"]
