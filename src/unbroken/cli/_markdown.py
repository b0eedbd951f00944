"""Markdown on a terminal while it is still being written.

A finished block (paragraph, list, fenced code) is printed for good; only the last block is drawn
again as it grows, and never higher than the window. So a long answer scrolls as any output does,
and nothing flickers but what changes.
"""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.markdown import Markdown


class LiveMarkdown:
    """Feed it text; it draws. Use it as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._open = ""
        self._live = Live(console=console, refresh_per_second=12, vertical_overflow="crop")

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.update(Markdown(""))
        self._live.stop()
        self._print(self._open)

    def feed(self, text: str) -> None:
        """More of the answer."""
        done, self._open = split(self._open + text)
        if done:
            self._print(done)
        self._live.update(Markdown(self._open))

    def _print(self, block: str) -> None:
        if block.strip():
            self._console.print(Markdown(block))
            self._console.print()


def split(text: str) -> tuple[str, str]:
    """What is finished, and what may still change: the cut is the last empty line outside code."""
    cut = at = 0
    fenced = False
    for line in text.splitlines(keepends=True):
        at += len(line)
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not line.strip() and line.endswith("\n") and not fenced:
            cut = at
    return text[:cut], text[cut:]
