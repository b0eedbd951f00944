"""Judging why a model stopped: by the table of a dialect, or as a word that no table knows.

An unknown word is never `stop`: the answer may be a failed one. The policy decides what becomes of
it; see `ChoiceEnd.known`.
"""

from collections.abc import Mapping

from unbroken.errors import ServerError
from unbroken.events import ChoiceEnd, FinishReason

Words = Mapping[str, FinishReason]
"""Finish words in lower case."""


def judge(words: Words, raw: str, choice: int = 0) -> ChoiceEnd:
    """How a choice ended. `raw` may hold two words, `content_filter: SAFETY`: the second counts."""
    word = raw.strip().lower()
    first, _, second = word.partition(":")
    known = (words[name] for name in (word, second.strip(), first.strip()) if name in words)
    reason = next(known, None)
    return ChoiceEnd(reason or "error", raw, choice, known=reason is not None)


def is_failure(end: ChoiceEnd) -> bool:
    """Whether the provider says that it failed."""
    return end.known and end.finish_reason == "error"


def failure(end: ChoiceEnd) -> ServerError:
    """The error that a failed end stands for. It may be tried again."""
    return ServerError(f"the provider ended the answer with {end.raw!r}", code=end.raw)
