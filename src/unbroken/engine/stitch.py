"""Filters that join a new attempt to the text delivered so far, without repetition or a false join.

Each is given the events of the new attempt and returns what is new of them; `diverged` says why
the new attempt is not the rest of the old answer.

    ReplayFilter        the same request again: the answer must begin with what was delivered
    ContinuationFilter  the beginning was sent as prefill: only the rest is expected, but some
                        servers repeat the beginning, or its last words
    PromptFilter        the model was asked to go on: it must repeat the last words first
    RestartFilter       the answer begins again, as soon as there is content

Reasoning is not the answer: a second run of it is dropped. The arguments of a tool call that was
under way must begin as they did before, so that all of them come from one attempt.
"""

from collections.abc import Mapping

from unbroken.continuation import last_words
from unbroken.events import (
    CONTENT,
    BlockEnd,
    BlockStart,
    ChoiceEnd,
    Citation,
    Event,
    Logprobs,
    MessageEnd,
    MessageStart,
    OtherEvent,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
)

Channel = tuple[str, int, int]
"""What grows by itself: its kind, its choice, and the index of a tool call."""

_ECHO = 8
"""Characters of a whole answer so far that can't be repeated by chance."""

_OVERLAP = 12
"""Characters, in at least three words, that can't follow each other twice by chance."""

_ELSEWHERE = 32
"""Characters from the beginning of the old answer that show, when it then differs, that the model
began a new one."""

_WINDOW = 200
"""Characters before the cut among which repeated words are looked for."""


class _Prefix:
    """Text that was delivered on one channel, and how much of it has come again."""

    __slots__ = ("at", "text")

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def new(self, text: str) -> str | None:
        """Return what of `text` is new, or None if it contradicts what was delivered."""
        left = len(self.text) - self.at
        if left <= 0:
            return text
        if not self.text.startswith(text[:left], self.at):
            return None
        self.at += min(left, len(text))
        return text[left:]

    @property
    def is_complete(self) -> bool:
        """Whether all of it has come again."""
        return self.at >= len(self.text)


class ReplayFilter:
    """The answer again from its beginning; `delivered` is what must come first, by channel."""

    def __init__(self, delivered: Mapping[Channel, str], names: Mapping[Channel, str]) -> None:
        self.diverged = ""
        self.unread: list[Event] | None = None  # from an end on that came without a word
        self.accept_empty = False
        self._known = {channel: _Prefix(text) for channel, text in delivered.items()}
        self._names = names
        self._asides = self._boundaries = 0
        self._tokens: dict[tuple[int, bool], int] = {}

    def filter(self, events: list[Event]) -> list[Event]:
        """The new among the events; stops at a divergence."""
        out: list[Event] = []
        for at, event in enumerate(events):
            if self._is_empty_end(event):
                self.unread = events[at:]
                break
            self._one(event, out)
            if self.diverged:
                break
        return out

    def accept_end(self) -> list[Event]:
        """Believe the end in `unread`; return its events."""
        events, self.unread, self.accept_empty = self.unread or [], None, True
        return self.filter(events)

    def _is_empty_end(self, _event: Event) -> bool:
        return False

    def skip_asides(
        self, count: int, tokens: Mapping[tuple[int, bool], int], boundaries: int = 0
    ) -> "ReplayFilter":
        """What was delivered beside the text is expected again: `count` citations and other events,
        starts and ends of blocks, and logprobs of so many `tokens` by choice, of its text or of its
        refusal.
        """
        self._asides, self._tokens, self._boundaries = count, dict(tokens), boundaries
        return self

    def _one(self, event: Event, out: list[Event]) -> None:
        match event:
            case MessageStart() | ReasoningDelta():
                pass
            case TextDelta(text=text, choice=choice):
                self._grown(event, ("text", choice, 0), text, out)
            case RefusalDelta(text=text, choice=choice):
                self._grown(event, ("refusal", choice, 0), text, out)
            case ToolCallStart(index=index, name=name, choice=choice):
                self._named(event, ("call", choice, index), name, out)
            case ToolCallDelta(index=index, arguments=text, choice=choice):
                self._grown(event, ("call", choice, index), text, out)
            case Citation() | OtherEvent() if self._asides:
                self._asides -= 1
            case BlockStart() | BlockEnd() if self._boundaries:
                self._boundaries -= 1
            case Logprobs():
                self._likely(event, out)
            case ChoiceEnd(choice=choice):
                self._ended(event, choice, out)
            case _:
                out.append(event)

    def _grown(self, event: Event, channel: Channel, text: str, out: list[Event]) -> None:
        known = self._known.get(channel)
        new = text if known is None else known.new(text)
        if new is None:
            self.diverged = f"the second answer has another {_WORD[channel[0]]}"
        elif new or not text:
            out.append(event if new == text else _trimmed(event, new))

    def _named(self, event: Event, channel: Channel, name: str, out: list[Event]) -> None:
        expected = self._names.get(channel)
        if expected is None:
            out.append(event)
        elif expected != name:
            self.diverged = f"the second answer calls {name!r}, not {expected!r}"

    def _likely(self, event: Logprobs, out: list[Event]) -> None:
        at = event.choice, event.refusal
        known = self._tokens.get(at, 0)
        self._tokens[at] = max(0, known - len(event.tokens))
        if new := event.tokens[known:]:
            out.append(Logprobs(new, event.choice, event.refusal))

    def _ended(self, event: Event, choice: int, out: list[Event]) -> None:
        mine = (known for channel, known in self._known.items() if channel[1] == choice)
        if all(known.is_complete for known in mine):
            out.append(event)
        else:
            self.diverged = "the second answer is shorter than what was delivered"


