"""Text that reads as an answer, made from the prompt and a seed.

It uses the prompt's own words, so that answers differ as prompts do, and it is cut into pieces of
about four characters, as a tokenizer would. Some of it is not ASCII, so that a cut in the middle of
a character is a real one. It is made as it is read: an answer of any length costs nothing before.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import islice

from unbroken.simulator.rng import Rng

_KNOWN: dict[str, tuple[str, ...]] = {
    "tcp": (
        "The client opens with a SYN that carries its first sequence number, x.",
        "The server answers SYN-ACK: its own number, y, and x + 1 to say that it has heard.",
        "The client's ACK of y + 1 closes the handshake: each side knows that it is heard.",
        "Only then does data flow – and with TLS on top, one more round trip passes first.",
    ),
    "stream": (
        "A stream shows the first words after the time to first token, not after the whole answer.",
        "Each piece travels as one event, and the reader sees it as soon as it is there.",
        "What matters is the end: only the provider's own terminal says that nothing is missing.",
    ),
    "python": (
        "In Python the clearest loop is the one that a reader can say aloud.",
        "A context manager closes what it opened, even when the middle fails.",
        "Types at the border keep surprises out of the core.",
    ),
}

_FRAMES = (
    "The short answer is that {a} depends on {b} more than people expect.",
    "Start with {a}: it decides what {b} may cost later.",
    "In practice {a} and {b} are one question seen from two sides – naïvely split, they drift.",
    "A good test is to change {a} and watch whether {b} still holds.",
    "Most trouble with {a} comes from treating {b} as a detail.",
    "If {a} fails, {b} should say so plainly rather than carry on.",
    "Nothing here is specific to {a}; the same holds for {b} in any café or 東京 data centre.",
    "Measure {a} before you tune {b}, and keep the numbers.",
    "Write down what {a} promises, then let {b} rely on that and on nothing else.",
    "Once {a} is simple, {b} tends to follow. ✓",
)
_OPENINGS = ("Here is the idea.", "In a few words:", "Good question.", "Step by step, then.")
_POINTS = ("keep **{a}** small", "name `{b}` once", "check {a} first", "let {b} fail loudly")
_COMMON = frozenset(
    "a about above all an and answer any are as at be by can do does explain for from give has "
    "have how i if in into is it its me my no not of on or our please say sentence sentences "
    "short simple so tell than that the their them then there these they this to up us was we "
    "what when where which who why will with word words would write you your".split()
)
_PIECE = re.compile(r" ?[^\s]{1,5}|\s")
_COUNTED = re.compile(r"\b(\d{1,9}|one|two|three|four|five)\s+sentences?\b", re.IGNORECASE)
_NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5}

MAX_SENTENCES = 200

_SUBJECT = 4096
"""Characters of a prompt that are searched for its subject: prompts may have megabytes."""


def pieces(text: str) -> list[str]:
    """Cut the text as a tokenizer would; joined, the pieces are the text again."""
    return _PIECE.findall(text)


def count(text: str) -> int:
    """The number of pieces; estimated beyond the first characters of a long text."""
    return len(pieces(text[:_SUBJECT])) + len(text[_SUBJECT:]) // 4


def cut(parts: Iterable[str]) -> Iterator[str]:
    """Cut text that comes in parts. Each part but the last ends where a word does."""
    for part in parts:
        yield from pieces(part)


def answer(prompt: str, seed: str, tokens: int | None) -> Iterator[str]:
    """Yield the pieces of an answer of about `tokens`; the length is drawn if it is None."""
    rng = Rng(f"{seed}\n{prompt}")
    subject = _Subject(prompt[:_SUBJECT])
    wanted = _COUNTED.search(prompt[:_SUBJECT])
    if tokens is None and wanted is not None:
        number = wanted.group(1).lower()
        sentences = _NUMBERS.get(number) or min(int(number), MAX_SENTENCES)
        return cut([" ".join(subject.sentences(rng, sentences))])
    length = tokens if tokens is not None else 60 + rng.below(120)
    return islice(cut(_paragraphs(subject, rng)), max(length, 0))


def _paragraphs(subject: "_Subject", rng: Rng) -> Iterator[str]:
    """Yield paragraphs without end."""
    yield rng.pick(_OPENINGS)
    number = 1
    while True:
        yield "\n\n" + _paragraph(subject, rng, number)
        number += 1


def _paragraph(subject: "_Subject", rng: Rng, number: int) -> str:
    if number % 3 == 2:
        words = subject.words
        points = (point.format(a=rng.pick(words), b=rng.pick(words)) for point in _POINTS)
        return "\n".join(f"- {point}" for point in points)
    return " ".join(subject.sentences(rng, 3 + rng.below(2), known=number == 1))


class _Subject:
    """What a prompt is about."""

    def __init__(self, prompt: str) -> None:
        lower = prompt.lower()
        self.words = _words(prompt)
        self._known = [line for key, lines in _KNOWN.items() if key in lower for line in lines]

    def sentences(self, rng: Rng, count: int, *, known: bool = True) -> list[str]:
        """What is known of the subject first, then sentences with the prompt's own words."""
        made = list(self._known) if known else []
        frames = sorted(_FRAMES, key=lambda _frame: rng.random())  # each once before any repeats
        while len(made) < count:
            at = len(made)
            a, b = self.words[at % len(self.words)], self.words[(at + 1) % len(self.words)]
            made.append(frames[at % len(frames)].format(a=a, b=b))
        return made[:count]


def _words(prompt: str) -> list[str]:
    """The words a prompt is about."""
    found = re.findall(r"[^\W\d_][\w-]{0,63}", prompt)
    telling = [word for word in dict.fromkeys(found) if word.lower() not in _COMMON]
    two = telling[:12] or ["the question"]
    return two if len(two) > 1 else [*two, "the rest"]
