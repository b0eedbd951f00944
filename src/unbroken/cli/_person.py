"""A person at a terminal: line editing that remembers, and Markdown as it comes."""

import os
from contextlib import AbstractContextManager
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from rich.console import Console

from unbroken.cli._markdown import LiveMarkdown


class Person:
    """Asks for lines and shows answers."""

    present = True

    def __init__(self) -> None:
        self._console = Console()
        self._session: PromptSession[str] = PromptSession(history=_history(), key_bindings=_keys())

    def read(self) -> str:
        """The next turn. KeyboardInterrupt is Ctrl-C, EOFError is Ctrl-D."""
        return self._session.prompt("› ", prompt_continuation="  ")

    def drawing(self) -> AbstractContextManager[LiveMarkdown]:
        """Where the next answer appears."""
        return LiveMarkdown(self._console)


def _keys() -> KeyBindings:
    """Enter sends, but not behind a backslash; Esc Enter begins a new line."""
    keys = KeyBindings()
    typing = has_focus(DEFAULT_BUFFER)  # Enter in a search of the history stays what it is

    @keys.add("escape", "enter", filter=typing)
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("enter", filter=typing)
    def _send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    return keys


def _history() -> History:
    """In the file that the XDG base directory specification wants, readable by its owner only."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    path = Path(state, "unbroken", "chat-history")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
    except OSError:  # a home that can't be written to is no reason not to talk
        return InMemoryHistory()
    return FileHistory(str(path))
