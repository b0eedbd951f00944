"""JSON that is still being written, read as far as it goes (docs/adr/0006).

What was cut in the middle is left out, but for strings: they are there as far as they have come.
"""

from typing import Any


def partial_json(text: str) -> Any:
    """The value that `text` begins; None where nothing can be read of it, or it is no JSON."""
    from jiter import from_json

    try:
        return from_json(text.encode("utf-8", "replace"), partial_mode="trailing-strings")
    except ValueError:
        return None


def partial_object(text: str) -> dict[str, Any]:
    """The object that `text` begins; an empty one where it is none."""
    found = partial_json(text)
    return found if isinstance(found, dict) else {}
