"""Where a second attempt meets what was delivered of the first: nothing twice, nothing glued.

Two seams, one for each way of going on. Both are given the events of the new attempt and return
what is new of them; `diverged` says that the new attempt is not the rest of the old answer.

    Replayed    the same question again: the answer must begin with what was delivered
    Continued   the beginning was sent back: only the rest is expected, but some servers say the
                beginning, or its last words, again

Reasoning is not the answer: a second run of it is dropped. The arguments of a tool call that was
under way must begin as they did before, so that all of them come from one attempt.
"""

from collections.abc import Mapping

from unbroken.events import (
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
"""Characters of a whole answer so far that can't be said again by chance."""

_OVERLAP = 12
"""Characters, in at least three words, that can't be said twice in a row by chance."""

_ELSEWHERE = 32
"""Characters from the beginning of the old answer that show, when it then differs, that the model
began a new one."""

_WINDOW = 200
"""Characters before the cut among which words said again are looked for."""


class _Known:
    """What was delivered on one channel, and how much of it has been heard again."""

    __slots__ = ("at", "text")

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def new(self, said: str) -> str | None:
        """What of `said` is new; None if it contradicts what was delivered."""
        left = len(self.text) - self.at
        if left <= 0:
            return said
        if not self.text.startswith(said[:left], self.at):
            return None
        self.at += min(left, len(said))
        return said[left:]

    @property
    def heard(self) -> bool:
        return self.at >= len(self.text)


class Replayed:
    """The answer again from its beginning; `delivered` is what must come first, by channel."""

    def __init__(self, delivered: Mapping[Channel, str], names: Mapping[Channel, str]) -> None:
        self.diverged = ""
        self._known = {channel: _Known(text) for channel, text in delivered.items()}
        self._names = names
        self._asides = self._boundaries = 0
        self._tokens: dict[tuple[int, bool], int] = {}

    def sift(self, events: list[Event]) -> list[Event]:
        """The new among the events; stops at a divergence."""
        out: list[Event] = []
        for event in events:
            self._one(event, out)
            if self.diverged:
                break
        return out

    def skip_asides(
        self, count: int, tokens: Mapping[tuple[int, bool], int], boundaries: int = 0
    ) -> "Replayed":
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

    def _grown(self, event: Event, channel: Channel, said: str, out: list[Event]) -> None:
        known = self._known.get(channel)
        new = said if known is None else known.new(said)
        if new is None:
            self.diverged = f"the second answer has another {_WORD[channel[0]]}"
        elif new or not said:
            out.append(event if new == said else _trimmed(event, new))

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
        if all(known.heard for known in mine):
            out.append(event)
        else:
            self.diverged = "the second answer is shorter than what was delivered"


class Continued(Replayed):
    """The rest of an answer of one choice, whose beginning `sent` was given back to the model.

    `told` is the text as delivered: `sent`, and white space behind it that the provider refuses.
    `echoes`: the provider is known to say `sent` again first, however short it is.
    """

    def __init__(
        self,
        told: str,
        sent: str,
        calls: Mapping[Channel, str],
        names: Mapping[Channel, str],
        *,
        echoes: bool = False,
    ) -> None:
        super().__init__(calls, names)
        self._told, self._sent, self._space = told, sent, told[len(sent) :]
        self._echoes = echoes
        self._held: list[str] = []
        self._met = False

    def _one(self, event: Event, out: list[Event]) -> None:
        if self._met:
            super()._one(event, out)
        elif type(event) is TextDelta:
            self._held.append(event.text)
            self._meet(out, last=False)
        elif isinstance(event, ToolCallStart | ChoiceEnd | MessageEnd):
            self._meet(out, last=True)
            if not self.diverged:
                super()._one(event, out)
        elif isinstance(event, BlockStart | BlockEnd):
            pass  # the text goes on in the block that was cut
        else:
            super()._one(event, out)

    def _meet(self, out: list[Event], *, last: bool) -> None:
        """Let the text go on as soon as it is clear how it begins."""
        pieces, said = self._held, "".join(self._held)
        if not last and self._may_repeat(said):
            return
        self._met, self._held = True, []
        alike = _common(said, self._told)
        if alike < min(len(said), len(self._told)) and alike >= _ELSEWHERE:
            self.diverged = "the model began another answer instead of going on"
            return
        heard = self._repeated(said)
        for piece in pieces:  # one by one, as they came: they are counted
            if rest := piece[heard:]:
                out.append(TextDelta(rest))
            heard = max(0, heard - len(piece))

    def _may_repeat(self, said: str) -> bool:
        """More must come before it is clear whether `said` is new."""
        if self._space.startswith(said) or (self._echoes and self._sent.startswith(said)):
            return True
        if len(said) < len(self._told) and self._told.startswith(said):
            return len(self._told) >= _ECHO
        tail = self._told[-_WINDOW:]
        longer = range(len(tail) - max(_OVERLAP, len(said) + 1) + 1)
        return any(tail.startswith(said, at) for at in longer)

    def _repeated(self, said: str) -> int:
        """How many characters at the beginning of `said` were delivered before."""
        told = self._told
        if self._echoes and said.startswith(self._sent):
            return len(self._sent) + _common(said[len(self._sent) :], self._space)
        if len(told) >= _ECHO and said.startswith(told) and not _periodic(told):
            return len(told)
        for at in range(max(0, len(told) - _WINDOW), len(told) - _OVERLAP + 1):
            again = told[at:]
            if said.startswith(again) and _telling(told, again):
                return len(again)
        return _common(said, self._space)


def _telling(told: str, again: str) -> bool:
    """Words said twice at a seam that nobody says twice: three of them, and no pattern."""
    if len(again.split()) < 3:
        return False
    return not told.endswith(again + again) and not _periodic(again)


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

Seam = Replayed | Continued
