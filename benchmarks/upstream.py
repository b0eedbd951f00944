"""The server that all clients are measured against: one burst of prepared bytes a request.

It answers any POST with EVENTS text chunks of the OpenAI chat dialect, one HTTP chunk each, as
providers send them. Everything is encoded beforehand, so that the reader is the bottleneck.
"""

import asyncio
import json
import sys

EVENTS = 5_000


def _event(delta: dict[str, str], finish: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    chunk = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "gpt-4o",
        "choices": [choice],
        "usage": None,
    }
    return b"data: %b\n\n" % json.dumps(chunk, separators=(",", ":")).encode()


def _body() -> bytes:
    words = [_event({"content": f" word{n % 97}"}, None) for n in range(EVENTS)]
    first = _event({"role": "assistant", "content": ""}, None)
    events = [first, *words, _event({}, "stop"), b"data: [DONE]\n\n"]
    return b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events) + b"0\r\n\r\n"


_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_ANSWER = _HEAD + _body()


class Upstream(asyncio.Protocol):
    """Answers once a whole request is there."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._seen = b""

    def data_received(self, data: bytes) -> None:
        self._seen += data
        head, found, body = self._seen.partition(b"\r\n\r\n")
        lengths = [
            line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
        ]
        if found and len(body) >= int(lengths[0].partition(b":")[2]):
            self._seen = b""
            self._transport.write(_ANSWER)  # type: ignore[attr-defined]


async def main() -> None:
    """Serve until killed; the first line printed is the port."""
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
