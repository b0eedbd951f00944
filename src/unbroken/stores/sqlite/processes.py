"""The writer's work for processes: heartbeats, adoption, locks, and retention."""

from unbroken.stores.base import PROCESS_MEMORY, PRUNE_BATCH, Heartbeat, Lease, Pruned
from unbroken.stores.sqlite import rows
from unbroken.stores.sqlite.log import DELETE_ROWS, Log

_MINE = "FROM streams WHERE state IS NULL AND producer = ?"
_CANCELLED = f"SELECT id {_MINE} AND cancelled = 1"
_HELD = f"SELECT id, fence {_MINE}"
_KNOWN = f"SELECT 1 FROM processes WHERE name = ?1 UNION ALL SELECT 1 {_MINE}1 LIMIT 1"  # noqa: S608
_BEAT = "INSERT INTO processes VALUES (?, ?) ON CONFLICT DO UPDATE SET until = excluded.until"
_CLAIM = """
    INSERT INTO locks VALUES (:name, :process, :until)
    ON CONFLICT DO UPDATE SET holder = excluded.holder, until = excluded.until
    WHERE holder = excluded.holder OR until <= :now
"""
_CLOSED = "SELECT id, num, size FROM streams WHERE state IS NOT NULL"
_OPEN_BYTES = f"SELECT ifnull(sum({rows.SIZE}), 0) FROM streams WHERE state IS NULL"  # noqa: S608
_DEAD = """
    DELETE FROM processes WHERE until <= ?
    AND NOT EXISTS (SELECT 1 FROM streams WHERE state IS NULL AND producer = name)
"""


def heartbeat(log: Log, process: str, seconds: float) -> Heartbeat:
    known = log.database.execute(_KNOWN, (process,)).fetchone() is not None
    lapsed = known and not _alive(log, process)
    log.database.execute(_BEAT, (process, log.now() + seconds))
    cancelled = log.database.execute(_CANCELLED, (process,)).fetchall()
    held = log.database.execute(_HELD, (process,)).fetchall() if lapsed else []
    return Heartbeat(lapsed, [id for (id,) in cancelled], dict(held))


def _alive(log: Log, process: str) -> bool:
    fresh = "SELECT 1 FROM processes WHERE name = ? AND until > ?"
    return log.database.execute(fresh, (process, log.now())).fetchone() is not None


def adopt(log: Log, process: str, limit: int) -> list[Lease]:
    if not _alive(log, process):
        return []
    streams = rows.orphans(log.database, log.now(), limit)
    return [_take_over(log, stream, process) for stream in streams]


def _take_over(log: Log, stream: str, process: str) -> Lease:
    head = log.head(stream)
    head.fence += 1
    [(head.takeovers,)] = log.database.execute(
        "UPDATE streams SET fence = ?, takeovers = takeovers + (producer != ''), producer = ?"
        " WHERE num = ? RETURNING takeovers",
        (head.fence, process, head.num),
    ).fetchall()
    return Lease(stream, process, head.fence, head.tail, head.cancelled, head.takeovers)


def release_all(log: Log, process: str) -> int:
    streams = [id for id, _ in log.database.execute(_HELD, (process,))]
    log.forget_heads(streams)
    log.database.execute(
        "UPDATE streams SET producer = '', fence = fence + 1, released = ?"
        " WHERE state IS NULL AND producer = ?",
        (log.now(), process),
    )
    log.database.execute("DELETE FROM processes WHERE name = ?", (process,))
    return len(streams)


def claim(log: Log, name: str, process: str, seconds: float) -> bool:
    given = {"name": name, "process": process, "until": log.now() + seconds, "now": log.now()}
    return log.database.execute(_CLAIM, given).rowcount > 0


def ping(log: Log) -> None:
    claim(log, "ping", "", 0.0)


def announce_readers(log: Log, streams: list[str], seconds: float) -> None:
    until = log.now() + seconds
    log.database.executemany(
        "UPDATE streams SET attended = max(attended, ?) WHERE id = ?",
        [(until, stream) for stream in streams],
    )


def prune(log: Log, age: float | None, size: int | None) -> Pruned:
    """Do one step: records of deleted streams first, then streams, then what else is old."""
    log.flush()
    if _delete_some_records(log):
        return Pruned(0, more=True)
    old = _too_old(log, age) if age is not None else []
    if not old and size is not None:
        old = _too_much(log, size)
    for stream, num in old:
        log.remove(stream, num)
    return Pruned(len(old), more=bool(old) or _forget_some(log))


def _delete_some_records(log: Log) -> int:
    room = DELETE_ROWS
    for (num,) in log.database.execute(
        "SELECT num FROM deleted LIMIT ?", (PRUNE_BATCH,)
    ).fetchall():
        if room > 0:
            room -= log.delete_records(num, room)
    return DELETE_ROWS - room


def _too_old(log: Log, age: float) -> list[tuple[str, int]]:
    before = log.now() - age
    closed = log.database.execute(
        "SELECT id, num FROM streams WHERE state IS NOT NULL AND changed <= ? LIMIT ?",
        (before, PRUNE_BATCH),
    ).fetchall()
    return closed or rows.old_orphans(log.database, log.now(), before, PRUNE_BATCH)


def _too_much(log: Log, size: int) -> list[tuple[str, int]]:
    """Return the oldest closed streams, while all streams together are too large."""
    [(closed,)] = log.database.execute("SELECT closed FROM totals").fetchall()
    [(open_,)] = log.database.execute(_OPEN_BYTES).fetchall()
    excess, old = closed + open_ - size, []
    oldest = log.database.execute(f"{_CLOSED} ORDER BY changed LIMIT ?", (PRUNE_BATCH,))
    for stream, num, bytes_ in oldest.fetchall():
        if excess <= 0:
            break
        excess -= bytes_
        old.append((stream, num))
    return old


def _forget_some(log: Log) -> bool:
    """Forget counters of old windows and dead processes; whether there may be more."""
    keys = "SELECT name, window, field FROM counters WHERE until <= ? LIMIT ?"
    query = f"DELETE FROM counters WHERE (name, window, field) IN ({keys})"  # noqa: S608
    count = log.database.execute(query, (log.now(), DELETE_ROWS)).rowcount
    log.database.execute(_DEAD, (log.now() - PROCESS_MEMORY,))
    return count == DELETE_ROWS
