"""WebSocket /ws: start, follow and cancel, several answers over one socket. All messages are JSON.

    you    {"type": "start", "ref": "1", "request": {... as for chat completions ...}}
           and, if it may come twice, "idempotency_key": the same key, the same answer
           {"type": "follow", "stream": ID, "after": OFFSET}
           {"type": "cancel", "stream": ID}
    we     {"type": "started", "ref": "1", "stream": ID}
           {"type": "events", "stream": ID, "offset": OFFSET, "events": [...]}
           {"type": "end", "stream": ID, "state": ..., "final": {...}}
           {"type": "error", "ref" or "stream": ..., "error": {"message", "type", "code"}}

What is started is followed, too. A socket that closes leaves its answers running. A message has at
most as many bytes as a body may have.
"""

import asyncio
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from unbroken.errors import BadRequest, UnbrokenError
from unbroken.server.bodies import parse_request, too_large
from unbroken.server.endpoints import DIGITS, to_provider_error
from unbroken.server.gateway import Gateway, is_exhausted, reader_of
from unbroken.server.records import DETACHED, end_error
from unbroken.server.tail import RecordBatch
from unbroken.stores.base import End
from unbroken.wire.openai_chat.dialect import CODEC


class ClientMessage(Struct):
    """What the other side asks for."""

    type: Literal["start", "follow", "cancel"]
    ref: str = ""
    stream: str = ""
    after: Annotated[int, Meta(ge=0, lt=10**DIGITS)] = 0
    idempotency_key: str = ""
    request: Raw = Raw(b"{}")


_wish = msgspec.json.Decoder(ClientMessage).decode
_encode = msgspec.json.Encoder().encode

MAX_FOLLOWED = 64
"""Answers that one socket may follow at a time."""


class _Connection:
    """One socket, and the answers it follows."""

    def __init__(self, socket: WebSocket, server: Gateway) -> None:
        self._socket, self._server = socket, server
        self._followed: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        try:
            while True:
                await self._handle(await self._receive())
        except WebSocketDisconnect:
            pass
        finally:
            for task in self._followed.values():
                task.cancel()
            await asyncio.gather(*self._followed.values(), return_exceptions=True)

    async def _receive(self) -> str | None:
        """The next message; None if it is no text. WebSocketDisconnect when there are no more."""
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1000))
        return message.get("text")

    async def _handle(self, text: str | None) -> None:
        """What is wrong with a message is told; the socket stays."""
        message = ClientMessage("follow")
        try:
            message = _wish(_text(text, self._server.settings.max_body))
            await _HANDLERS[message.type](self, message)
        except msgspec.DecodeError as error:
            refusal = BadRequest(str(error), status=400, code="invalid_request_error")
            await self._refuse(message, refusal)
        except WebSocketDisconnect:
            raise
        except Exception as error:  # noqa: BLE001  # a fault of ours does not end the others
            await self._refuse(message, error)

    async def _refuse(self, message: ClientMessage, error: Exception) -> None:
        said = msgspec.json.decode(CODEC.dialect.encode_error(to_provider_error(error)))
        await self._send({"type": "error", "ref": message.ref, "stream": message.stream, **said})

    async def _start(self, message: ClientMessage) -> None:
        self._check()  # before there is anything to pay for
        asked = await parse_request(bytes(message.request), CODEC)
        created = await self._server.begin(self._socket, asked, "keep", key=message.idempotency_key)
        stream = created.stream.id
        await self._send({"type": "started", "ref": message.ref, "stream": stream})
        self._follow(stream, 0)

    async def _join(self, message: ClientMessage) -> None:
        stream = await self._server.readable(self._socket, message.stream)
        ended = is_exhausted(stream, message.after)  # it is told so again
        self._follow(message.stream, stream.tail if ended else message.after)

    async def _cancel(self, message: ClientMessage) -> None:
        await self._server.owned(self._socket, message.stream)
        await self._server.answers.stop(message.stream)

    def _check(self) -> None:
        if len(self._followed) >= MAX_FOLLOWED:
            said = f"one socket follows at most {MAX_FOLLOWED} answers"
            raise BadRequest(said, status=400, code="too_many_streams")

    def _follow(self, stream: str, after: int) -> None:
        if stream in self._followed:
            return
        self._check()
        self._server.followers.check(reader_of(self._socket))
        task = asyncio.create_task(self._tell(stream, after))
        self._followed[stream] = task
        task.add_done_callback(lambda _: self._followed.pop(stream, None))

    async def _tell(self, stream: str, after: int) -> None:
        followed = self._server.answers.follow(stream, after)
        try:
            with self._server.followers.taken(reader_of(self._socket)):
                async for item in followed:
                    await self._pass_on(stream, item)
        finally:
            await followed.aclose()

    async def _pass_on(self, stream: str, item: list[RecordBatch] | End) -> None:
        if isinstance(item, list):
            for batch in item:
                told = {"type": "events", "stream": stream, "offset": batch.offset}
                await self._send({**told, "events": Raw(batch.data)})
        elif item.state == DETACHED and (error := end_error(item)):
            await self._refuse(ClientMessage("follow", stream=stream), error)
        else:
            final = Raw(item.final or b"{}")
            ended = {"type": "end", "stream": stream, "state": item.state, "final": final}
            await self._send(ended)

    async def _send(self, message: dict[str, Any]) -> None:
        await self._socket.send_text(_encode(message).decode())


def _text(said: str | None, most: int) -> bytes:
    if said is None:
        refusal = "messages are JSON text, not bytes"
        raise BadRequest(refusal, status=400, code="invalid_request_error")
    text = said.encode()
    if len(text) > most:
        raise too_large(most)
    return text


_HANDLERS = {
    "start": _Connection._start,
    "follow": _Connection._join,
    "cancel": _Connection._cancel,
}


async def _serve(socket: WebSocket) -> None:
    server: Gateway = socket.app.state.gateway
    try:
        await server.caller(socket)
    except UnbrokenError as error:
        await socket.close(4401, str(error)[:100])
        return
    await socket.accept()
    await _Connection(socket, server).run()


routes = [WebSocketRoute("/ws", _serve)]
