"""Talk: a conversation with history, Markdown as it comes, and Ctrl-C to stop an answer.

Esc Enter, or a backslash at the end, starts a new line. Ctrl-C stops an answer and keeps what
came; Ctrl-D leaves. /help lists the commands. From a pipe each line is one turn.
"""

import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, Self

from unbroken.cli._exits import exit_code
from unbroken.cli._question import add_model_arguments, choose_model, count, parameters
from unbroken.cli._terminal import (
    add_stats_arguments,
    dim,
    harmless,
    need_output,
    say_end,
    say_error,
    say_stats,
    texts,
    verbose,
)
from unbroken.client._plan import Parameters, environment
from unbroken.client._sync import Client, Stream
from unbroken.client.conversation import Conversation
from unbroken.errors import ConfigurationError, UnbrokenError
from unbroken.providers import registry

_HELP = "/model NAME, /system TEXT, /clear, /help, /quit · Ctrl-C stops an answer, Ctrl-D leaves"
_COMMAND = re.compile(r"(/\w+)(?:\s+(.*))?$", re.DOTALL)  # a path, /etc/hosts, is no command


def add_arguments(parser: ArgumentParser) -> None:
    """The options of `chat`."""
    add_model_arguments(parser)
    parser.add_argument(
        "--context-tokens",
        type=count,
        default=16_000,
        metavar="N",
        help="about how much is sent along: oldest turns go first (default: %(default)s)",
    )
    add_stats_arguments(parser)


def run(args: Namespace) -> int:
    """Talk until the person leaves, or the pipe ends; then the first failure's code counts."""
    need_output()
    face = _person() if sys.stdin.isatty() and sys.stdout.isatty() else _Pipe()
    model = choose_model(args, environment())
    if face.present:
        dim(f"{model} · {_HELP}")
    with Client(base_url=args.base_url) as client:
        return _converse(_Talk(client, model, args, face), face)


class _Drawing(Protocol):
    """Where an answer appears."""

    def feed(self, text: str, /) -> None: ...


class _Face(Protocol):
    """Who is talking: `read` gives a turn or raises EOFError, `drawing` shows an answer."""

    @property
    def present(self) -> bool: ...
    def read(self) -> str: ...
    def drawing(self) -> AbstractContextManager[_Drawing]: ...


def _converse(talk: "_Talk", face: _Face) -> int:
    code = 0
    while True:
        try:
            talk.take(face.read().strip())
        except EOFError:
            return 0 if face.present else code
        except KeyboardInterrupt:  # a person has cleared the line or stopped the answer
            if not face.present:
                raise
        except UnbrokenError as error:
            say_error(error)
            code = code or exit_code(error)


class _Talk:
    """The conversation so far, and what is done with a line."""

    def __init__(self, client: Client, model: str, args: Namespace, face: _Face) -> None:
        given: Parameters = {**parameters(args), "system": args.system or ""}
        self._chat = Conversation(
            client, model, budget=args.context_tokens, keep_partial=True, **given
        )
        self._face, self._verbose, self._elsewhere = face, verbose(args), bool(args.base_url)
        self._commands: dict[str, Callable[[str], None]] = {
            "/model": self._choose,
            "/system": self._instruct,
            "/clear": self._forget,
            "/help": lambda _rest: dim(_HELP),
            "/quit": _leave,
            "/exit": _leave,
        }

    def take(self, line: str) -> None:
        """Answer a line or obey it; EOFError to leave."""
        command = _COMMAND.match(line)
        if command is None:
            self._answer(line)
        elif obey := self._commands.get(command[1]):
            obey(command[2] or "")
        else:
            dim(f"no such command: {command[1]} · {_HELP}")

    def _answer(self, line: str) -> None:
        if not line:
            return
        before = self._chat.forgotten
        stream = self._chat.stream(line)
        if gone := self._chat.forgotten - before:
            dim(f"forgotten to stay within --context-tokens: the {gone} oldest messages")
        self._show(stream)

    def _show(self, stream: Stream) -> None:
        try:
            with stream, self._face.drawing() as drawing:
                for text in texts(stream, retries=self._verbose):
                    drawing.feed(text)
        except KeyboardInterrupt:
            dim("stopped; what came is kept")
            raise
        say_end(stream.response)
        if self._verbose:
            say_stats(stream.response, stream.metrics)

    def _choose(self, name: str) -> None:
        if name:
            registry.resolve(name, elsewhere=self._elsewhere)
            self._chat.model = name
        dim(f"model: {self._chat.model}")

    def _instruct(self, text: str) -> None:
        self._chat.system = text

    def _forget(self, _rest: str) -> None:
        self._chat.clear()
        dim("forgotten")


def _leave(_rest: str) -> None:
    raise EOFError


class _Pipe:
    """No person: a turn a line, and plain text."""

    present = False

    def read(self) -> str:
        """The next line; a backslash at its end joins it with the one after it, if there is one."""
        joined: list[str] = []
        while (line := sys.stdin.readline()).endswith("\\\n"):
            joined.append(line[:-2] + "\n")
        if not (joined or line):
            raise EOFError
        return "".join([*joined, line])

    def drawing(self) -> AbstractContextManager[_Drawing]:
        """Standard output."""
        return _Plain()


class _Plain:
    """Text as it comes, and an end of line after it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.feed("\n")

    def feed(self, text: str) -> None:
        """Write it at once."""
        sys.stdout.write(harmless(text) if sys.stdout.isatty() else text)
        sys.stdout.flush()


def _person() -> _Face:
    try:
        from unbroken.cli._person import Person
    except ImportError as error:
        raise ConfigurationError(
            f"chat needs {error.name}", hint="pip install 'unbroken[cli]'"
        ) from error
    return Person()
