"""One connection to one Redis, shared by everybody in the process.

What is asked while an answer is under way goes out together as the next round trip: many streams
share it, and with `appendfsync always` they share the disk's write as well.

A lane does not come back by itself: it says Lost, and whoever asked decides whether to ask again.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterDownError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from unbroken.errors import StoreError
from unbroken.stores.redis.scripts import ALL, Script
from unbroken.stores.base import encode_utf8

Connect: TypeAlias = Callable[[], AbstractConnection]

_WORDS = frozenset({"BUSY", "NOREPLICAS", "UNBLOCKED", "WAIT"})
_KINDS = (AskError, ClusterDownError, NoScriptError, ReadOnlyError, TryAgainError)
"""Refusals that another moment or another node will not repeat: redis-py has names for some.
AskError is MovedError as well, and ClusterDownError MasterDownError. "WAIT cannot be used" is what
a master says that has become a replica.
"""

_ROOM = 1 << 20
"""Bytes of commands that go out together: an answer that is long under way delays all others."""


_SECONDS = 10.0
"""Until an answer that does not come is given up, and with it the connection."""


class Lost(Exception):
    """The answer did not come: the connection, or the server behind it, is not what it was."""


class Refused(StoreError):
    """Redis has understood, and says no."""


def refusal(error: RedisError) -> Exception:
    """What an error of the client is here."""
    said = str(error)
    if isinstance(error, AuthenticationError):
        return Refused(f"Redis lets nobody in: {said}", hint="Check the user and the password.")
    passing = isinstance(error, _KINDS) or said.partition(" ")[0] in _WORDS
    if passing or not isinstance(error, ResponseError):
        return Lost(f"{type(error).__name__}: {said}")
    return Refused(f"Redis refuses: {said}")


async def opened(connect: Connect) -> AbstractConnection:
    """A new connection that knows the scripts. Lost or Refused."""
    connection = connect()
    try:
        await connection.connect()  # type: ignore[no-untyped-call]
        commands = [("SCRIPT", "LOAD", script.text) for script in ALL]
        await connection.send_packed_command(connection.pack_commands(commands))
        for _ in commands:
            await connection.read_response()
    except (RedisError, OSError) as error:
        await connection.disconnect(nowait=True)
        raise _told(error) from error
    return connection


def _told(error: Exception) -> Exception:
    return refusal(error) if isinstance(error, RedisError) else Lost(str(error))


class Lane:
    """Commands to one server, in order. `gather`: seconds between two trips, `replicas`: how many
    must have what was written.
    """

    def __init__(self, connect: Connect, gather: float = 0.0, replicas: int = 0) -> None:
        self._connect, self._gather, self._replicas = connect, gather, replicas
        self._next_trip = 0.0
        self._connection: AbstractConnection | None = None
        self._queue: list[tuple[bytes, asyncio.Future[Any]]] = []
        self._running: asyncio.Task[None] | None = None
        self.trips = 0

    async def run(self, script: Script, keys: Sequence[str], *arguments: Any) -> Any:
        """What a script answers. Lost or Refused."""
        return await self.do("EVALSHA", script.sha, len(keys), *keys, *arguments)

    async def do(self, *command: bytes | str | float) -> Any:
        """What Redis answers. Lost or Refused; StoreError for what can't be said to it, at once:
        others share the trip.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queue.append((packed(command), future))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await future

    async def close(self) -> None:
        """Answer what was asked, and hang up."""
        if self._running is not None:
            await asyncio.gather(self._running, return_exceptions=True)
        await self._hang_up()

    async def _run(self) -> None:
        try:
            loop = asyncio.get_running_loop()
            while self._queue:
                if (pause := self._next_trip - loop.time()) > 0:
                    await asyncio.sleep(pause)
                await self._trip(self._next())
                self._next_trip = loop.time() + self._gather
        finally:
            self._running = None

    def _next(self) -> list[tuple[bytes, asyncio.Future[Any]]]:
        """What goes out together."""
        size = count = 0
        for command, _ in self._queue:
            if size > _ROOM:
                break
            count += 1
            size += len(command)
        calls, self._queue = self._queue[:count], self._queue[count:]
        return calls

    async def _trip(self, calls: list[tuple[bytes, asyncio.Future[Any]]]) -> None:
        waiting = [future for _, future in calls]
        try:
            replies = await self._exchange([command for command, _ in calls])
        except (Lost, Refused) as error:
            await self._hang_up()
            _settle(waiting, [error] * len(waiting))
        except BaseException:
            await self._hang_up()
            _settle(waiting, [Lost("the store is being closed")] * len(waiting))
            raise
        else:
            _settle(waiting, replies)

    async def _exchange(self, commands: list[bytes]) -> list[Any]:
        asked = [*commands]
        if self._replicas:
            asked.append(packed(("WAIT", self._replicas, int(_SECONDS * 500))))
        try:
            async with asyncio.timeout(_SECONDS):
                replies = await self._answers(asked)
        except (RedisError, OSError) as error:  # a timeout is an OSError
            raise _told(error) from error
        self.trips += 1
        if any(isinstance(reply, Lost) for reply in replies):
            await self._hang_up()  # whatever it was, a new connection finds out
        if self._replicas:
            self._check_replicas(replies.pop())
        return replies

    def _check_replicas(self, have: int | Exception) -> None:
        """What WAIT has answered. Lost or Refused."""
        if isinstance(have, Exception):
            raise have
        if have < self._replicas:
            raise Lost(f"{have} of {self._replicas} replicas have it")

    async def _answers(self, commands: list[bytes]) -> list[Any]:
        if self._connection is None:
            self._connection = await opened(self._connect)
        connection = self._connection
        await connection.send_packed_command(b"".join(commands))
        return [await _reply(connection) for _ in commands]

    async def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)


def packed(command: Sequence[bytes | str | float]) -> bytes:
    """A command as Redis reads it (RESP, an array of bulk strings). The client's own way allows
    for more kinds of words, and takes three times as long.
    """
    pieces = [b"*%d\r\n" % len(command)]
    for word in command:
        data = word if isinstance(word, bytes) else encode_utf8(str(word))
        pieces.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(pieces)


async def _reply(connection: AbstractConnection) -> Any:
    """One answer; a refusal is an answer, too."""
    try:
        return await connection.read_response()
    except ResponseError as error:
        return refusal(error)


def _settle(futures: list[asyncio.Future[Any]], replies: list[Any]) -> None:
    for future, reply in zip(futures, replies, strict=True):
        if future.done():
            continue  # whoever asked has left
        if isinstance(reply, Exception):
            future.set_exception(reply)
        else:
            future.set_result(reply)
