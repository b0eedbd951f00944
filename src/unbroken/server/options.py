"""The gateway's own options in a request, beside the fields of its dialect.

    fallbacks       models to try if `model` fails, in order
    on_disconnect   what happens when the last reader disconnects: "keep" finishes the answer,
                    "cancel" stops it at once, "grace" stops it unless a reader returns in time
    grace           that time, in seconds

They are fields of the body in every dialect, or of the query where there is no body.
"""

from collections.abc import Collection
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from unbroken.errors import BadRequest
from unbroken.messages import Request
from unbroken.ready import ready
from unbroken.server.records import OnDisconnect

MAX_KEY = 255
"""Characters of an idempotency key, as at Stripe."""

MAX_FALLBACKS = 16
"""Models of one request: each is a request of its own, prepared beforehand."""

MAX_GRACE = 86_400.0
"""Seconds of grace at most: a day."""


@ready
class RequestOptions(Struct, frozen=True):
    """The options of one request; None selects the default of the endpoint."""

    fallbacks: Annotated[list[str], Meta(max_length=MAX_FALLBACKS)] = []
    on_disconnect: OnDisconnect | None = None
    grace: Annotated[float, Meta(gt=0, le=MAX_GRACE)] | None = None


def split_options(request: Request) -> tuple[RequestOptions, Request]:
    """Return the options, and the request without them. BadRequest if one is invalid."""
    fields = {} if request.native is None else request.native.data
    ours = {n: v for n, v in {**fields, **request.extra}.items() if _is_option(n, v)}
    try:
        options = msgspec.convert(ours, RequestOptions, strict=False)
    except msgspec.ValidationError as error:
        raise BadRequest(str(error), status=400, code="invalid_request_error") from error
    return options, without(request, ours.keys())


def check_key(key: str) -> str:
    """Return the idempotency key. BadRequest if it is longer than a store can index."""
    if len(key) > MAX_KEY:
        said = f"an Idempotency-Key has at most {MAX_KEY} characters"
        raise BadRequest(said, status=400, code="invalid_request_error")
    return key


def without(request: Request, names: Collection[str]) -> Request:
    """The request without these fields, wherever its caller put them."""
    rest = {name: value for name, value in request.extra.items() if name not in names}
    native = request.native
    if native is not None:
        kept = {name: value for name, value in native.data.items() if name not in names}
        native = msgspec.structs.replace(native, data=kept)
    return msgspec.structs.replace(request, extra=rest, native=native)


def _is_option(name: str, value: Any) -> bool:
    """Whether a field is one of ours: Anthropic has `fallbacks` too, which are objects."""
    theirs = isinstance(value, list) and any(isinstance(item, dict) for item in value)
    return name in _NAMES and not theirs


_NAMES = frozenset(RequestOptions.__struct_fields__)
