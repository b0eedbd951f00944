"""One connection to one Redis that is subscribed to the channels of all followed streams.

When it breaks, `failed` is called with the channels that were subscribed, and the reader connects
again by itself for those that are still wanted.
"""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

SILENCE = 10.0
"""Seconds without a message after which the server is pinged, and after as many more given up."""

_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.0)


class PubSubReader:
    """`heard(channel, data)` is called for each message, in the event loop; it returns whether
    the channel is still followed.
    """

    def __init__(
        self,
        connect: Callable[[], AbstractConnection],
        heard: Callable[[str, bytes], bool],
        failed: Callable[[list[str]], None],
    ) -> None:
        self._connect, self._heard, self._failed = connect, heard, failed
        self._wanted: dict[str, asyncio.Future[None]] = {}
        self._subscribed: set[str] = set()  # sent to the server
        self._awaited: Counter[str] = Counter()  # of that, how often it has yet to confirm
        self._changes: set[str] = set()
        self._changed = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._alive = True

    def __len__(self) -> int:
        return len(self._wanted)

    async def listen(self, channel: str, seconds: float) -> None:
        """Wait until a channel is subscribed. TimeoutError if the server is away for so long."""
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        if channel not in self._wanted:
            self._wanted[channel] = asyncio.get_running_loop().create_future()
            self._change(channel)
        async with asyncio.timeout(seconds):
            while (ready := self._wanted.get(channel)) is not None and not ready.done():
                await asyncio.wait((ready,))

    def leave(self, channel: str) -> None:
        """Unsubscribe from a channel."""
        ready = self._wanted.pop(channel, None)
        if ready is not None:
            ready.cancel()
            self._change(channel)

    async def close(self) -> None:
        """Disconnect."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        for ready in self._wanted.values():
            ready.cancel()

    def _change(self, channel: str) -> None:
        self._changes.add(channel)
        self._changed.set()

    async def _run(self) -> None:
        """Connect, and connect again, for as long as the store is open."""
        tries = 0
        while True:
            connection = self._connect()
            with contextlib.suppress(RedisError, OSError):
                await connection.connect()  # type: ignore[no-untyped-call]
                tries = 0
                await self._read(connection)
            with contextlib.suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)
            self._fail()
            pause = _PAUSES[min(tries, len(_PAUSES) - 1)]
            tries += 1
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311

    def _fail(self) -> None:
        """Mark all channels as not subscribed."""
        heard = [channel for channel, ready in self._wanted.items() if ready.done()]
        for channel in heard:
            self._wanted[channel] = asyncio.get_running_loop().create_future()
        self._failed(heard)

    async def _read(self, connection: AbstractConnection) -> None:
        """Read all messages, until the connection breaks."""
        self._subscribed, self._awaited, self._changes = set(), Counter(), {*self._wanted}
        self._changed.set()
        writer = asyncio.create_task(self._write(connection))
        try:
            while True:
                self._dispatch(await connection.read_response())
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    def _dispatch(self, message: list[bytes]) -> None:
        self._alive = True
        if message[0] == b"message":
            channel = message[1].decode()
            if not self._heard(channel, message[2]):
                self.leave(channel)
        elif message[0] == b"subscribe":
            channel = message[1].decode()
            self._awaited[channel] -= 1
            self._ready(channel)

    def _ready(self, channel: str) -> None:
        ready = self._wanted.get(channel)
        if ready is not None and not ready.done() and not self._awaited[channel]:
            del self._awaited[channel]
            ready.set_result(None)

    async def _write(self, connection: AbstractConnection) -> None:
        """Send changed subscriptions; in silence, ping the server, and disconnect if it is gone."""
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
                await connection.send_packed_command(
                    connection.pack_commands(self._pending_commands())
                )

    def _pending_commands(self) -> list[tuple[str, ...]]:
        """Return the changes as commands."""
        self._changed.clear()
        changes, self._changes = self._changes, set()
        come = [name for name in changes if name in self._wanted and name not in self._subscribed]
        gone = [name for name in changes if name not in self._wanted and name in self._subscribed]
        for name in changes.intersection(self._subscribed, self._wanted):
            self._ready(name)  # left, and wanted again before it was sent
        self._subscribed.update(come)
        self._subscribed.difference_update(gone)
        self._awaited.update(come)
        lists = (("UNSUBSCRIBE", *gone), ("SUBSCRIBE", *come))
        return [words for words in lists if len(words) > 1]
