"""Following what other processes write.

A watch is *live* when its channel is subscribed and its head was read since; what happens then is
published to it. When the connection breaks it is live no more, and its waiters make it so again,
all waiters of a stream together.
"""

import asyncio
import time

from unbroken.errors import OffsetUnknown, StoreError, StreamMissing
from unbroken.stores.base import Clock, Offset, Page
from unbroken.stores.redis.client import RetryingClient
from unbroken.stores.redis.nodes import Node, Settings
from unbroken.stores.redis.pipeline import ConnectionLost
from unbroken.stores.redis.pubsub import PubSubReader
from unbroken.stores.redis.rows import head_of
from unbroken.stores.redis.scripts import HEAD
from unbroken.stores.redis.watch import Message, Watch, Watches, message

REPLAY_GRACE = 5.0
"""Seconds that a producer has to write again what Redis has lost, before readers get an error."""


class FollowerCache:
    """The followed streams of a process."""

    def __init__(self, settings: Settings, clock: Clock | None) -> None:
        self.client = RetryingClient(settings, self.moved, clock)
        self._patience = settings.patience
        self._watches = Watches(self._leave)
        self._readers: dict[Node, PubSubReader] = {}
        self._streams: dict[str, str] = {}  # of the channels
        self._subscriptions: dict[str, tuple[PubSubReader, str]] = {}  # of the streams
        self._refreshing: dict[str, asyncio.Task[None]] = {}

    async def close(self) -> None:
        """Wake all waiters, and disconnect."""
        await self.client.close()
        for reader in self._readers.values():
            await reader.close()
        self._readers.clear()
        self._watches.fail([*self._subscriptions])
        self._subscriptions.clear()
        await asyncio.gather(*self._refreshing.values(), return_exceptions=True)

    def moved(self) -> None:
        """Subscribe where the streams are now, after slots of a cluster have moved."""
        for stream, (reader, _) in [*self._subscriptions.items()]:
            if self._reader(stream) is not reader:
                self._leave(stream)
                self._watches.fail([stream])

    def page(self, stream: str, after: Offset, limit: int) -> Page | None:
        """Return a page from memory; None if Redis has to be asked."""
        watch = self._watches.get(stream)
        return None if watch is None else watch.page(after, limit)

    def wrote(self, stream: str, heard: Message) -> None:
        """Take in what this process has appended, sooner than it is published to it."""
        watch = self._watches.get(stream)
        if watch is not None:
            watch.hear(heard)

    def removed(self, stream: str) -> None:
        """Take in that this process has deleted a stream."""
        watch = self._watches.get(stream)
        if watch is not None:
            watch.hear(Message(b"g"))
            self._forget(stream, watch)

    async def wait(self, stream: str, after: Offset, seconds: float) -> bool:
        """Wait for a record behind `after`, or the end."""
        with self._watches.acquire(stream) as watch:
            await self._wait(stream, watch, after, seconds)
            if not watch.has_more(after):  # a message may get lost between servers of a cluster
                await self._catch_up(stream, watch)
            return watch.has_more(after)

    async def _wait(self, stream: str, watch: Watch, after: Offset, seconds: float) -> None:
        until, missed = time.monotonic() + seconds, time.monotonic() + REPLAY_GRACE
        await self._ensure_current(stream, watch, after)
        while not watch.has_more(after) and (left := until - time.monotonic()) > 0:
            if watch.tail < after:
                left = min(left, missed - time.monotonic())
            await watch.followers.wait(left)
            if time.monotonic() > missed and watch.tail < after:
                await self._catch_up(stream, watch)
                _refuse(stream, watch, after)
            await self._ensure_current(stream, watch, after)

    async def _ensure_current(self, stream: str, watch: Watch, after: Offset) -> None:
        """Make a watch live. StreamMissing, OffsetUnknown."""
        while not (watch.live or watch.gone or watch.lost):
            task = self._refreshing.get(stream)
            if task is None:
                task = asyncio.create_task(self._refresh(stream, watch))
                self._refreshing[stream] = task
                task.add_done_callback(lambda done: self._refreshed(stream, done))
            await asyncio.shield(task)
        if watch.gone:
            self._forget(stream, watch)
            raise StreamMissing(f"there is no stream {stream!r}")
        if watch.lost:
            self._forget(stream, watch)
            watch.raise_if_lost(stream, after)

    def _refreshed(self, stream: str, task: asyncio.Task[None]) -> None:
        self._refreshing.pop(stream, None)
        if not task.cancelled():
            task.exception()  # its waiters have it

    async def _refresh(self, stream: str, watch: Watch) -> None:
        fails = watch.fails
        await self._listen(stream)
        await self._catch_up(stream, watch)
        watch.live = watch.fails == fails

    async def _catch_up(self, stream: str, watch: Watch) -> None:
        shard, place = self.client.nodes.shard(stream), watch.position
        keys = [shard.key("h", stream), shard.key("m", stream), shard.key("s", stream)]
        answer = await self.client.read(shard, HEAD, keys, place[0])
        watch.catch_up(head_of(answer), place)

    async def _listen(self, stream: str) -> None:
        """Subscribe at the server that has the stream, wherever that is by now."""
        until = time.monotonic() + self._patience
        while True:
            try:
                reader = self._reader(stream)
                await reader.listen(self._subscribe(stream, reader), 1.0)
            except (TimeoutError, ConnectionLost) as error:
                if self.client.closed or time.monotonic() > until:
                    raise StoreError(f"Redis was away for {self._patience:g} s") from error
                await self.client.refresh_topology()
            else:
                return

    def _reader(self, stream: str) -> PubSubReader:
        node = self.client.nodes.node(self.client.nodes.shard(stream))
        if node not in self._readers:
            self._readers[node] = PubSubReader(node.connect, self._heard, self._failed)
        return self._readers[node]

    def _subscribe(self, stream: str, reader: PubSubReader) -> str:
        channel = self.client.nodes.shard(stream).key("h", stream)
        known = self._subscriptions.get(stream)
        if known is not None and known[0] is not reader:
            self._leave(stream)
        self._subscriptions[stream], self._streams[channel] = (reader, channel), stream
        return channel

    def _forget(self, stream: str, watch: Watch) -> None:
        """Drop a watch, unless there is a new one already."""
        if self._watches.get(stream) is watch:
            self._watches.drop(stream)

    def _leave(self, stream: str) -> None:
        place = self._subscriptions.pop(stream, None)
        if place is not None:
            self._streams.pop(place[1], None)
            place[0].leave(place[1])

    def _heard(self, channel: str, data: bytes) -> bool:
        stream = self._streams.get(channel)
        return stream is not None and self._watches.hear(stream, message(data))

    def _failed(self, channels: list[str]) -> None:
        self._watches.fail([self._streams[name] for name in channels if name in self._streams])


def _refuse(stream: str, watch: Watch, after: Offset) -> None:
    if watch.tail < after:
        raise OffsetUnknown(
            f"stream {stream!r} was read to {after}, but Redis has lost it from {watch.tail} on"
        )
