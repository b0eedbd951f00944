"""Asks a gateway and reads its streams, as cheaply as Python can; what came, when, and how late."""

import asyncio
import json
import re
import time

_SENT = re.compile(rb" T(\d{14})")
_CHUNK = re.compile(rb"\r\n[0-9a-f]+\r\n")  # nginx cuts anywhere, in the middle of a word as well


class Answer:
    """One answer: seconds to its first token, its events, how late each was (milliseconds)."""

    def __init__(self) -> None:
        self.first = 0.0
        self.late: list[float] = []


async def ask(port: int, model: str) -> Answer:
    """One question, read to its end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    content = [{"role": "user", "content": "Hi"}]
    body = json.dumps({"model": f"openai/{model}", "stream": True, "messages": content}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer k\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    answer, begun, held = Answer(), time.perf_counter(), b""
    writer.write(head.encode() + body)
    try:
        while data := await reader.read(1 << 18):
            now = time.monotonic_ns() / 1000
            held = _CHUNK.sub(b"", held + data)
            end = 0
            for match in _SENT.finditer(held):
                answer.late.append((now - int(match[1])) / 1000)
                end = match.end()
            if answer.late and not answer.first:
                answer.first = time.perf_counter() - begun
            if b"[DONE]" in held[-400:]:
                break
            held = held[end:] if end else held[-2000:]
    finally:
        writer.close()
    return answer


async def many(port: int, model: str, count: int) -> list[Answer]:
    """So many at once."""
    return await asyncio.gather(*(ask(port, model) for _ in range(count)))
