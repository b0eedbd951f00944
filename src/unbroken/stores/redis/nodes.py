"""The servers of a store, the shards that they hold, and the connections to them.

The streams of a store are distributed over shards by a hash of their id. All keys of a shard carry
its tag in braces, so they are in one slot of a cluster and one script may touch them all. A single
server has one shard; a cluster 16, spread evenly over its slots, or as many as the first process
that opens the store is configured for: it stores the number for all others.
"""

import itertools
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from zlib import crc32

from msgspec import Struct
from redis.asyncio import Redis
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    ConnectionPool,
    parse_url,
)
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from unbroken.errors import ConfigurationError
from unbroken.stores.counters import encode_utf8
from unbroken.stores.redis.pipeline import BatchingConnection, ConnectionLost, load_scripts

SHARDS = 16
"""Of a cluster, unless its first process is configured otherwise: more than it has nodes."""

Address: TypeAlias = tuple[str, int]


class Settings(Struct, frozen=True, kw_only=True):
    """One Redis. `patience`: seconds that a call waits for a server that is away; `batch_window`:
    seconds that a write waits for others, if there was one just before: a round trip costs both
    sides more than the append that it carries.
    """

    url: str
    cluster: bool = False
    prefix: str = "unbroken"
    shards: int = SHARDS
    replicas: int = 0
    patience: float = 30.0
    batch_window: float = 0.002


def settings_of(url: str) -> Settings:
    """Read a URL; ConfigurationError if it is wrong."""
    parts = urlsplit(url)
    scheme, _, kind = parts.scheme.partition("+")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    own: dict[str, Any] = {"cluster": kind == "cluster"}
    try:
        for name, read in _OPTIONS.items():
            if name in query:
                own["batch_window" if name == "gather" else name] = read(query.pop(name))
        plain = scheme.replace("valkey", "redis")
        address = urlunsplit((plain, parts.netloc, parts.path, urlencode(query), ""))
        settings = Settings(url=address, **own)
        _checked(settings, kind, plain)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"the URL of the store can't be read: {error}",
            hint="Write redis://[[user]:password@]host[:6379][/0], rediss:// for TLS, "
            "redis+cluster:// for a cluster.",
        ) from error
    return settings


_OPTIONS: Mapping[str, Callable[[str], object]] = {
    "prefix": str,
    "shards": int,
    "replicas": int,
    "patience": float,
    "batch_window": float,
    "gather": float,  # the former name, deprecated
}


def _checked(settings: Settings, kind: str, scheme: str) -> None:
    """Raise ValueError or TypeError if no connection can be made with them."""
    if kind not in {"", "cluster"}:
        raise ValueError(f"there is no kind {kind!r}")
    if scheme not in {"redis", "rediss"}:
        raise ValueError(f"there is no scheme {scheme!r}")
    if (
        min(settings.shards, settings.patience) <= 0
        or min(settings.replicas, settings.batch_window) < 0
    ):
        raise ValueError(
            "shards and patience must be more than 0, replicas and batch_window not less"
        )
    if "{" in settings.prefix:
        raise ValueError("a prefix has no braces")
    Node(settings, None).connect()


def _connection_options(settings: Settings, address: Address | None = None) -> dict[str, Any]:
    """Return redis-py's options for the server of the URL, or for another of its cluster."""
    options: dict[str, Any] = dict(parse_url(settings.url))
    options.setdefault("connection_class", Connection)
    options |= {"socket_timeout": None, "protocol": 2, "socket_keepalive": True}
    options.setdefault("socket_connect_timeout", 3.0)
    if address is not None:
        options |= {"host": address[0], "port": address[1]}
    return options


