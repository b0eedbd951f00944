"""Ask once; the answer streams to standard output.

The prompt is the argument, standard input, or both:  git diff | unbroken ask "review this"
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator

import msgspec

from unbroken.cli._question import add_model_arguments, choose_model, parameters, wording
from unbroken.cli._terminal import (
    add_stats_arguments,
    need_output,
    say_end,
    say_stats,
    texts,
    verbose,
    write,
)
from unbroken.client._plan import environment
from unbroken.client._sync import Client, Stream
from unbroken.errors import ConfigurationError
from unbroken.response import Attempt, Response


def add_arguments(parser: ArgumentParser) -> None:
    """The options of `ask`."""
    parser.add_argument(
        "prompt", nargs="*", type=wording, help="the question; more words are joined"
    )
    add_model_arguments(parser)
    parser.add_argument("--no-stream", action="store_true", help="wait for the whole answer")
    parser.add_argument(
        "--json", action="store_true", help="one event a line; with --no-stream one object"
    )
    add_stats_arguments(parser)


def run(args: Namespace) -> int:
    """Ask, and print."""
    need_output()
    prompt = _prompt(args.prompt)
    models = [choose_model(args, environment()), *args.fallback]
    given = parameters(args)
    if args.system:
        given["system"] = args.system
    with Client(base_url=args.base_url) as client:
        if args.no_stream:
            _whole(client.complete(models, prompt, **given), args)
            return 0
        with client.stream(models, prompt, **given) as stream:
            _stream(stream, args)
    return 0


def _prompt(words: list[str]) -> str:
    said = " ".join(words).strip()
    piped = "" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.read().strip()
    prompt = "\n\n".join(part for part in (said, piped) if part)
    if not prompt:
        raise ConfigurationError(
            "there is nothing to ask", hint='Give a prompt: unbroken ask "..." or pipe one in.'
        )
    return prompt


def _stream(stream: Stream, args: Namespace) -> None:
    write(_lines(stream) if args.json else texts(stream, retries=verbose(args)))
    say_end(stream.response)
    if verbose(args):
        say_stats(stream.response, stream.metrics)


def _lines(stream: Stream) -> Iterator[str]:
    """Each read's events in one write."""
    for batch in stream.batches():
        yield "".join(msgspec.json.encode(event).decode() + "\n" for event in batch)


def _whole(response: Response, args: Namespace) -> None:
    write([msgspec.json.encode(_fields(response)).decode() if args.json else response.text])
    say_end(response)
    if verbose(args):
        say_stats(response)


def _fields(response: Response) -> dict[str, object]:
    """The answer as plain data, with its cost."""
    fields = msgspec.structs.asdict(response)
    del fields["running"], fields["reads"]
    return {**fields, "attempts": [_tried(a) for a in response.attempts], "cost": response.cost}


def _tried(attempt: Attempt) -> dict[str, object]:
    """An attempt without what is no data: the error is said, the price list is a function."""
    fields = msgspec.structs.asdict(attempt)
    del fields["quote"]
    said = None if attempt.error is None else str(attempt.error)
    return {**fields, "error": said, "cost": attempt.cost}
