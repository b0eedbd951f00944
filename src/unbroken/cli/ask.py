"""Ask once; the answer streams to standard output.

The prompt is the argument, standard input, or both:  git diff | unbroken ask "review this"
"""

import sys
from argparse import ArgumentParser, Namespace
from typing import get_args

import msgspec

from unbroken.cli._terminal import (
    add_model_arguments,
    parameters,
    say_end,
    say_if_simulated,
    say_notice,
    say_stats,
)
from unbroken.client._plan import Parameters, default_model, environment
from unbroken.client._sync import Client, Stream
from unbroken.errors import ConfigurationError
from unbroken.events import Event, Notice, TextDelta
from unbroken.response import Response

_NOTICES = frozenset(get_args(Notice))


def add_arguments(parser: ArgumentParser) -> None:
    """The options of `ask`."""
    parser.add_argument("prompt", nargs="*", help="the question; more words are joined")
    add_model_arguments(parser)
    parser.add_argument("--no-stream", action="store_true", help="wait for the whole answer")
    parser.add_argument("--json", action="store_true", help="one event a line, as JSON")
    stats = parser.add_mutually_exclusive_group()
    stats.add_argument(
        "--stats", action="store_true", default=None, help="say what it took (default on terminals)"
    )
    stats.add_argument("--no-stats", dest="stats", action="store_false")


def run(args: Namespace) -> int:
    """Ask, and print."""
    prompt = _prompt(args.prompt)
    env = environment()
    model = args.model or default_model(env)
    given = parameters(args)
    if args.system:
        given["system"] = args.system
    say_if_simulated(model, env, args.model)
    stats = sys.stderr.isatty() if args.stats is None else args.stats
    with Client(base_url=args.base_url) as client:
        if args.no_stream:
            return _whole(client.complete(model, prompt, **given), as_json=args.json, stats=stats)
        return _stream(client, (model, prompt, given), as_json=args.json, stats=stats)


def _prompt(words: list[str]) -> str:
    said = " ".join(words).strip()
    piped = "" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.read().strip()
    prompt = "\n\n".join(part for part in (said, piped) if part)
    if not prompt:
        raise ConfigurationError(
            "there is nothing to ask", hint='Give a prompt: unbroken ask "..." or pipe one in.'
        )
    return prompt


def _stream(
    client: Client, question: tuple[str, str, Parameters], *, as_json: bool, stats: bool
) -> int:
    model, prompt, given = question
    with client.stream(model, prompt, **given) as stream:
        _print(stream, as_json=as_json)
    say_end(stream.response)
    if stats:
        say_stats(stream.response, stream.metrics)
    return 0


def _print(stream: Stream, *, as_json: bool) -> None:
    """Each read's events at once: one write for what came together."""
    last = "\n"
    try:
        for batch in stream.batches():
            text = _lines(batch) if as_json else _text(batch)
            if text:
                sys.stdout.write(text)
                sys.stdout.flush()
                last = text
    finally:
        if not last.endswith("\n"):
            sys.stdout.write("\n")
            sys.stdout.flush()


def _lines(batch: list[Event]) -> str:
    return "".join(msgspec.json.encode(event).decode() + "\n" for event in batch)


def _text(batch: list[Event]) -> str:
    for event in batch:
        if type(event) in _NOTICES:
            say_notice(event)  # type: ignore[arg-type]
    return "".join(e.text for e in batch if type(e) is TextDelta and e.choice == 0)


def _whole(response: Response, *, as_json: bool, stats: bool) -> int:
    if as_json:
        print(msgspec.json.encode(_fields(response)).decode())
    else:
        print(response.text)
    say_end(response)
    if stats:
        say_stats(response, None)
    return 0


def _fields(response: Response) -> dict[str, object]:
    """The answer without what is no data: attempts carry exceptions, `quote` is a function."""
    fields = msgspec.structs.asdict(response)
    del fields["quote"]
    fields["attempts"] = len(response.attempts)
    return {**fields, "cost": response.cost}
