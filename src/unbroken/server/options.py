"""The gateway's own options in a request, beside the fields of its dialect.

    fallbacks       models to try if `model` fails, in order
    on_disconnect   what happens when the last reader disconnects: "keep" finishes the answer,
                    "cancel" stops it at once, "grace" stops it unless a reader returns in time
    grace           that time, in seconds

They are fields of the body in every dialect, or of the query where there is no body.
"""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from unbroken.errors import BadRequest
from unbroken.messages import Request
from unbroken.ready import ready
from unbroken.server.records import OnDisconnect

MAX_GRACE = 86_400.0
"""Seconds of grace at most: a day."""


@ready
class RequestOptions(Struct, frozen=True):
    """The options of one request; None selects the default of the endpoint."""

    fallbacks: list[str] = []
    on_disconnect: OnDisconnect | None = None
    grace: Annotated[float, Meta(gt=0, le=MAX_GRACE)] | None = None


def split_options(request: Request) -> tuple[RequestOptions, Request]:
    """Return the options, and the request without them. BadRequest if one is invalid.

    Fields that a dialect of a provider writes itself are dropped where the caller's own dialect
    does not know them: they would replace what was checked, logged and charged.
    """
    ours = {name: value for name, value in request.extra.items() if name in _NAMES}
    kept = request.extra.keys() - _NAMES - RESERVED
    rest = {name: value for name, value in request.extra.items() if name in kept}
    try:
        options = msgspec.convert(ours, RequestOptions, strict=False)
    except msgspec.ValidationError as error:
        raise BadRequest(str(error), status=400, code="invalid_request_error") from error
    return options, msgspec.structs.replace(request, extra=rest)


_NAMES = frozenset(RequestOptions.__struct_fields__)

RESERVED = frozenset(
    {
        "model",
        "messages",
        "input",
        "system",
        "instructions",
        "stream",
        "stream_options",
        "n",
        "max_tokens",
        "max_completion_tokens",
        "max_output_tokens",
        "inferenceConfig",
        "toolConfig",
    }
)
"""The model, the conversation, how it is streamed and reported, and the limits, in any dialect."""
