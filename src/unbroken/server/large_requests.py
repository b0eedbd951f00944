"""Stores requests that are too large for one record, in pieces, in a stream of their own.

A store writes a record in one step, and every other answer waits for it: 40 MB held them up for
0.2 seconds. The first record of the answer then holds the name of that stream and no messages.
"""

import asyncio
import contextlib

import msgspec

from unbroken.errors import NotFound, StreamMissing
from unbroken.messages import Request
from unbroken.server.records import AnswerRequest, decode_request, encode_request
from unbroken.stores.base import End, NewStream, Store

PIECE = 512 * 1024
"""Bytes that are written in one step."""

OWNER = "_requests"
"""Owner of the streams; no caller has this name."""

_REFERENCE = b'{"stored_in":"req_'


async def store_request(store: Store, stream: str, request: AnswerRequest) -> bytes:
    """Return the first record of the answer `stream`. A large request is stored before."""
    record = encode_request(request)
    if len(record) <= PIECE:
        return record
    place, tail = f"req_{stream}", 0
    await store.create(NewStream(place, OWNER))
    for start in range(0, len(record), PIECE):
        tail = (await store.append(place, [record[start : start + PIECE]], tail)).tail
        await asyncio.sleep(0)
    await store.close(place, End("stored"), tail)  # so that retention removes it
    bare = Request(model=request.request.model, messages=(), n=request.request.n)
    return encode_request(msgspec.structs.replace(request, stored_in=place, request=bare))


async def load_record(store: Store, record: bytes) -> bytes:
    """Return the whole first record. Raises NotFound if the request has been deleted."""
    if not record.startswith(_REFERENCE):
        return record
    place = decode_request(record).stored_in
    pieces: list[bytes] = []
    try:
        while (page := await store.read(place, len(pieces))).records:
            pieces += [piece.data for piece in page.records]
    except StreamMissing as error:
        raise NotFound("the request of this answer has been deleted", status=404) from error
    return b"".join(pieces)


async def delete_request(store: Store, stream: str) -> None:
    """Delete what `store_request` has stored for an answer, if it has."""
    with contextlib.suppress(StreamMissing):
        await store.delete(f"req_{stream}")
