"""What Redis does in one step: the scripts, in Lua, with commands that Redis 6.2 has.

A stream has three keys, all in one slot with the indexes of its shard:

    h   a hash: tail, size, fence, producer, ... (numbers and short words, so that it stays small)
    m   a string: what was given at its creation, and behind `ml` bytes what was given at its end
    s   the Redis Stream of records; the id of an entry is OFFSET-FENCE, its one field is `d`

A shard has sorted sets of streams: `open` has those that have or need a producer, by the number of
the process, or by minus the time of their release; `closed` by the time of their close; `all` and
one for each owner by number. Its hash `sum` has the bytes of all records and the last number, the
hash `stops` the process of each open stream that was asked to stop, and the hash `due` the charges
of closed streams whose counters are in other shards. A counter is a hash `c`: the end of its
window, and its fields. The hash `procs` of the first shard has the end of each heartbeat.

Numbers rise over all shards because they are the server's time, each shard having its own
remainder. Fences after the first are the server's time in milliseconds: if a fail-over forgets
who was made the producer, the next one does not get the same number again.

A call may come twice, when its answer was lost with a connection: `by` is the token of the last
call that changed the log, and the same token gets the same answer.

A script answers with a list that begins with a word: `ok`, or what was wrong.
"""

from unbroken.stores.redis.scripts.index import (
    AGREE,
    CHARGE,
    CLAIM,
    CONVERT,
    DUE,
    GET,
    LIST,
    OLD,
    PUT,
    SETTLED,
    UNCLAIM,
    USAGE,
)
from unbroken.stores.redis.scripts.log import (
    APPEND,
    CANCEL,
    CLOSE,
    CREATE,
    HEAD,
    INFO,
    LABELS,
    READ,
    REMOVE,
    ROWS,
)
from unbroken.stores.redis.scripts.lua import Script
from unbroken.stores.redis.scripts.processes import (
    ADOPT,
    ATTEND,
    BEAT,
    FENCE,
    LOCK,
    PROCESSES,
    RANGES,
    RELEASE,
    RETIRE,
    STOPS,
)

ALL = tuple(found for found in globals().values() if isinstance(found, Script))

__all__ = [
    "ADOPT",
    "AGREE",
    "ALL",
    "APPEND",
    "ATTEND",
    "BEAT",
    "CANCEL",
    "CHARGE",
    "CLAIM",
    "CLOSE",
    "CONVERT",
    "CREATE",
    "DUE",
    "FENCE",
    "GET",
    "HEAD",
    "INFO",
    "LABELS",
    "LIST",
    "LOCK",
    "OLD",
    "PROCESSES",
    "PUT",
    "RANGES",
    "READ",
    "RELEASE",
    "REMOVE",
    "RETIRE",
    "ROWS",
    "SETTLED",
    "STOPS",
    "UNCLAIM",
    "USAGE",
    "Script",
]
