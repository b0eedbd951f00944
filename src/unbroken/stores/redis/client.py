"""Calling Redis until it answers: the one place that waits for a server that is away.

Every call may be repeated: scripts that change a log know a call by its token, the others change
nothing the second time.
"""

import asyncio
import itertools
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from unbroken.errors import StoreError
from unbroken.stores.base import Clock
from unbroken.stores.redis.nodes import Nodes, Settings, Shard, shards_of
from unbroken.stores.redis.pipeline import ConnectionLost
from unbroken.stores.redis.scripts import AGREE, Script

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0  # seconds between two tries


class RetryingClient:
    """`moved` is called when a cluster's slots are found at other servers than before.

    `clock` is the server's own unless one is given, for tests.
    """

    def __init__(
        self, settings: Settings, moved: Callable[[], None], clock: Clock | None = None
    ) -> None:
        self.nodes = Nodes(settings)
        self.last_error_at = -1e9
        self.closed = True
        self._settings, self._moved, self._clock = settings, moved, clock
        self._name, self._numbers = secrets.token_hex(4), itertools.count()

    @property
    def last_outage_at(self) -> float:
        """When an answer or a connection was last found to be lost."""
        return max(self.last_error_at, *(node.reconnected_at for node in self.nodes.all))

    def now(self) -> str:
        """Return the time as scripts take it; empty for the server's own."""
        return "" if self._clock is None else repr(self._clock())

    def token(self) -> str:
        """Return a name for a call, by which a script knows it if it comes twice."""
        return f"{self._name}{next(self._numbers)}"

    async def open(self) -> None:
        """Find the servers, and agree with other processes on the number of shards."""
        self.closed = False
        await self._until_answered(lambda: self.nodes.refresh_topology())
        if not self._settings.cluster:
            return
        first = shards_of(self._settings, 1)[0]
        asked = await self.run(first, AGREE, [first.key("shards")], self._settings.shards)
        self.nodes.shards = shards_of(self._settings, int(asked[1]))

    async def close(self) -> None:
        """Disconnect, when all calls are answered."""
        self.closed = True
        await self.nodes.close()

    async def run(
        self, shard: Shard, script: Script, keys: Sequence[str], *arguments: str | bytes | int
    ) -> Any:
        """Run a script that may write. StoreError if no server answers in time."""
        return await self._until_answered(
            lambda: self.nodes.node(shard).writes.run(script, keys, *arguments)
        )

    async def read(
        self, shard: Shard, script: Script, keys: Sequence[str], *arguments: str | bytes | int
    ) -> Any:
        """Run a script that only reads."""
        return await self._until_answered(
            lambda: self.nodes.node(shard).reads.run(script, keys, *arguments)
        )

    async def each(self, *command: str) -> list[Any]:
        """Send a command to every known server."""
        return [
            await self._until_answered(lambda node=node: node.reads.do(*command))  # type: ignore[misc]
            for node in self.nodes.all
        ]

    async def _until_answered(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        until, pause = time.monotonic() + self._settings.patience, _FIRST_PAUSE
        while not self.closed:
            try:
                return await ask()
            except ConnectionLost as lost:
                self.last_error_at = time.monotonic()
                if self.last_error_at + pause > until:
                    raise StoreError(
                        f"Redis was away for {self._settings.patience:g} s: {lost}"
                    ) from lost
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(pause * 2, _LONGEST_PAUSE)
            await self.refresh_topology()
        raise StoreError("the store is closed", hint="Use it within `async with`.")

    async def refresh_topology(self) -> None:
        """Ask a cluster which server has which slots."""
        try:
            changed = await self.nodes.refresh_topology()
        except ConnectionLost:
            return  # the next try says so
        if changed:
            self._moved()
