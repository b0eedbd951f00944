"""Many prompts, a bounded number at a time: with threads for callers that block, with tasks for
those that await. Both take the next prompt when an answer has ended, keep each failure in its
place, and close what is open when they are left. `map_sync` and `map_async` are the methods `map`
of the clients, which they know by what they need of them.
"""

import sys
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from operator import length_hint
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Protocol, Self, Unpack

from unbroken.client._plan import Models, Parameters, closed
from unbroken.engine.usage import add_usage
from unbroken.errors import ConfigurationError, LocalProtocolError, UnbrokenError
from unbroken.events import Event, Usage
from unbroken.messages import Prompt, Request
from unbroken.response import Response

if TYPE_CHECKING:
    from asyncio import Task

Item = Response | UnbrokenError
Prompts = Iterable[Prompt]
AsyncPrompts = Iterable[Prompt] | AsyncIterable[Prompt]


class Results(list[Item]):
    """A `Response` or an `UnbrokenError` for each prompt, in the order of the prompts."""

    @property
    def responses(self) -> list[Response]:
        """The answers, in order."""
        return [item for item in self if isinstance(item, Response)]

    @property
    def failures(self) -> dict[int, UnbrokenError]:
        """The errors by the place of their prompts."""
        return {at: item for at, item in enumerate(self) if isinstance(item, UnbrokenError)}

    @property
    def usage(self) -> Usage | None:
        """What all together used, as far as it was reported; failures are paid for too."""
        total = None
        for item in self:
            total = add_usage(total, _came(item).usage)
        return total

    @property
    def cost(self) -> float | None:
        """The price of `usage` in USD; None when the price of one is unknown."""
        costs = [_came(i).cost for i in self if isinstance(i, Response) or _came(i).usage]
        known = [cost for cost in costs if cost is not None]
        return sum(known) if len(known) == len(costs) else None


def _came(item: Item) -> Response:
    return item if isinstance(item, Response) else item.response


def _not_cut(response: Response) -> Response:
    """Nobody but a client that was closed cancels an answer that is still waited for."""
    if response.end == "cancelled":
        raise closed(response)
    return response


class _Stream(Protocol):
    @property
    def response(self) -> Response: ...
    def batches(self) -> Iterator[list[Event]]: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


class _Client(Protocol):
    def stream(
        self, model: Models, prompt: Prompt, **parameters: Unpack[Parameters]
    ) -> _Stream: ...


class _AsyncStream(Protocol):
    @property
    def response(self) -> Response: ...
    def batches(self) -> AsyncIterator[list[Event]]: ...
    async def close(self) -> None: ...


class _AsyncClient(Protocol):
    def stream(
        self, model: Models, prompt: Prompt, **parameters: Unpack[Parameters]
    ) -> _AsyncStream: ...


def map_sync(
    client: _Client,
    prompts: Iterable[Prompt],
    *,
    model: Models = None,
    concurrency: int = 8,
    progress: bool | None = None,
    **parameters: Unpack[Parameters],
) -> Results:
    """Ask all prompts, `concurrency` at a time, and get what came of each, in their order.

    An error takes the place of the answer it is for; the others go on. What is wrong with the
    call itself, such as the model's name, is raised at once. Prompts are taken from any iterable,
    and only when they are needed. `progress` shows a bar on standard error; by default where that
    is a terminal and `rich` is there. Ctrl-C, or an error of the iterable, closes all connections.
    """
    _check(prompts, concurrency)
    client.stream(model, "?", **parameters)  # raises what is wrong with any of them; sends nothing
    found: dict[int, Item] = {}
    crew = _Crew(lambda prompt: client.stream(model, prompt, **parameters), concurrency)
    with crew, _showing(prompts, progress=progress) as show:
        for at, prompt in enumerate(prompts):
            if at >= concurrency:
                _note(found, *crew.take(), show)
            crew.ask(at, prompt)
        while crew.busy:
            _note(found, *crew.take(), show)
    return Results(found[at] for at in sorted(found))


def _note(found: dict[int, Item], at: int, item: Item, show: Callable[[Item], None]) -> None:
    found[at] = item
    show(item)


