"""Text that reads as an answer, from nothing but the prompt and a seed.

It picks up the prompt's own words, so that answers differ as prompts do, and it is cut into
pieces of about four characters, as models do. Some of it is not ASCII, so that a cut in the
middle of a character is a real one.
"""

import re

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
_COUNTED = re.compile(r"\b(\d+|one|two|three|four|five)\s+sentences?\b", re.IGNORECASE)
_NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5}


def pieces(text: str) -> list[str]:
    """The text cut as a tokenizer would; joined they are the text again."""
    return _PIECE.findall(text)


def answer(prompt: str, seed: str, tokens: int | None) -> str:
    """An answer to the prompt, about `tokens` long; the length is drawn where it is None."""
    rng = Rng(f"{seed}\n{prompt}")
    wanted = _COUNTED.search(prompt)
    if tokens is None and wanted is not None:
        count = wanted.group(1).lower()
        return " ".join(_sentences(prompt, rng, _NUMBERS.get(count) or min(int(count), 200)))
    length = tokens if tokens is not None else 60 + rng.below(120)
    return _of_length(prompt, rng, length)


def _of_length(prompt: str, rng: Rng, length: int) -> str:
    parts: list[str] = [rng.pick(_OPENINGS)]
    cut = pieces(parts[0])
    while len(cut) < length:
        parts.append(_paragraph(prompt, rng, len(parts)))
        cut += pieces("\n\n" + parts[-1])
    return "".join(pieces("\n\n".join(parts))[:length])


def _paragraph(prompt: str, rng: Rng, number: int) -> str:
    if number % 3 == 2:
        words = _words(prompt)
        points = (point.format(a=rng.pick(words), b=rng.pick(words)) for point in _POINTS)
        return "\n".join(f"- {point}" for point in points)
    return " ".join(_sentences(prompt, rng, 3 + rng.below(2), known=number == 1))


def _sentences(prompt: str, rng: Rng, count: int, *, known: bool = True) -> list[str]:
    """What is known of the subject first, then sentences about the prompt's own words."""
    lower = prompt.lower()
    said = [line for key, lines in _KNOWN.items() if known and key in lower for line in lines]
    words = _words(prompt)
    frames = sorted(_FRAMES, key=lambda _frame: rng.random())  # each once before any comes again
    while len(said) < count:
        at = len(said)
        a, b = words[at % len(words)], words[(at + 1) % len(words)]
        said.append(frames[at % len(frames)].format(a=a, b=b))
    return said[:count]


def _words(prompt: str) -> list[str]:
    """The words a prompt is about."""
    found = re.findall(r"[^\W\d_][\w-]*", prompt)
    telling = [word for word in dict.fromkeys(found) if word.lower() not in _COMMON]
    two = telling[:12] or ["the question"]
    return two if len(two) > 1 else [*two, "the rest"]
