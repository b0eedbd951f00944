"""Waits that somebody else can end: a stream may be stopped while it waits for anything.

For every request at most one wait is under way, so the request's identity is its name; what waits
for none can't be ended.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from msgspec.structs import force_setattr

from unbroken.transport.base import HttpRequest


class Waits:
    """Of threads."""

    def __init__(self) -> None:
        self._bells: dict[int, threading.Event] = {}

    def sleep(self, seconds: float, request: HttpRequest | None) -> bool:
        """Wait. Whether it was ended before its time."""
        bell = self._bells[id(request)] = threading.Event()
        if request is not None and request.given_up:
            bell.set()
        try:
            return bell.wait(seconds)
        finally:
            self._bells.pop(id(request), None)

    def end(self, request: HttpRequest) -> None:
        """End the wait for that request, or the next one."""
        force_setattr(request, "given_up", True)  # the one thing of a request that changes
        if bell := self._bells.get(id(request)):
            bell.set()


_GLANCE = 0.001
"""Seconds for the event loop to look at its sockets, when the time to wait is over."""


class _Expiry:
    """Ends a timeout. A loop that was blocked past it may hold an answer that it has not read yet:
    it looks at its sockets once more.
    """

    def __init__(self, timeout: asyncio.Timeout, seconds: float) -> None:
        self._timeout, self._loop = timeout, asyncio.get_running_loop()
        self._timer = self._loop.call_later(seconds, self._look)

    def cancel(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        self._timer = self._loop.call_later(_GLANCE, self._timeout.reschedule, now)


class AsyncWaits:
    """Of tasks."""

    def __init__(self) -> None:
        self._timeouts: dict[int, asyncio.Timeout] = {}

    @asynccontextmanager
    async def within(
        self, seconds: float | None, request: HttpRequest | None
    ) -> AsyncGenerator[None, None]:
        """TimeoutError if what stands in here takes longer, or is ended."""
        async with asyncio.timeout(None) as timeout:
            self._timeouts[id(request)] = timeout
            expiry = None if seconds is None else _Expiry(timeout, seconds)
            try:
                yield
            finally:
                self._timeouts.pop(id(request), None)
                if expiry is not None:
                    expiry.cancel()

    async def sleep(self, seconds: float, request: HttpRequest | None) -> bool:
        """Wait. Whether it was ended before its time."""
        try:
            async with self.within(None, request):
                await asyncio.sleep(seconds)
        except TimeoutError:
            return True
        return False

    def end(self, request: HttpRequest) -> None:
        """End the wait for that request, if there is one."""
        timeout = self._timeouts.get(id(request))
        if timeout is not None and not timeout.expired():
            timeout.reschedule(asyncio.get_running_loop().time())