class Node:
    """One server: a connection to write, one to read, so that no long page delays an append."""

    def __init__(self, settings: Settings, address: Address | None) -> None:
        self.address = address
        self.reconnected_at = -1e9
        self._connected: set[int] = set()
        self._options = _connection_options(settings, address)
        self.writes = BatchingConnection(self._client(), settings.batch_window, settings.replicas)
        self.reads = BatchingConnection(self._client())

    def _client(self) -> Redis:
        # Calls are retried by `client`, which knows for how long.
        retry = Retry(NoBackoff(), 0)
        pool = ConnectionPool(**self._options, retry=retry, redis_connect_func=self._on_connect)
        return Redis(connection_pool=pool)

    async def _on_connect(self, connection: AbstractConnection) -> None:
        # redis-py makes a connection anew that it finds broken: that was an outage as well.
        if id(connection) in self._connected:
            self.reconnected_at = time.monotonic()
        self._connected.add(id(connection))
        await load_scripts(connection)

    def connect(self) -> AbstractConnection:
        """Return a connection of its own, for subscriptions."""
        options = dict(self._options)
        made: AbstractConnection = options.pop("connection_class")(**options)
        return made

    async def close(self) -> None:
        """Disconnect, when all calls are answered."""
        await self.writes.close()
        await self.reads.close()


class Shard(Struct, frozen=True):
    """A shard: the beginning of all its keys, and their slot."""

    number: int
    tag: str
    slot: int

    def key(self, kind: str, name: str = "") -> str:
        """Return the key of something in this shard."""
        return f"{self.tag}{kind}:{name}"


def shards_of(settings: Settings, count: int) -> list[Shard]:
    """Return shards whose slots are spread evenly."""
    found: list[Shard] = []
    for number in itertools.count():
        tag = f"{settings.prefix}:{{{number}}}:"
        slot = key_slot(tag.encode())
        if slot * count // REDIS_CLUSTER_HASH_SLOTS == len(found):
            found.append(Shard(len(found), tag, slot))
        if len(found) == count:
            return found
    raise AssertionError


class Nodes:
    """All servers of a store. One, or the masters of a cluster."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._seed = Node(settings, None)
        self._nodes: dict[Address | None, Node] = {None: self._seed}
        self._slots: list[tuple[int, int, Address]] = []
        self._asked = -1.0
        self.shards = shards_of(settings, settings.shards if settings.cluster else 1)

    @property
    def all(self) -> list[Node]:
        """All servers that are connected."""
        return [*self._nodes.values()]

    def shard(self, name: str) -> Shard:
        """Return the shard of a name. StoreError for text that can't be encoded."""
        return self.shards[crc32(encode_utf8(name)) % len(self.shards)]

    def node(self, shard: Shard) -> Node:
        """Return the server of a shard, as far as it is known."""
        return self.node_for_slot(shard.slot)

    def node_for_slot(self, slot: int) -> Node:
        """Return the server of a slot. ConnectionLost if none is known for it."""
        if not self._settings.cluster:
            return self._seed
        for first, last, address in self._slots:
            if first <= slot <= last:
                return self._node(address)
        raise ConnectionLost(f"no server has slot {slot}")

    def _node(self, address: Address) -> Node:
        if address not in self._nodes:
            self._nodes[address] = Node(self._settings, address)
        return self._nodes[address]

    async def refresh_topology(self) -> bool:
        """Ask any server of a cluster which server has which slots. Whether that has changed.

        ConnectionLost if none answers.
        """
        if not self._settings.cluster or time.monotonic() < self._asked + 0.2:
            return False
        self._asked = time.monotonic()
        known = [address for address in self._nodes if address is not None]
        for address in [*random.sample(known, len(known)), None]:
            try:
                rows = await self._nodes[address].reads.do("CLUSTER", "SLOTS")
            except ConnectionLost:
                continue
            before, self._slots = (
                self._slots,
                sorted(_range(row, self._seed_host()) for row in rows),
            )
            return before != self._slots
        raise ConnectionLost("no server of the cluster answers")

    def _seed_host(self) -> str:
        return str(parse_url(self._settings.url).get("host", "localhost"))

    async def close(self) -> None:
        """Disconnect from all servers."""
        for node in self._nodes.values():
            await node.close()


def _range(row: list[Any], host: str) -> tuple[int, int, Address]:
    """Read a row of CLUSTER SLOTS: first, last, the master, its replicas.

    A master that does not know its own name leaves it empty: it is the one that was asked.
    """
    first, last, master = row[0], row[1], row[2]
    return first, last, (master[0].decode() or host, master[1])
