"""The command line: one file a command, found by its name.

A command's file has a docstring (its first line is the help), `add_arguments(parser)` and
`run(args) -> int`. Files that begin with an underscore are not commands. Answers go to standard
output, everything else to standard error. What is heavy is imported by the command that uses it.
"""

import argparse
import importlib
import io
import os
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unbroken.cli._exits import TABLE, exit_code
from unbroken.cli._terminal import say_error


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; gives its exit code. Nothing but UNBROKEN_DEBUG=1 shows a traceback."""
    try:
        _stand_in_for_closed()
        _forgive_encodings()
        return _run(argv)
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get("UNBROKEN_DEBUG"):
            raise
        if isinstance(error, OSError):  # standard output takes no more: a closed pipe, a full disk
            _let_go_of_output()
        if not isinstance(error, BrokenPipeError | KeyboardInterrupt):
            say_error(error)
        return exit_code(error)


def _run(argv: Sequence[str] | None) -> int:
    try:
        args = _parser().parse_args(argv)
        code: int = args.run(args)
        return code
    finally:
        if sys.stdout is not None:
            sys.stdout.flush()  # a closed pipe is noticed here, not at exit with a traceback


def _parser() -> argparse.ArgumentParser:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="unbroken",
        description="Answers from any LLM provider, as they come, whole.",
        epilog=TABLE,
        formatter_class=plain,
    )
    parser.add_argument("--version", action=_Version, help="say the version and leave")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in _commands():
        module = importlib.import_module(f"{__name__}.{name}")
        about = module.__doc__ or ""
        command = commands.add_parser(
            name, help=about.splitlines()[0], description=about, epilog=TABLE, formatter_class=plain
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def _commands() -> list[str]:
    return [m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")]


class _Version(argparse.Action):
    """Asks for the version only when somebody wants to know: importlib.metadata is slow."""

    def __init__(self, option_strings: Sequence[str], dest: str, **more: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **more)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Say it, and leave."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"unbroken {version('unbroken')}")
        except PackageNotFoundError:
            print("unbroken (from its sources, not installed)")
        parser.exit()


def _stand_in_for_closed() -> None:
    """What is written to a closed standard error goes nowhere: Python would take standard output
    instead. A closed standard input is empty. Their numbers are taken, lest a socket get one:
    whoever writes to descriptor 2 would write to a reader, and uvloop ends the process.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    if sys.stdin is None:
        sys.stdin = Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115  # to the end
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115


def _forgive_encodings() -> None:
    """A character that the terminal can't show, or a file in another encoding, is no failure."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _let_go_of_output() -> None:
    """Leave nothing that the interpreter would try to write again when it ends."""
    if sys.stdout is None:
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
