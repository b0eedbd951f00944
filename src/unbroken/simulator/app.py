"""The simulator as a server: real HTTP at the providers' own paths, for any SDK in any language.

On aiohttp, which hands out the socket: a TCP reset, a connection that is accepted and stays
silent, and one write for each event are part of what is simulated (docs/adr/0001).
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping

import msgspec
from aiohttp import web

from unbroken.simulator.scenario import Scenario
from unbroken.simulator.server import Entry, SimulatedServer
from unbroken.simulator.steps import Close, End, Hang, Head, Reset, Send, Step, Wait

_NO_LINGER = struct.pack("ii", 1, 0)  # SO_LINGER with no time: closing sends an RST


def application(scenarios: Mapping[str, Scenario] | None = None) -> web.Application:
    """The server's application; `scenarios` by model name, `*` for all others."""
    server = SimulatedServer(scenarios)

    async def answer(request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        steps, entry = server.answer(request.raw_path, headers, await request.read())
        try:
            return await _carry_out(request, steps, entry)
        except (asyncio.CancelledError, ConnectionError):
            entry.ended = "client left"
            raise

    async def log(_request: web.Request) -> web.Response:
        body = msgspec.json.encode([_without_keys(entry) for entry in server.log])
        return web.Response(body=body, content_type="application/json")

    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_get("/log", log)
    app.router.add_route("*", "/{path:.*}", answer)
    return app


def _without_keys(entry: Entry) -> Entry:
    """A real key that was sent here by mistake is shown to nobody."""
    secret = ("authorization", "x-api-key", "cookie")
    shown = {name: value for name, value in entry.headers.items() if name not in secret}
    return msgspec.structs.replace(entry, headers=shown)


async def _carry_out(
    request: web.Request, steps: Iterable[Step], entry: Entry
) -> web.StreamResponse:
    response = web.StreamResponse()
    for step in steps:
        match step:
            case Wait(seconds=seconds):
                await asyncio.sleep(seconds)
            case Head(status=status, headers=headers):
                entry.status = status
                response = web.StreamResponse(status=status, headers=headers)
                response.enable_chunked_encoding()
                await response.prepare(request)
            case Send(data=data):
                await response.write(data)
                entry.sent += len(data)
            case Hang():
                await asyncio.Event().wait()
            case Reset() | Close():
                entry.ended = "reset" if isinstance(step, Reset) else "closed"
                _break(request, reset=isinstance(step, Reset))
                return response
            case End():
                entry.ended = "whole"
                await response.write_eof()
    return response


def _break(request: web.Request, *, reset: bool) -> None:
    """End the connection without ending the body."""
    if request.transport is None:
        return
    sock = request.transport.get_extra_info("socket")
    if reset and sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    request.transport.abort() if reset else request.transport.close()


@contextlib.asynccontextmanager
async def serving(
    host: str = "127.0.0.1", port: int = 0, scenarios: Mapping[str, Scenario] | None = None
) -> AsyncIterator[str]:
    """Serve while the block runs; gives the server's URL. Port 0 takes a free one."""
    # A client that leaves cancels its handler, also before the first token.
    runner = web.AppRunner(
        application(scenarios), handler_cancellation=True, access_log=None, shutdown_timeout=1.0
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        bound = runner.addresses[0]
        yield f"http://{bound[0]}:{bound[1]}"
    finally:
        await runner.cleanup()


@contextlib.contextmanager
def running(scenarios: Mapping[str, Scenario] | None = None) -> Iterator[str]:
    """`serving` in a thread of its own, for callers that block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = serving(scenarios=scenarios)
    try:
        yield asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(10)
    finally:
        leave = server.__aexit__(None, None, None)
        asyncio.run_coroutine_threadsafe(leave, loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
