"""Markdown on a terminal while it is still being written.

A finished block (paragraph, list, fenced code) is printed for good; only the last block is drawn
again as it grows, and of it no more than the window holds. So a long answer scrolls as any output
does, and nothing flickers but what changes.
"""

import re
from types import TracebackType
from typing import Self

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import Segment
from rich.spinner import Spinner

from unbroken.cli._terminal import harmless

_FENCE = re.compile(r" *(`{3,}|~{3,})(.*)")
_GOES_ON = re.compile(r"\s|[-*+](\s|$)|\d{1,9}([.)]|$)")
"""A line that may belong to the list above it, or may yet turn out to."""


def split(text: str) -> tuple[str, str]:
    """What is finished, and what may still change.

    The cut is before the last line outside code that follows an empty line and begins something
    new. An empty line alone proves nothing: the list before it may go on.
    """
    cut = at = 0
    fence, gap = "", False
    for line in text.splitlines(keepends=True):
        if gap and not fence and not _GOES_ON.match(line):
            cut = at
        gap = not line.strip()
        fence = _fence_after(line, fence)
        at += len(line)
    return text[:cut], text[cut:]


def _fence_after(line: str, fence: str) -> str:
    """The fence of the code that is open after `line`; "" for none."""
    found = _FENCE.match(line)
    if found is None:
        return fence
    if not fence:
        return found[1]
    closes = found[1].startswith(fence) and not found[2].strip()
    return "" if closes else fence


class LiveMarkdown:
    """Feed it text; it draws. Use it as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._open = ""
        self._live = Live(
            Spinner("dots", style="dim"), console=console, refresh_per_second=12, transient=True
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()
        self._print(self._open)

    def feed(self, text: str) -> None:
        """More of the answer."""
        if not text:
            return
        done = ""
        looks_again = "\n" in text or self._open.endswith("\n")  # only a new line can finish one
        self._open += harmless(text)
        if looks_again:
            done, self._open = split(self._open)
        self._live.update(_Tail(self._open))
        self._print(done)  # printing also redraws the block below, so it must be the new one

    def _print(self, block: str) -> None:
        if block.strip():
            self._console.print(Group(Markdown(block), ""))


class _Tail:
    """The end of a block: as many lines as fit, for what has left the window can't be redrawn."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(Markdown(self._text), options, pad=False)
        for line in lines[-max(1, console.height - 1) :]:
            yield from line
            yield Segment.line()
