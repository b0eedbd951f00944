"""Wakes those who wait for more.

An `asyncio.Event` asks for the running loop each time it is waited for, which is a system call
before Python 3.12, and dear when it happens with each token. Who waits looks first and again after
the bell, in one event loop, so nothing needs to be remembered between rings.
"""

import asyncio


class Notifier:
    """For one event loop, the one it is made in."""

    __slots__ = ("_loop", "_waiting")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: list[asyncio.Future[None]] = []

    def notify_all(self) -> None:
        """Wake all who wait now."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.done():  # cancelled: it has left
                one.set_result(None)

    async def wait(self) -> None:
        """Until the next ring."""
        one = self._loop.create_future()
        self._waiting.append(one)
        await one