class _Crew:
    """Threads that ask, each one prompt at a time. Leaving ends what is open; who is busy then
    is not waited for, since it may be asleep before its next attempt.
    """

    def __init__(self, ask: Callable[[Prompt], _Stream], size: int) -> None:
        self.busy = 0
        self._ask, self._size = ask, size
        self._threads: list[Thread] = []
        self._open: set[_Stream] = set()
        self._left = False
        self._todo: SimpleQueue[tuple[int, Prompt] | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[int, Response | BaseException]] = SimpleQueue()

    def ask(self, at: int, prompt: Prompt) -> None:
        """Somebody asks this soon."""
        if len(self._threads) < self._size:
            self._threads.append(Thread(target=self._work, daemon=True))
            self._threads[-1].start()
        self._todo.put((at, prompt))
        self.busy += 1

    def take(self) -> tuple[int, Item]:
        """The next thing that is done, whichever it is; raises what is nobody's answer."""
        at, item = self._done.get()
        self.busy -= 1
        if isinstance(item, Response | UnbrokenError):
            return at, item
        raise item

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._left = True
        for _thread in self._threads:
            self._todo.put(None)
        for stream in tuple(self._open):
            stream.abort()
        if not self.busy:  # all are idle: an interpreter should not end under its threads
            for thread in self._threads:
                thread.join()

    def _work(self) -> None:
        while (job := self._todo.get()) is not None and not self._left:
            self._done.put((job[0], self._outcome(job[1])))

    def _outcome(self, prompt: Prompt) -> Response | BaseException:
        try:
            return self._answer(self._ask(prompt))
        except BaseException as error:  # noqa: BLE001  # it is raised by `take`
            return error

    def _answer(self, stream: _Stream) -> Response:
        self._open.add(stream)
        try:
            # whoever leaves says so first and closes after it, so that nothing stays open
            for _ in () if self._left else stream.batches():
                pass
        finally:
            self._open.discard(stream)
            stream.close()
        return _not_cut(stream.response)


async def map_async(
    client: _AsyncClient,
    prompts: Iterable[Prompt] | AsyncIterable[Prompt],
    *,
    model: Models = None,
    concurrency: int = 8,
    progress: bool | None = None,
    **parameters: Unpack[Parameters],
) -> Results:
    """Ask all prompts, `concurrency` at a time, and get what came of each, in their order.

    An error takes the place of the answer it is for; the others go on. What is wrong with the
    call itself, such as the model's name, is raised at once. Prompts are taken from any iterable,
    also one that awaits, and only when they are needed. `progress` shows a bar on standard error;
    by default where that is a terminal and `rich` is there. Cancelling, or an error of the
    iterable, closes all connections.
    """
    _check(prompts, concurrency)
    client.stream(model, "?", **parameters)  # raises what is wrong with any of them; sends nothing
    found: dict[int, Item] = {}
    each = prompts if isinstance(prompts, AsyncIterable) else _each(prompts)
    with _showing(prompts, progress=progress) as show:

        async def ask(at: int, prompt: Prompt) -> None:
            _note(found, at, await _outcome(client, model, prompt, parameters), show)

        async with _Tasks() as tasks:
            at = 0
            async for prompt in each:
                await tasks.fewer_than(concurrency)
                tasks.start(ask(at, prompt))
                at += 1
            await tasks.fewer_than(1)
    return Results(found[at] for at in sorted(found))


class _Tasks:
    """What is under way. Leaving cancels it, and waits until it is closed."""

    def __init__(self) -> None:
        self._open: set[Task[None]] = set()

    def start(self, work: Coroutine[None, None, None]) -> None:
        """One more."""
        import asyncio

        self._open.add(asyncio.create_task(work))

    async def fewer_than(self, size: int) -> None:
        """Wait until there are fewer open. Raises what is nobody's answer."""
        import asyncio

        while len(self._open) >= size:
            done, self._open = await asyncio.wait(self._open, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        import asyncio

        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)


async def _outcome(
    client: _AsyncClient, model: Models, prompt: Prompt, parameters: Parameters
) -> Item:
    try:
        stream = client.stream(model, prompt, **parameters)
        try:
            async for _ in stream.batches():
                pass
        finally:
            await stream.close()
        return _not_cut(stream.response)
    except UnbrokenError as error:
        return error


async def _each(prompts: Iterable[Prompt]) -> AsyncIterator[Prompt]:
    for prompt in prompts:
        yield prompt


def _check(prompts: object, concurrency: int) -> None:
    if isinstance(prompts, str | bytes | Mapping | Request):
        raise LocalProtocolError(
            f"prompts are several, such as a list; a {type(prompts).__name__} is one"
        )
    if concurrency < 1:
        raise ValueError(f"concurrency={concurrency} must be at least 1")


def _showing(
    prompts: object, *, progress: bool | None
) -> AbstractContextManager[Callable[[Item], None]]:
    """What is told of each item that is there."""
    there = find_spec("rich") is not None
    if progress and not there:
        raise ConfigurationError("a progress bar needs rich", hint="pip install 'unbroken[cli]'")
    wanted = there and sys.stderr.isatty() if progress is None else progress
    return _bar(length_hint(prompts) or None) if wanted else nullcontext(lambda _item: None)


@contextmanager
def _bar(total: int | None) -> Iterator[Callable[[Item], None]]:
    """How many are done, how many of them failed, and how long it will take."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    failed = 0
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total)

        def show(item: Item) -> None:
            nonlocal failed
            failed += isinstance(item, UnbrokenError)
            bar.update(task, advance=1, description=f"{failed} failed" if failed else "")

        yield show
