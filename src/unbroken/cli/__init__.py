"""The command line: one file a command, found by its name.

A command's file has a docstring (its first line is the help), `add_arguments(parser)` and
`run(args) -> int`. Files that begin with an underscore are not commands. Answers go to standard
output, everything else to standard error.
"""

import argparse
import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence
from importlib.metadata import version

from unbroken.cli._exits import TABLE, exit_code
from unbroken.errors import UnbrokenError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; gives its exit code. Nothing but UNBROKEN_DEBUG=1 shows a traceback."""
    try:
        args = _parser().parse_args(argv)
        code: int = args.run(args)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return _reader_left()
    except UnbrokenError as error:
        print(f"unbroken: {error}", file=sys.stderr)
        return exit_code(error)
    except Exception as error:
        if os.environ.get("UNBROKEN_DEBUG"):
            raise
        name = type(error).__name__
        print(
            f"unbroken: unexpected {name}: {error} (UNBROKEN_DEBUG=1 shows more)", file=sys.stderr
        )
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="unbroken",
        description="Answers from any LLM provider, as they come, whole.",
        epilog=TABLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"unbroken {version('unbroken')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in _commands():
        module = importlib.import_module(f"{__name__}.{name}")
        about = module.__doc__ or ""
        command = commands.add_parser(name, help=about.splitlines()[0], description=about)
        command.formatter_class = argparse.RawDescriptionHelpFormatter
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def _commands() -> list[str]:
    return [m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")]


def _reader_left() -> int:
    """`| head -1` is no fault: end quietly, and leave nothing to be flushed into the pipe."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    return 0
