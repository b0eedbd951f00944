"""Waiting for what others write: followers, and producers that may be asked to stop.

A watch is *live* when its channel is listened to and its head was asked for since; what happens
then is heard. When the connection breaks it is live no more, and whoever waits on it makes it so
again, all waiters of a stream together.
"""

import asyncio
import time
from collections.abc import Callable

from unbroken.errors import OffsetUnknown, StoreError, StreamMissing
from unbroken.stores.redis.calls import Calls
from unbroken.stores.redis.pipeline import Lost
from unbroken.stores.redis.pubsub import Listener
from unbroken.stores.redis.nodes import Node, Settings
from unbroken.stores.redis.rows import head_of
from unbroken.stores.redis.scripts import HEAD
from unbroken.stores.redis.watch import Message, Watch, Watches, message
from unbroken.stores.notify import Notifier
from unbroken.stores.base import BEGINNING, Offset, Page

LOST = 5.0
"""Seconds that a producer has to bring back what Redis has lost, before its readers are told."""


class Followed:
    """The followed streams of a process."""

    def __init__(self, settings: Settings) -> None:
        self.calls = Calls(settings, self.moved)
        self._patience = settings.patience
        self._watches = Watches(self._leave)
        self._listeners: dict[Node, Listener] = {}
        self._streams: dict[str, str] = {}  # of the channels
        self._places: dict[str, tuple[Listener, str]] = {}  # where a stream is listened to
        self._refreshing: dict[str, asyncio.Task[None]] = {}

    async def close(self) -> None:
        """Wake who waits, and hang up."""
        await self.calls.close()
        for listener in self._listeners.values():
            await listener.close()
        self._listeners.clear()
        self._watches.fail([*self._places])
        self._places.clear()
        await asyncio.gather(*self._refreshing.values(), return_exceptions=True)

    def moved(self) -> None:
        """The servers of a cluster have other slots: listen where the streams are now."""
        for stream, (listener, _) in [*self._places.items()]:
            if self._listener(stream) is not listener:
                self._leave(stream)
                self._watches.fail([stream])

    def page(self, stream: str, after: Offset, limit: int) -> Page | None:
        """A page of what was heard; None if Redis has to be asked."""
        watch = self._watches.get(stream)
        return None if watch is None else watch.page(after, limit)

    def wrote(self, stream: str, heard: Message) -> None:
        """What this process has appended, sooner than it is published to it."""
        watch = self._watches.get(stream)
        if watch is not None:
            watch.hear(heard)

    def removed(self, stream: str) -> None:
        """This process has deleted it."""
        watch = self._watches.get(stream)
        if watch is not None:
            watch.hear(Message(b"g"))
            self._forget(stream, watch)

    async def wait(self, stream: str, after: Offset, seconds: float) -> bool:
        """Until there is a record behind `after`, or the end."""
        with self._watches.pinned(stream) as watch:

            def reached() -> bool:
                return watch.tail > after or watch.end is not None

            await self._until(stream, watch, watch.followers, reached, seconds, after)
            return reached()

    async def cancelled(self, stream: str, seconds: float) -> bool:
        """Until somebody asks to stop, or it is over anyway."""
        with self._watches.pinned(stream) as watch:

            def reached() -> bool:
                return watch.cancelled or watch.end is not None

            await self._until(stream, watch, watch.stoppers, reached, seconds)
            return watch.cancelled

    async def _until(
        self,
        stream: str,
        watch: Watch,
        waiters: Notifier,
        reached: Callable[[], bool],
        seconds: float,
        after: Offset = BEGINNING,
    ) -> None:
        until, missed = time.monotonic() + seconds, time.monotonic() + LOST
        await self._know(stream, watch, after)
        while not reached() and (left := until - time.monotonic()) > 0:
            if watch.tail < after:
                left = min(left, missed - time.monotonic())
            await waiters.wait(left)
            if time.monotonic() > missed and watch.tail < after:
                await self._catch_up(stream, watch)
                _refuse(stream, watch, after)
            await self._know(stream, watch, after)
        if not reached():  # a message may be lost on the way between two servers of a cluster
            await self._catch_up(stream, watch)

    async def _know(self, stream: str, watch: Watch, after: Offset) -> None:
        """Make the watch live. StreamMissing, OffsetUnknown."""
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
            watch.refuse(stream, after)

    def _refreshed(self, stream: str, task: asyncio.Task[None]) -> None:
        self._refreshing.pop(stream, None)
        if not task.cancelled():
            task.exception()  # whoever still waits has been told

    async def _refresh(self, stream: str, watch: Watch) -> None:
        fails = watch.fails
        await self._listen(stream)
        await self._catch_up(stream, watch)
        watch.live = watch.fails == fails

    async def _catch_up(self, stream: str, watch: Watch) -> None:
        shard, place = self.calls.nodes.shard(stream), watch.place
        keys = [shard.key("h", stream), shard.key("m", stream), shard.key("s", stream)]
        answer = await self.calls.read(shard, HEAD, keys, place[0])
        watch.catch_up(head_of(answer), place)

    async def _listen(self, stream: str) -> None:
        """To the server that has the stream, wherever that is by now."""
        until = time.monotonic() + self._patience
        while True:
            try:
                listener = self._listener(stream)
                await listener.listen(self._place(stream, listener), 1.0)
            except (TimeoutError, Lost) as error:
                if self.calls.closed or time.monotonic() > until:
                    raise StoreError(f"Redis was away for {self._patience:g} s") from error
                await self.calls.look()
            else:
                return

    def _listener(self, stream: str) -> Listener:
        node = self.calls.nodes.node(self.calls.nodes.shard(stream))
        if node not in self._listeners:
            self._listeners[node] = Listener(node.connect, self._heard, self._failed)
        return self._listeners[node]

    def _place(self, stream: str, listener: Listener) -> str:
        channel = self.calls.nodes.shard(stream).key("h", stream)
        known = self._places.get(stream)
        if known is not None and known[0] is not listener:
            self._leave(stream)
        self._places[stream], self._streams[channel] = (listener, channel), stream
        return channel

    def _forget(self, stream: str, watch: Watch) -> None:
        """Unless there is a new one already."""
        if self._watches.get(stream) is watch:
            self._watches.drop(stream)

    def _leave(self, stream: str) -> None:
        place = self._places.pop(stream, None)
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
