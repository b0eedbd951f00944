"""Background work of a gateway: each job runs in a task of its own, so that none delays another."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from unbroken.errors import StoreError
from unbroken.server.log import LOGGER, log_event
from unbroken.stores.base import Store

Job = Callable[[], Awaitable[None]]


class Background:
    """Jobs that are repeated until `stop`, and single tasks that are kept from being collected."""

    def __init__(self) -> None:
        self._jobs: list[asyncio.Task[None]] = []
        self._spawned: set[asyncio.Task[Any]] = set()

    def repeat(self, name: str, seconds: float, job: Job) -> None:
        """Run `job` again and again, with a pause of so many seconds after each run."""
        self._jobs.append(asyncio.create_task(_repeat(name, seconds, job), name=name))

    def spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run `work` once, also if its caller is cancelled while it waits for it."""
        task = asyncio.create_task(work)
        self._spawned.add(task)
        task.add_done_callback(self._collect)
        return task

    def _collect(self, task: "asyncio.Task[Any]") -> None:
        """Mark a failure as seen: callers that are still there get it too."""
        self._spawned.discard(task)
        if not task.cancelled():
            task.exception()

    async def stop(self) -> None:
        """Cancel the jobs, and wait until they are gone."""
        jobs, self._jobs = self._jobs, []
        for task in jobs:
            task.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)


async def _repeat(name: str, seconds: float, job: Job) -> None:
    available = True
    while True:
        try:
            await job()
            available = True
        except StoreError as error:
            if available:  # one line for an outage, not one for each try
                log_event("store_unavailable", job=name, error=str(error))
            available = False
        except Exception:  # noqa: BLE001  # all answers depend on the runs that follow
            LOGGER.exception("internal_error", extra={"fields": {"job": name}})
        await asyncio.sleep(seconds)


PRUNE_INTERVAL = 30.0
"""Seconds between two looks at what is too old to keep."""

PRUNE_PAUSE = 0.05
"""Seconds between two steps: readers and producers of the store go first."""


class Retention:
    """Deletes old answers, in one process of a store at a time and in small steps."""

    def __init__(self, store: Store, process: str) -> None:
        self._store, self._process = store, process
        self.age: float | None = None
        self.size: int | None = None

    async def run(self) -> None:
        """Delete what is too old or too much, if no other process is at it."""
        while await self._store.claim("retention", self._process, PRUNE_INTERVAL):
            if not (await self._store.prune(self.age, self.size)).more:
                return
            await asyncio.sleep(PRUNE_PAUSE)
