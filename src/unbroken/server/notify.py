"""Waking the tasks that wait for more of an answer.

An `asyncio.Event` asks for the running loop each time it is waited for, which is a system call
before Python 3.12: too expensive once per token. Waiting tasks look first, and again when they are
woken, in one event loop; so nothing needs to be remembered between two notifications.
"""

import asyncio


class Notifier:
    """The waiting tasks of one event loop, the one it is made in."""

    __slots__ = ("_loop", "_waiting")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: list[asyncio.Future[None]] = []

    def notify_all(self) -> None:
        """Wake all tasks that wait now."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():  # a task that was cancelled
                future.set_result(None)

    async def wait(self) -> None:
        """Wait for the next notification."""
        future = self._loop.create_future()
        self._waiting.append(future)
        await future
