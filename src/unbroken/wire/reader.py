"""What all readers of streamed answers share: the loop over frames, and what to do with odd ones.

A frame is read in the fastest way that fits: as one like the last but for its text (see
`chunk_template`), else by the types of the dialect, else leniently. A frame that can't be read at
all ends the attempt if it may hold content, so that no answer with a hole in it is complete;
other frames are skipped and counted.
"""

import re
from typing import ClassVar

import msgspec

from unbroken.errors import RemoteProtocolError, UnbrokenError
from unbroken.events import ChoiceEnd, Event, TextDelta
from unbroken.wire.chunk_template import ChunkTemplate
from unbroken.wire.codec import Frame
from unbroken.wire.error_body import UNREADABLE
from unbroken.wire.finish import Words, failure, is_failure, judge
from unbroken.wire.lenient import mend

_CONTENT = re.compile(
    rb'"(?:content|text|delta|thinking|reasoning|refusal|arguments|partial_json|tool|function)\w*"'
    rb'\s*:\s*(?!\s|null|""|\[\s*\]|\{\s*\}|$)'
)
"""A key of content with something behind it, in each of the dialects."""


class BaseReader:
    """Frames in, events out, for one streamed answer. Subclasses read one frame in `_read`."""

    shape: ClassVar[type]
    """The struct that a frame is decoded to."""
    words: ClassVar[Words]
    """The finish words of the dialect."""
    text_key: ClassVar[str] = "text"

    def __init__(self) -> None:
        self.error: UnbrokenError | None = None
        self.skipped, self.done = 0, False
        self.cursor: dict[str, str] | None = None  # None: the server can't go on
        self._template = ChunkTemplate(self.text_key)
        self._template_choice = 0

    def read(self, frames: list[Frame], out: list[Event]) -> None:
        """Append the events of the frames, up to the end of the answer or an error."""
        text_of = self._template.read
        for frame in frames:
            before = len(out)
            try:
                text = text_of(frame.data)
                if text:
                    out.append(TextDelta(text, self._template_choice))
                    continue
                self._read(frame, out)
            except UNREADABLE:
                del out[before:]
                self._read_leniently(frame, out)
            if self.done or self.error is not None:
                return  # whatever follows is no part of the answer

    def resumed(self) -> None:
        """What comes now is the rest of the answer, by another body."""

    def eof(self, out: list[Event]) -> None:
        """The body has ended: append what that means in this dialect, if anything."""

    def _read(self, frame: Frame, out: list[Event]) -> None:
        """Append the events of one frame; raises one of UNREADABLE."""
        raise NotImplementedError

    def _read_leniently(self, frame: Frame, out: list[Event]) -> None:
        documents = mend(frame.data, self.shape)
        before = len(out)
        try:
            for data in documents:
                self._read(msgspec.structs.replace(frame, data=data), out)
        except UNREADABLE:
            del out[before:]
            documents = []
        if not documents:
            self._lose(frame.data)

    def _lose(self, data: bytes) -> None:
        if _CONTENT.search(data):
            self.error = RemoteProtocolError("an event that may hold content can't be read")
        else:
            self.skipped += 1

    def _learn(self, data: bytes, event: Event) -> None:
        """`data` held `event` and nothing else: frames like it need no full reading."""
        if type(event) is TextDelta and self._template.learn(data, event.text):
            self._template_choice = event.choice

    def _finish(self, raw: str, choice: int = 0) -> ChoiceEnd | None:
        """How a choice ended; None, and an error, if the provider says that it failed."""
        end = judge(self.words, raw, choice)
        if not is_failure(end):
            return end
        self.error = failure(end)
        return None
