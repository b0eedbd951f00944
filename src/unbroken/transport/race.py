"""Two lanes, of which the first to speak wins: with threads for callers that block, with tasks for
those that await.
"""

import asyncio
import contextlib
import queue
import threading
from typing import TypeVar

from unbroken.transport.base import AsyncLane, Lane

T = TypeVar("T")


def race(one: Lane[T], other: Lane[T], after: float) -> tuple[int, list[T]]:
    """The lanes in threads of their own."""
    lanes = (one, other)
    said: queue.SimpleQueue[tuple[int, list[T] | BaseException]] = queue.SimpleQueue()
    threads: list[threading.Thread] = []

    def start() -> None:
        at = len(threads)
        threads.append(threading.Thread(target=_run, args=(lanes[at], at, said), daemon=True))
        threads[at].start()

    def leave(at: int) -> None:
        if at < len(threads):
            lanes[at].abandon()

    start()
    won = -1
    try:
        first = _within(said, after)
        if first is None or not first[1]:
            start()
            first = _outcome(said, both=first is None)
        won, events = first
    finally:
        for at in range(len(lanes)):
            if at != won:
                leave(at)
    if isinstance(events, BaseException):
        raise events
    return won, events


def _run(
    lane: Lane[T], at: int, said: "queue.SimpleQueue[tuple[int, list[T] | BaseException]]"
) -> None:
    try:
        said.put((at, lane.first()))
    except BaseException as error:  # noqa: BLE001  # it is raised where the race was called
        said.put((at, error))


def _within(
    said: "queue.SimpleQueue[tuple[int, list[T] | BaseException]]", seconds: float
) -> tuple[int, list[T] | BaseException] | None:
    with contextlib.suppress(queue.Empty):
        return said.get(timeout=seconds)
    return None


def _outcome(
    said: "queue.SimpleQueue[tuple[int, list[T] | BaseException]]", *, both: bool
) -> tuple[int, list[T] | BaseException]:
    """The first that has something, or what the last of them says."""
    first = said.get()
    return first if first[1] or not both else said.get()


async def race_tasks(one: AsyncLane[T], other: AsyncLane[T], after: float) -> tuple[int, list[T]]:
    """The lanes in tasks of their own."""
    lanes = (one, other)
    tasks = [asyncio.create_task(one.first())]
    won = 0
    try:
        await asyncio.wait(tasks, timeout=after)
        if not tasks[0].done() or not tasks[0].result():
            tasks.append(asyncio.create_task(other.first()))
            won = await _first_to_speak(tasks)
        return won, tasks[won].result()
    finally:
        for at, task in enumerate(tasks):
            if at != won or not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                await lanes[at].abandon()


async def _first_to_speak(tasks: list["asyncio.Task[list[T]]"]) -> int:
    """The place of the first task that has something, or of the last to end."""
    open_ = [task for task in tasks if not task.done()]
    while open_:
        done, _ = await asyncio.wait(open_, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            open_.remove(task)
            if task.result() or not open_:
                return tasks.index(task)
    return len(tasks) - 1
