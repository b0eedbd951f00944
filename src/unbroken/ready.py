"""Types that threads may meet: msgspec's first use of a struct is not safe among them.

At its first decoding msgspec publishes what it knows of a struct before all fields are read, and
reading annotations lets other threads run: one that decodes the same struct then crashes the
process (msgspec 0.22, `StructInfo_Convert`). So a struct that is decoded inside of functions, or by
several modules, is made ready where it is defined; modules are run by one thread only.
"""

import threading
from typing import TypeVar

import msgspec

T = TypeVar("T")

_one_at_a_time = threading.RLock()


def ready(kind: type[T]) -> type[T]:
    """The type itself, now decodable by any thread. Raises what msgspec raises if it never is."""
    with _one_at_a_time:
        msgspec.json.Decoder(kind)
    return kind
