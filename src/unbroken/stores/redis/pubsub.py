"""One connection to one Redis that listens to the channels of all followed streams.

When it breaks, `failed` is told which channels were heard there, and the listener comes back by
itself for those that are still wanted.
"""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from unbroken.stores.redis.pipeline import Connect

SILENCE = 10.0
"""Seconds without a word after which the server is asked whether it is there, and then given up."""

_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.0)


class Listener:
    """`heard(channel, data)` is called for each message, in the event loop; it returns whether
    anybody still wants to know.
    """

    def __init__(
        self,
        connect: Connect,
        heard: Callable[[str, bytes], bool],
        failed: Callable[[list[str]], None],
    ) -> None:
        self._connect, self._heard, self._failed = connect, heard, failed
        self._wanted: dict[str, asyncio.Future[None]] = {}
        self._told: set[str] = set()  # what the server was asked for
        self._awaited: Counter[str] = Counter()  # of that, how often it has yet to confirm
        self._changes: set[str] = set()
        self._changed = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._alive = True

    def __len__(self) -> int:
        return len(self._wanted)

    async def listen(self, channel: str, seconds: float) -> None:
        """Until it is listened to. TimeoutError if the server is away for so long."""
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        if channel not in self._wanted:
            self._wanted[channel] = asyncio.get_running_loop().create_future()
            self._change(channel)
        async with asyncio.timeout(seconds):
            while (ready := self._wanted.get(channel)) is not None and not ready.done():
                await asyncio.wait((ready,))

    def leave(self, channel: str) -> None:
        """Stop listening to it."""
        ready = self._wanted.pop(channel, None)
        if ready is not None:
            ready.cancel()
            self._change(channel)

    async def close(self) -> None:
        """Hang up."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        for ready in self._wanted.values():
            ready.cancel()

    def _change(self, channel: str) -> None:
        self._changes.add(channel)
        self._changed.set()

    async def _run(self) -> None:
        """Come back for as long as the store is open."""
        tries = 0
        while True:
            connection = self._connect()
            with contextlib.suppress(RedisError, OSError):
                await connection.connect()  # type: ignore[no-untyped-call]
                tries = 0
                await self._hear(connection)
            with contextlib.suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)
            self._fail()
            pause = _PAUSES[min(tries, len(_PAUSES) - 1)]
            tries += 1
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311

    def _fail(self) -> None:
        """Nothing is listened to at the moment."""
        heard = [channel for channel, ready in self._wanted.items() if ready.done()]
        for channel in heard:
            self._wanted[channel] = asyncio.get_running_loop().create_future()
        self._failed(heard)

    async def _hear(self, connection: AbstractConnection) -> None:
        """All that comes, until the connection breaks."""
        self._told, self._awaited, self._changes = set(), Counter(), {*self._wanted}
        self._changed.set()
        speaking = asyncio.create_task(self._speak(connection))
        try:
            while True:
                self._take(await connection.read_response())
        finally:
            speaking.cancel()
            await asyncio.gather(speaking, return_exceptions=True)

    def _take(self, said: list[bytes]) -> None:
        self._alive = True
        if said[0] == b"message":
            channel = said[1].decode()
            if not self._heard(channel, said[2]):
                self.leave(channel)
        elif said[0] == b"subscribe":
            channel = said[1].decode()
            self._awaited[channel] -= 1
            self._ready(channel)

    def _ready(self, channel: str) -> None:
        ready = self._wanted.get(channel)
        if ready is not None and not ready.done() and not self._awaited[channel]:
            del self._awaited[channel]
            ready.set_result(None)

    async def _speak(self, connection: AbstractConnection) -> None:
        """Say what changes; in silence, ask whether anybody is there, and hang up if not."""
        while True:
            try:
                async with asyncio.timeout(SILENCE):
                    await self._changed.wait()
            except TimeoutError:
                if not self._alive:
                    return await connection.disconnect(nowait=True)
                self._alive = False
                await connection.send_command("PING")
            else:
                await connection.send_packed_command(connection.pack_commands(self._due()))

    def _due(self) -> list[tuple[str, ...]]:
        """The changes as commands."""
        self._changed.clear()
        changes, self._changes = self._changes, set()
        come = [name for name in changes if name in self._wanted and name not in self._told]
        gone = [name for name in changes if name not in self._wanted and name in self._told]
        for name in changes.intersection(self._told, self._wanted):
            self._ready(name)  # left, and wanted again before anybody was told
        self._told.update(come)
        self._told.difference_update(gone)
        self._awaited.update(come)
        lists = (("UNSUBSCRIBE", *gone), ("SUBSCRIBE", *come))
        return [words for words in lists if len(words) > 1]
