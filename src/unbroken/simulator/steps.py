"""What a simulated answer is made of: steps that a transport or a server carries out."""

from msgspec import Struct

from unbroken.errors import ProviderError
from unbroken.wire.codec import Codec


class Wait(Struct, frozen=True):
    """Nothing happens for so many seconds."""

    seconds: float


class Head(Struct, frozen=True):
    """The status line and the headers."""

    status: int
    headers: dict[str, str]


class Send(Struct, frozen=True):
    """Bytes of the body. `role` says what they are to faults; `text` is the content they carry."""

    data: bytes
    role: str = ""
    text: str = ""


class Reset(Struct, frozen=True):
    """The connection breaks with an RST."""


class Close(Struct, frozen=True):
    """The connection is closed in the middle of the body."""


class End(Struct, frozen=True):
    """The body ends cleanly."""


class Hang(Struct, frozen=True):
    """Nothing happens any more."""


Step = Wait | Head | Send | Reset | Close | End | Hang

SIMULATED = {"x-simulated": "unbroken", "cache-control": "no-cache"}
JSON = {**SIMULATED, "content-type": "application/json"}


def refuse(error: ProviderError, codec: Codec) -> list[Step]:
    """The steps of an error answer."""
    headers = dict(JSON)
    if error.retry_after is not None:
        headers["retry-after"] = f"{error.retry_after:g}"
    return [Head(error.status or 500, headers), Send(codec.dialect.encode_error(error)), End()]
