"""Talk: a conversation with history, Markdown as it comes, and Ctrl-C to stop an answer.

At the prompt: /model NAME, /system TEXT, /clear, /help, /quit. Esc Enter starts a new line.
Ctrl-C stops an answer and keeps what came; Ctrl-D leaves.
"""

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, Self

from unbroken.cli._history import fitting
from unbroken.cli._terminal import (
    add_model_arguments,
    dim,
    parameters,
    say_end,
    say_if_simulated,
    say_stats,
)
from unbroken.client._plan import default_model, environment
from unbroken.client._sync import Client, Stream
from unbroken.errors import ConfigurationError, UnbrokenError
from unbroken.messages import Message, Text

_HELP = "/model NAME  /system TEXT  /clear  /help  /quit     Ctrl-C stops an answer, Ctrl-D leaves"


def add_arguments(parser: ArgumentParser) -> None:
    """The options of `chat`."""
    add_model_arguments(parser)
    parser.add_argument(
        "--context-tokens", type=int, default=16_000, metavar="N", help="bound of the history"
    )


def run(args: Namespace) -> int:
    """Talk until the person leaves."""
    env = environment()
    model = args.model or default_model(env)
    say_if_simulated(model, env, args.model)
    lines, drawing = _person() if sys.stdin.isatty() else (_piped(), _Plain)
    with Client(base_url=args.base_url) as client:
        talk = _Talk(client, model, args, drawing)
        for line in lines:
            if not talk.take(line.strip()):
                break
    return 0


class _Drawing(Protocol):
    """Where an answer appears; `feed` may raise KeyboardInterrupt like any other call."""

    def feed(self, text: str, /) -> None: ...


_Draw = Callable[[], AbstractContextManager[_Drawing]]


class _Talk:
    """The conversation so far, and what is done with a line."""

    def __init__(self, client: Client, model: str, args: Namespace, draw: _Draw) -> None:
        self._client, self._model, self._draw = client, model, draw
        self._given = parameters(args)
        self._limit = args.context_tokens
        self._turns: list[Message] = []
        self._set_system(args.system or "")
        self._commands: dict[str, Callable[[str], None]] = {
            "/model": self._set_model,
            "/system": self._set_system,
            "/clear": lambda _rest: self._clear(),
            "/help": lambda _rest: dim(_HELP),
        }

    def take(self, line: str) -> bool:
        """Answer a line or obey it; False to leave."""
        word, _, rest = line.partition(" ")
        if word in ("/quit", "/exit"):
            return False
        if word in self._commands:
            self._commands[word](rest.strip())
        elif word.startswith("/"):
            dim(f"no such command: {word}   {_HELP}")
        elif line:
            self._answer(line)
        return True

    def _answer(self, line: str) -> None:
        self._turns = fitting([*self._turns, Message("user", (Text(line),))], self._limit)
        try:
            stream = self._client.stream(self._model, self._turns, **self._given)
            self._show(stream)
        except UnbrokenError as error:
            dim(f"unbroken: {error}")
            self._keep(error.response.text)

    def _show(self, stream: Stream) -> None:
        try:
            with stream, self._draw() as drawing:
                for text in stream.text:
                    drawing.feed(text)
        except KeyboardInterrupt:
            dim("stopped; what came is kept")
        self._keep(stream.response.text)
        say_end(stream.response)
        if sys.stderr.isatty():
            say_stats(stream.response, stream.metrics)

    def _keep(self, text: str) -> None:
        """An answer that never began leaves no turn, nor does its question."""
        if text:
            self._turns.append(Message("assistant", (Text(text),)))
        else:
            self._turns.pop()

    def _set_model(self, name: str) -> None:
        self._model = name or self._model
        dim(f"model: {self._model}")

    def _set_system(self, text: str) -> None:
        turns = [message for message in self._turns if message.role != "system"]
        self._turns = [Message("system", (Text(text),)), *turns] if text else turns

    def _clear(self) -> None:
        self._turns = [message for message in self._turns if message.role == "system"]


def _piped() -> Iterator[str]:
    """One turn a line, for scripts and tests."""
    yield from sys.stdin


class _Plain:
    """Text as it comes, and an end of line after it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.feed("\n")

    def feed(self, text: str) -> None:
        """Write it at once."""
        sys.stdout.write(text)
        sys.stdout.flush()


def _person() -> tuple[Iterator[str], _Draw]:
    """A person at a terminal: line editing that remembers, and Markdown."""
    try:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.history import FileHistory
        from rich.console import Console

        from unbroken.cli._markdown import LiveMarkdown
    except ImportError as error:
        raise ConfigurationError(
            f"chat needs {error.name}", hint="pip install 'unbroken[cli]'"
        ) from error
    session: PromptSession[str] = PromptSession(history=FileHistory(str(_history_file())))
    console = Console()
    dim(_HELP)
    return _prompted(session.prompt), lambda: LiveMarkdown(console)


def _prompted(ask: Callable[[str], str]) -> Iterator[str]:
    while True:
        try:
            yield ask("› ")
        except KeyboardInterrupt:
            continue
        except EOFError:
            return


def _history_file() -> Path:
    """Where the XDG base directory specification wants state to be."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    folder = Path(state, "unbroken")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "chat-history"