class ContinuationFilter(ReplayFilter):
    """The rest of an answer of one choice, whose beginning `sent` was given back to the model.

    `delivered` is `sent`, and white space behind it that the provider refuses. `echoes`: the
    provider is known to repeat `sent` first, however short it is. Until `accept_empty` is set, an
    end without a word is not passed on but left in `unread`.
    """

    def __init__(
        self,
        delivered: str,
        sent: str,
        calls: Mapping[Channel, str],
        names: Mapping[Channel, str],
        *,
        echoes: bool = False,
    ) -> None:
        super().__init__(calls, names)
        self._delivered, self._sent, self._space = delivered, sent, delivered[len(sent) :]
        self._echoes = echoes
        self._held: list[str] = []
        self._met = self._brought = False

    def _is_empty_end(self, event: Event) -> bool:
        """Return whether the model ends by itself without having added a character."""
        ends = isinstance(event, ChoiceEnd) and event.finish_reason == "stop"
        if not ends or self.accept_empty or self._brought:
            return False
        held = "".join(self._held)
        return self._met or not held[self._repeated(held) :]

    def _one(self, event: Event, out: list[Event]) -> None:
        if self._met:
            self._brought = self._brought or type(event) in CONTENT
            super()._one(event, out)
        elif type(event) is TextDelta:
            self._held.append(event.text)
            self._meet(out, last=False)
        elif isinstance(event, ToolCallStart | ChoiceEnd | MessageEnd):
            self._meet(out, last=True)
            if not self.diverged:
                self._brought = True
                super()._one(event, out)
        elif isinstance(event, BlockStart | BlockEnd):
            pass  # the text goes on in the block that was cut
        else:
            super()._one(event, out)

    def _meet(self, out: list[Event], *, last: bool) -> None:
        """Let the text go on as soon as it is clear how it begins."""
        pieces, text = self._held, "".join(self._held)
        if not last and self._needs_more(text):
            return
        self._met, self._held = True, []
        self.diverged = self._difference(text)
        if self.diverged:
            return
        repeated = self._repeated(text)
        for piece in pieces:  # one by one, as they came: they are counted
            if rest := piece[repeated:]:
                self._brought = True
                out.append(TextDelta(rest))
            repeated = max(0, repeated - len(piece))

    def _difference(self, text: str) -> str:
        """Why `text` is not the rest of the answer; empty if nothing speaks against it."""
        alike = _common(text, self._delivered)
        other = alike < min(len(text), len(self._delivered)) and alike >= _ELSEWHERE
        return "the model began another answer instead of going on" if other else ""

    def _needs_more(self, text: str) -> bool:
        """Return whether more must come before it is clear that `text` is new."""
        if self._space.startswith(text) or (self._echoes and self._sent.startswith(text)):
            return True
        if len(text) < len(self._delivered) and self._delivered.startswith(text):
            return len(self._delivered) >= _ECHO
        tail = self._delivered[-_WINDOW:]
        longer = range(len(tail) - max(_OVERLAP, len(text) + 1) + 1)
        return any(tail.startswith(text, at) for at in longer)

    def _repeated(self, text: str) -> int:
        """Return how many characters at the beginning of `text` were delivered before."""
        delivered = self._delivered
        if self._echoes and text.startswith(self._sent):
            return len(self._sent) + _common(text[len(self._sent) :], self._space)
        if len(delivered) >= _ECHO and text.startswith(delivered) and not _periodic(delivered):
            return len(delivered)
        for at in range(max(0, len(delivered) - _WINDOW), len(delivered) - _OVERLAP + 1):
            again = delivered[at:]
            if text.startswith(again) and _is_distinctive(delivered, again):
                return len(again)
        return _common(text, self._space)


