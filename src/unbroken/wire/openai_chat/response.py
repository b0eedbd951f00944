"""The answer of chat completions in one piece, read as the one chunk that it is."""

import msgspec

from unbroken.errors import ProviderError
from unbroken.events import Event
from unbroken.wire.codec import Frame
from unbroken.wire.error_body import UNREADABLE, not_an_answer
from unbroken.wire.lenient import mend
from unbroken.wire.openai_chat.chunks import Chunk
from unbroken.wire.openai_chat.passthrough import around
from unbroken.wire.openai_chat.reader import ChatReader


def decode_body(body: bytes) -> list[Event]:
    """The events of a whole answer.

    Raises RemoteProtocolError or ProviderError if it is no answer.
    """
    documents = [body] if _is_readable(body) else mend(body, Chunk)
    if not documents:
        raise not_an_answer(body)
    document, out = documents[0], list[Event]()
    reader = ChatReader(_expected(document), whole=True)
    reader.read([Frame(document)], out)
    if isinstance(reader.error, ProviderError):
        raise reader.error
    if reader.error is not None or reader.skipped or not out:
        raise not_an_answer(body)
    out += around(document)
    reader.eof(out)
    return out


def _is_readable(body: bytes) -> bool:
    try:
        return isinstance(msgspec.json.decode(body), dict)
    except UNREADABLE:
        return False


def _expected(body: bytes) -> int:
    """How many answers there are: one, where the calls of the first stand in a further choice."""
    choices = msgspec.json.decode(body).get("choices")
    listed = choices if isinstance(choices, list) else []
    found = [choice for choice in listed if isinstance(choice, dict)]
    made = ["tool_calls" in (choice.get("message") or ()) for choice in found]
    apart = any(made) and not made[0] and found[0].get("finish_reason") == "tool_calls"
    return 1 if apart else max(1, len(found))
