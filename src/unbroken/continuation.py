"""The prompt that continues a cut answer at a model that takes no prefill.

The model is asked to repeat the last words of the answer before it goes on. The repetition is the
check: text that does not contain those words at its beginning is not the rest of this answer.
"""

import re

_LAST = 80
"""Characters of the answer that the model repeats."""

_PROMPT = (
    "The network cut your last message off. Write the rest of it. Begin with its last words, "
    "exactly as they stand between the tags, then go on from there to the end. Do not comment, do "
    "not apologise, and repeat nothing else. If nothing is missing, write only these words.\n"
    "<last_words>{words}</last_words>"
)

_WORDS = re.compile(r"<last_words>(.*)</last_words>\Z", re.DOTALL)


def last_words(text: str) -> str:
    """Return the end of `text` that is repeated: up to 80 characters, whole words if it has any."""
    end = text.rstrip()
    if len(end) <= _LAST:
        return end.lstrip()
    tail = end[-_LAST:]
    _, space, words = tail.partition(" ")
    return words.lstrip() if space and len(words) > _LAST // 2 else tail.lstrip()


def continuation_prompt(text: str) -> str:
    """Return the user message that asks for the rest of the answer that begins with `text`."""
    return _PROMPT.format(words=last_words(text))


def words_in(prompt: str) -> str | None:
    """Return the last words that a continuation prompt contains; None for any other message."""
    found = _WORDS.search(prompt)
    return found and found[1] if prompt.startswith(_PROMPT[:40]) else None
