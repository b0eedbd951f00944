"""The JSON of a block or turn whose text came as deltas: marks stand where the text belongs.

The idea: a reader knows every field of a block but need not keep its text, which the accumulator
holds anyway. It hands over the block's JSON with a mark in the place of the text. A mark is a JSON
string that begins with NUL.
"""

import msgspec

TEXT = "\0text"
REASONING = "\0reasoning"
REFUSAL = "\0refusal"

_encode = msgspec.json.Encoder().encode


def arguments(call: int = 0) -> str:
    """The mark for the arguments of a call, as a JSON string."""
    return f"\0arguments{call}"


def arguments_json(call: int = 0) -> str:
    """The mark for the arguments of a call, as a JSON value."""
    return f"\0input{call}"


def template(value: object) -> str:
    """The JSON text of a value that holds marks."""
    return _encode(value).decode()


def fill(native: str, texts: dict[str, str], calls: dict[int, str]) -> str:
    """Put the texts, by mark, and the arguments of calls, by index, in the places of the marks."""
    if "\\u0000" not in native:
        return native
    for mark, text in texts.items():
        native = native.replace(template(mark), template(text))
    for index, text in calls.items():
        native = native.replace(template(arguments(index)), template(text))
        native = native.replace(template(arguments_json(index)), text.strip() or "{}")
    return native
