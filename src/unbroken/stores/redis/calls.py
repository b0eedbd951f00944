"""Asking Redis until it answers: the one place that waits for a server that is away.

Every call may be repeated: scripts that change a log know a call by its token, the others change
nothing the second time.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from unbroken.errors import StoreError
from unbroken.stores.redis.pipeline import Lost
from unbroken.stores.redis.nodes import Nodes, Settings, Shard, shards_of
from unbroken.stores.redis.scripts import AGREE, Script

_FIRST, _LONGEST = 0.05, 1.0  # seconds between two tries


class Calls:
    """`moved` is called when a cluster's slots are found at other servers than before."""

    def __init__(self, settings: Settings, moved: Callable[[], None]) -> None:
        self.nodes = Nodes(settings)
        self.troubled = -1e9  # when an answer was lost last
        self.closed = True
        self._settings, self._moved = settings, moved

    async def open(self) -> None:
        """Find the servers, and agree with other processes on the number of shards."""
        self.closed = False
        await self._until_answered(lambda: self.nodes.look())
        if not self._settings.cluster:
            return
        first = shards_of(self._settings, 1)[0]
        asked = await self.run(first, AGREE, [first.key("shards")], self._settings.shards)
        self.nodes.shards = shards_of(self._settings, int(asked[1]))

    async def close(self) -> None:
        """Hang up, when what was asked is answered."""
        self.closed = True
        await self.nodes.close()

    async def run(
        self, shard: Shard, script: Script, keys: Sequence[str], *arguments: str | bytes | int
    ) -> Any:
        """What a script answers that may write. StoreError if nobody answers in time."""
        return await self._until_answered(
            lambda: self.nodes.node(shard).writes.run(script, keys, *arguments)
        )

    async def read(
        self, shard: Shard, script: Script, keys: Sequence[str], *arguments: str | bytes | int
    ) -> Any:
        """What a script answers that only reads."""
        return await self._until_answered(
            lambda: self.nodes.node(shard).reads.run(script, keys, *arguments)
        )

    async def each(self, *command: str) -> list[Any]:
        """What every known server answers."""
        return [
            await self._until_answered(lambda node=node: node.reads.do(*command))  # type: ignore[misc]
            for node in self.nodes.all
        ]

    async def _until_answered(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        until, pause = time.monotonic() + self._settings.patience, _FIRST
        while not self.closed:
            try:
                return await ask()
            except Lost as lost:
                self.troubled = time.monotonic()
                if self.troubled + pause > until:
                    raise StoreError(
                        f"Redis was away for {self._settings.patience:g} s: {lost}"
                    ) from lost
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(pause * 2, _LONGEST)
            await self.look()
        raise StoreError("the store is closed", hint="Use it within `async with`.")

    async def look(self) -> None:
        """Ask a cluster who serves what; whoever follows is told if that has changed."""
        try:
            changed = await self.nodes.look()
        except Lost:
            return  # the next try says so
        if changed:
            self._moved()
