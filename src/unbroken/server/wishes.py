"""What a question may ask of the gateway itself, beside its dialect's own words.

    fallbacks       models that stand in for `model`, in order
    on_disconnect   what becomes of the answer when its last reader leaves: "keep" finishes it,
                    "cancel" stops it at once, "grace" stops it unless somebody is back in time
    grace           that time, in seconds

They stand in the body of every dialect, or in the query where there is no body.
"""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from unbroken.errors import BadRequest
from unbroken.messages import Request
from unbroken.ready import ready
from unbroken.server.records import OnDisconnect

LONGEST = 86_400.0
"""Seconds of grace at most: a day."""


@ready
class Wishes(Struct, frozen=True):
    """What was asked for; None: as the endpoint does it."""

    fallbacks: list[str] = []
    on_disconnect: OnDisconnect | None = None
    grace: Annotated[float, Meta(gt=0, le=LONGEST)] | None = None


def wishes_of(request: Request) -> tuple[Wishes, Request]:
    """The wishes in a request, and the request without them. BadRequest names what is wrong."""
    ours = {name: value for name, value in request.extra.items() if name in _NAMES}
    rest = {name: value for name, value in request.extra.items() if name not in _NAMES}
    try:
        wishes = msgspec.convert(ours, Wishes, strict=False)
    except msgspec.ValidationError as error:
        raise BadRequest(str(error), status=400, code="invalid_request_error") from error
    return wishes, msgspec.structs.replace(request, extra=rest)


_NAMES = frozenset(Wishes.__struct_fields__)
