"""A provider that costs little: prepared chunks of the OpenAI dialect, at the pace that is asked.

    python upstream.py      prints its port; `model` says the pace: "burst-400", "paced-300"

"paced-N" sends N events, 50 a second, "burst-N" and "short-N" all at once. Each carries the moment
at which it was sent, in microseconds of the machine's monotonic clock. It is sent on time however
slowly the gateway reads.
"""

import asyncio
import json
import random
import sys
import time

import uvloop

RATE = 50.0
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_LAST = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


def _event(delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    kind = "chat.completion.chunk"
    chunk = {"id": "chatcmpl-1", "object": kind, "created": 1, "model": "m", "choices": [choice]}
    data = b"data: %b\n\n" % json.dumps(chunk, separators=(",", ":")).encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


_FIRST, _END = _event({"role": "assistant", "content": ""}), _event({}, "stop")
_WORD = _event({"content": " T00000000000000"})


def _now() -> bytes:
    return _WORD.replace(b"00000000000000", b"%014d" % (time.monotonic_ns() // 1000))


class Upstream(asyncio.Protocol):
    """One connection; answers whole requests, one after the other."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._seen = b""

    def data_received(self, data: bytes) -> None:
        self._seen += data
        head, found, body = self._seen.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next((line for line in lines if line.startswith(b"content-length")), b":0")
        if found and len(body) >= int(length.partition(b":")[2]):
            self._seen = b""
            kind, _, count = json.loads(body)["model"].rpartition("/")[2].partition("-")
            self._answer(kind, int(count or 3))

    def _answer(self, kind: str, count: int) -> None:
        self._transport.write(_HEAD + _FIRST)
        if kind != "paced":
            words = [_now() for _ in range(count)]  # not all the same: LiteLLM would give up
            self._transport.write(b"".join(words) + _END + _LAST)
            return
        self._loop = asyncio.get_running_loop()
        self._left, self._next = count, self._loop.time() + random.random() / RATE
        self._loop.call_at(self._next, self._tick)

    def _tick(self) -> None:
        if self._transport.is_closing():
            return
        if not self._left:
            self._transport.write(_END + _LAST)
            return
        self._transport.write(_now())
        self._left -= 1
        self._next += 1 / RATE
        self._loop.call_at(self._next, self._tick)


async def main() -> None:
    """Serve until killed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Upstream, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))
