"""A conversation that fits: the oldest turns go first, the system message stays."""

from collections.abc import Sequence

from unbroken.messages import Image, Message, Text

_CHARACTERS_PER_TOKEN = 4  # the usual rule of thumb; a bound for the history needs no more
_PER_MESSAGE = 4  # tokens around each message, in OpenAI's own counting guide
_PER_IMAGE = 1000


def tokens(message: Message) -> int:
    """About how many tokens a message takes."""
    count = _PER_MESSAGE
    for part in message.parts:
        if isinstance(part, Text):
            count += -(-len(part.text) // _CHARACTERS_PER_TOKEN)
        elif isinstance(part, Image):
            count += _PER_IMAGE
    return count


def fitting(messages: Sequence[Message], limit: int) -> list[Message]:
    """The newest messages within `limit` tokens, and all system messages.

    The last message always stays. What remains begins with a turn of the user: an answer
    without its question means nothing.
    """
    system = [message for message in messages if message.role == "system"]
    turns = [message for message in messages if message.role != "system"]
    left = limit - sum(map(tokens, system))
    kept = len(turns)
    while kept and (kept == len(turns) or tokens(turns[kept - 1]) <= left):
        kept -= 1
        left -= tokens(turns[kept])
    while kept < len(turns) - 1 and turns[kept].role != "user":
        kept += 1
    return [*system, *turns[kept:]]
