"""One connection to one Redis, shared by all callers in the process.

Commands that come while a round trip is under way go out together as the next one, a pipeline of
redis-py: many streams share it, and with `appendfsync always` they share the disk's write as well.

Nothing is retried here: ConnectionLost is raised, and the caller decides.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, TypeAlias

from redis.asyncio import Redis
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
from unbroken.stores.counters import encode_utf8
from unbroken.stores.redis.scripts import ALL, Script

Command: TypeAlias = list[bytes]

_TRANSIENT_CODES = frozenset({"BUSY", "NOREPLICAS", "UNBLOCKED", "WAIT"})
_TRANSIENT = (AskError, ClusterDownError, NoScriptError, ReadOnlyError, TryAgainError)
"""Refusals that pass with time or at another node: redis-py has classes for some. AskError covers
MovedError, ClusterDownError covers MasterDownError. A master that has become a replica answers
"WAIT cannot be used".
"""

_BATCH_BYTES = 1 << 20
"""Of commands that go out together: a long round trip delays all others."""


_REPLY_TIMEOUT = 10.0
"""Seconds after which a connection that does not answer is given up."""


class ConnectionLost(Exception):
    """No answer: the connection, or the server behind it, is not what it was."""


class CommandError(StoreError):
    """Redis has refused a command."""


def refusal(error: RedisError) -> Exception:
    """Translate an error of the Redis client."""
    text = str(error)
    if isinstance(error, AuthenticationError):
        return CommandError(
            f"Redis refuses the login: {text}", hint="Check the user and the password."
        )
    passing = isinstance(error, _TRANSIENT) or text.partition(" ")[0] in _TRANSIENT_CODES
    if passing or not isinstance(error, ResponseError):
        return ConnectionLost(f"{type(error).__name__}: {text}")
    return CommandError(f"Redis refuses: {text}")


async def load_scripts(connection: AbstractConnection) -> None:
    """Prepare a new connection: a server that was away may have forgotten the scripts."""
    await connection.on_connect()
    commands = [("SCRIPT", "LOAD", script.text) for script in ALL]
    await connection.send_packed_command(connection.pack_commands(commands))
    for _ in commands:
        await connection.read_response()


def _translate(error: Exception) -> Exception:
    return refusal(error) if isinstance(error, RedisError) else ConnectionLost(str(error))


class BatchingConnection:
    """Sends commands to one server, in order.

    `batch_window`: seconds between two round trips; `replicas`: how many must have a write.
    """

    def __init__(self, client: Redis, batch_window: float = 0.0, replicas: int = 0) -> None:
        self._client, self._batch_window, self._replicas = client, batch_window, replicas
        client.response_callbacks.clear()  # answers are read by `rows`
        self._next_trip = 0.0
        self._queue: list[tuple[Command, asyncio.Future[Any]]] = []
        self._running: asyncio.Task[None] | None = None
        self.round_trips = 0

    async def run(self, script: Script, keys: Sequence[str], *arguments: Any) -> Any:
        """Run a script. ConnectionLost or CommandError."""
        return await self.do("EVALSHA", script.sha, len(keys), *keys, *arguments)

    async def do(self, *command: bytes | str | float) -> Any:
        """Send a command. ConnectionLost or CommandError.

        StoreError for what can't be encoded, at once: others share the round trip.
        """
        encoded = [word if isinstance(word, bytes) else encode_utf8(str(word)) for word in command]
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queue.append((encoded, future))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await future

    async def close(self) -> None:
        """Answer all calls, and disconnect."""
        if self._running is not None:
            await asyncio.gather(self._running, return_exceptions=True)
        await self._disconnect()

    async def _run(self) -> None:
        try:
            loop = asyncio.get_running_loop()
            while self._queue:
                if (pause := self._next_trip - loop.time()) > 0:
                    await asyncio.sleep(pause)
                await self._trip(self._next())
                self._next_trip = loop.time() + self._batch_window
        finally:
            self._running = None

    def _next(self) -> list[tuple[Command, asyncio.Future[Any]]]:
        """Return the commands that go out together."""
        size = count = 0
        for command, _ in self._queue:
            if size > _BATCH_BYTES:
                break
            count += 1
            size += sum(map(len, command))
        calls, self._queue = self._queue[:count], self._queue[count:]
        return calls

    async def _trip(self, calls: list[tuple[Command, asyncio.Future[Any]]]) -> None:
        waiting = [future for _, future in calls]
        try:
            replies = await self._exchange([command for command, _ in calls])
        except (ConnectionLost, CommandError) as error:
            await self._disconnect()
            _settle(waiting, [error] * len(waiting))
        except BaseException:
            await self._disconnect()
            _settle(waiting, [ConnectionLost("the store is being closed")] * len(waiting))
            raise
        else:
            _settle(waiting, replies)

    async def _exchange(self, commands: list[Command]) -> list[Any]:
        pipe = self._client.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)
        if self._replicas:
            pipe.execute_command("WAIT", self._replicas, int(_REPLY_TIMEOUT * 500))
        try:
            async with asyncio.timeout(_REPLY_TIMEOUT):
                answers = await pipe.execute(raise_on_error=False)
        except (RedisError, OSError) as error:  # a timeout is an OSError
            raise _translate(error) from error
        self.round_trips += 1
        replies = [_translate(one) if isinstance(one, Exception) else one for one in answers]
        if any(isinstance(reply, ConnectionLost) for reply in replies):
            await self._disconnect()  # a new connection finds out what it was
        if self._replicas:
            self._check_replicas(replies.pop())
        return replies

    def _check_replicas(self, have: int | Exception) -> None:
        """Check the answer to WAIT. ConnectionLost or CommandError."""
        if isinstance(have, Exception):
            raise have
        if have < self._replicas:
            raise ConnectionLost(f"{have} of {self._replicas} replicas have it")

    async def _disconnect(self) -> None:
        await self._client.connection_pool.disconnect()


def _settle(futures: list[asyncio.Future[Any]], replies: list[Any]) -> None:
    for future, reply in zip(futures, replies, strict=True):
        if future.done():
            continue  # its caller was cancelled
        if isinstance(reply, Exception):
            future.set_exception(reply)
        else:
            future.set_result(reply)
