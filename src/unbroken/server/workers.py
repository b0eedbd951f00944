"""Several gateway processes on one port, over one store, under a supervisor.

The supervisor binds the sockets and starts the workers, which accept from them. A worker that dies
is replaced, and the others take over its answers meanwhile. SIGTERM, SIGINT and SIGHUP are passed
on to every worker. A worker whose supervisor is gone stops as if by SIGTERM.

Not uvicorn's own supervisor: it answers SIGHUP by replacing the workers, which would disconnect
every reader, and imports the app by name.
"""

import asyncio
import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from socket import socket
from types import FrameType

from unbroken.errors import UnbrokenError
from unbroken.server.log import configure_logging, log_event
from unbroken.server.process import Configuration, Console, check_keys, serve
from unbroken.server.settings import Settings
from unbroken.server.sockets import bind_sockets, close_all

QUICK = 2.0
"""Seconds: a worker that dies earlier is replaced after this time, not at once."""

_spawn = multiprocessing.get_context("spawn")  # no locks or threads of the parent are inherited


class _Worker:
    """One process. It reports over a pipe when it accepts connections."""

    def __init__(self, load: Callable[[], Configuration], sockets: list[socket]) -> None:
        self.ready, sender = _spawn.Pipe(duplex=False)
        self.process: BaseProcess = _spawn.Process(target=_work, args=(load, sockets, sender))
        self.process.start()
        self.started = time.monotonic()
        sender.close()

    def send(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.process.pid is not None and self.process.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)


class _Report:
    """The worker's console: its only line is "ready", for the supervisor."""

    def __init__(self, sender: Connection) -> None:
        self._sender = sender

    def ready(self) -> None:
        """Tell the supervisor."""
        self._sender.send(True)

    def waiting(self) -> None:
        """Nothing: the supervisor knows no progress."""


def _work(load: Callable[[], Configuration], sockets: list[socket], sender: Connection) -> None:
    """Run a worker. Ctrl-C reaches the whole group, and only the supervisor acts on it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    try:
        code = serve(load, _Report(sender), sockets)
    except UnbrokenError as error:
        log_event("worker_failed", error=str(error))
        code = 1
    raise SystemExit(code)


def _stop_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


class Supervisor:
    """Keeps `settings.workers` workers alive until a signal."""

    def __init__(self, load: Callable[[], Configuration], settings: Settings) -> None:
        self._load, self._settings = load, settings
        self._sockets = bind_sockets(settings)
        self._workers: list[_Worker] = []
        self._stopping = 0

    def run(self, console: Console) -> int:
        """Serve; return the exit code: not 0 if no worker could start."""
        configure_logging(self._settings.log)
        asyncio.run(check_keys(self._settings))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._forward)
        try:
            for _ in range(self._settings.workers):
                self._start()
            started = self._wait_until_ready()
            failed = not started and not self._stopping
            if started:
                console.ready()
                self._keep_alive()
            if failed:
                self._stop(signal.SIGTERM, None)
            self._join()
            return int(failed)
        finally:
            close_all(self._sockets)

    def _start(self) -> None:
        self._workers.append(_Worker(self._load, self._sockets))

    def _wait_until_ready(self) -> bool:
        """Wait for every worker; False if one ends before. It has printed why."""
        for worker in self._workers:
            wait([worker.ready, worker.process.sentinel])
            if not worker.ready.poll() or self._stopping:
                return False
        return True

    def _keep_alive(self) -> None:
        """Replace workers that die."""
        while not self._stopping:
            wait([worker.process.sentinel for worker in self._workers], timeout=1.0)
            for worker in [one for one in self._workers if not one.process.is_alive()]:
                if self._stopping:
                    return
                log_event("worker_died", pid=worker.process.pid, code=worker.process.exitcode)
                self._workers.remove(worker)
                if time.monotonic() - worker.started < QUICK:
                    time.sleep(QUICK)
                self._start()

    def _join(self) -> None:
        for worker in self._workers:
            worker.process.join()

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        """Pass SIGTERM on: workers drain at the first, and exit at the second."""
        self._stopping += 1
        for worker in self._workers:
            worker.send(signal.SIGTERM)

    def _forward(self, number: int, _frame: FrameType | None) -> None:
        for worker in self._workers:
            worker.send(number)
