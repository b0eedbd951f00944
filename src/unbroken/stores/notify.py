"""Waking the tasks that wait for one thing.

Each has a future of its own. One future shared by all is a third cheaper with a hundred
followers of one stream, but a task that is cancelled cancels what it awaits: the first follower
to leave would end all others.
"""

import asyncio


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Notifier:
    """The tasks that wait for one thing. It remembers no notification for those that come later."""

    def __init__(self) -> None:
        self._futures: set[asyncio.Future[None]] = set()

    def __len__(self) -> int:
        return len(self._futures)

    def notify_all(self) -> None:
        """Wake all tasks that wait now."""
        for future in self._futures:
            _wake(future)

    async def wait(self, seconds: float) -> None:
        """Wait for the next notification, or so many seconds."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._futures.add(future)
        timer = loop.call_later(seconds, _wake, future)
        try:
            await future
        finally:
            timer.cancel()
            self._futures.discard(future)