class PromptFilter(ContinuationFilter):
    """The rest of an answer from a model that was asked to repeat its last words first."""

    def __init__(self, delivered: str, sent: str) -> None:
        super().__init__(delivered, sent, {}, {})
        self._words = last_words(sent)
        self._lead = _LEAD if len(self._words) >= _OVERLAP else _MARKS

    def _needs_more(self, text: str) -> bool:
        if len(text) < len(self._delivered) and self._delivered.startswith(text):
            return True
        found = self._after_words(text)
        if found < 0:
            return len(text) < self._lead + len(self._words)
        return self._space.startswith(text[found:])

    def _difference(self, text: str) -> str:
        missing = self._after_words(text) < 0
        return "the model did not go on from the last words" if missing else ""

    def _repeated(self, text: str) -> int:
        at = max(0, self._after_words(text))
        return at + _common(text[at:], self._space)

    def _after_words(self, text: str) -> int:
        """Return where the rest begins in `text`; -1 if the last words are not there."""
        if text.startswith(self._sent):
            return len(self._sent)
        at = text.find(self._words, 0, self._lead + len(self._words))
        return -1 if at < 0 else at + len(self._words)


_LEAD = 200
"""Characters in front of the repeated last words, such as a sentence about what follows."""

_MARKS = 2
"""The same for last words so short that they might be found by chance: quotation marks."""


class RestartFilter(ReplayFilter):
    """Another answer instead of the delivered one: it diverges at its first content."""

    def __init__(self, reason: str) -> None:
        super().__init__({}, {})
        self._reason = reason

    def _one(self, event: Event, out: list[Event]) -> None:
        if type(event) in CONTENT or isinstance(event, ChoiceEnd | MessageEnd):
            self.diverged = self._reason
        elif not isinstance(event, MessageStart | BlockStart | BlockEnd):
            super()._one(event, out)


def _is_distinctive(delivered: str, again: str) -> bool:
    """Return whether the overlap is long enough (three words, no pattern) to be a repetition."""
    if len(again.split()) < 3:
        return False
    return not delivered.endswith(again + again) and not _periodic(again)


def _periodic(text: str) -> bool:
    """Whether the text is one piece over and over, such as a ruler or a laugh."""
    borders = [0] * len(text)
    length = 0
    for at in range(1, len(text)):
        while length and text[at] != text[length]:
            length = borders[length - 1]
        length += text[at] == text[length]
        borders[at] = length
    return bool(text) and (len(text) - borders[-1]) * 2 <= len(text)


def _common(one: str, other: str) -> int:
    """The length of the common beginning."""
    end = min(len(one), len(other))
    return next((at for at in range(end) if one[at] != other[at]), end)


def _trimmed(event: Event, text: str) -> Event:
    match event:
        case TextDelta(choice=choice):
            return TextDelta(text, choice)
        case RefusalDelta(choice=choice):
            return RefusalDelta(text, choice)
        case ToolCallDelta(index=index, choice=choice):
            return ToolCallDelta(index, text, choice)
    raise AssertionError(event)


_WORD = {"text": "text", "refusal": "refusal", "call": "tool call"}

StitchFilter = ReplayFilter
