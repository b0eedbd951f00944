"""What a terminal is told: the answer on standard output, dim lines beside it on standard error."""

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator
from typing import get_args

from unbroken.client._sync import Stream
from unbroken.errors import ConfigurationError, UnbrokenError
from unbroken.events import Event, FellBack, Notice, Restarted, Resumed, Retrying, TextDelta
from unbroken.metrics.timing import StreamMetrics
from unbroken.response import Response

_NOTICES = frozenset(get_args(Notice))

# All control characters but tab and newline, which could move the cursor or set the title.
_COMMANDS = {*range(0x20), *range(0x7F, 0xA0)} - {0x09, 0x0A}

# Bidirectional controls show text in another order than it has (Unicode UAX 9; CVE-2021-42574).
_BIDIRECTIONAL = {0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}

# Characters that nothing shows can hide words: zero width, tags, annotations, spare variants. The
# joiners U+200C and U+200D and the common variants U+FE00 to U+FE0F are part of scripts and emoji.
_INVISIBLE = {0x00AD, 0x180E, 0x200B, 0x2028, 0x2029, 0xFEFF, *range(0x2060, 0x2066)}
_INVISIBLE |= {*range(0x206A, 0x2070), *range(0xFFF9, 0xFFFC), *range(0xE0000, 0xE0080)}
_INVISIBLE |= {*range(0xE0100, 0xE01F0)}

_CONTROLS = dict.fromkeys(_COMMANDS | _BIDIRECTIONAL | _INVISIBLE)


def dim(line: str) -> None:
    """One line for people, whatever a provider wrote into it; plain where standard error is not a
    terminal or NO_COLOR is set.
    """
    wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    colour = wanted and sys.stderr.isatty()
    said = _line(line)
    print(f"\x1b[2m{said}\x1b[0m" if colour else said, file=sys.stderr, flush=True)


def harmless(text: str) -> str:
    """The text without what would command the terminal."""
    return text.translate(_CONTROLS)


def add_stats_arguments(parser: ArgumentParser) -> None:
    """`--stats` and its contrary; `verbose` reads them."""
    stats = parser.add_mutually_exclusive_group()
    stats.add_argument(
        "--stats",
        action="store_true",
        default=None,
        help="say what the answer took (default when standard error is a terminal)",
    )
    stats.add_argument("--no-stats", dest="stats", action="store_false", help="do not say it")


def verbose(args: Namespace) -> bool:
    """Whether somebody wants to know how it went."""
    return sys.stderr.isatty() if args.stats is None else bool(args.stats)


def need_output() -> None:
    """For commands whose answer is standard output: without one nothing is asked and paid for."""
    if sys.stdout is None:
        raise ConfigurationError("standard output is closed", hint="Leave out >&-, or give a file.")


def write(pieces: Iterable[str]) -> None:
    """Each piece at once; a newline after the last one if it has none, come what may."""
    shown = harmless if sys.stdout.isatty() else str
    last = "\n"
    try:
        for piece in pieces:
            sys.stdout.write(shown(piece))
            sys.stdout.flush()
            last = piece or last
    finally:
        if not last.endswith("\n"):
            sys.stdout.write("\n")
            sys.stdout.flush()


def texts(stream: Stream, *, retries: bool) -> Iterator[str]:
    """The visible text, all that one read brought at a time; notices go to standard error.

    What happens in mid-answer would tear the text on a terminal; `say_end` tells it afterwards.
    """
    begun = False
    for batch in stream.batches():
        for event in batch:
            begun = begun or type(event) is TextDelta
            if type(event) in _NOTICES and not begun and (retries or type(event) is FellBack):
                _say_notice(event)
        yield "".join(e.text for e in batch if type(e) is TextDelta and e.choice == 0)


def _say_notice(notice: Event) -> None:
    """What was done to keep the answer whole."""
    match notice:
        case Retrying(delay=delay, reason=reason):
            dim(f"trying again in {delay:.1f} s: {reason}")
        case Resumed(how=how, reason=reason):
            dim(f"going on ({how}): {reason}")
        case Restarted(reason=reason):
            dim(f"starting over: {reason}")
        case FellBack(model=model, reason=reason):
            dim(f"{model} answers instead: {reason}")


def say_error(error: BaseException) -> None:
    """One line, whatever a provider wrote into its message."""
    said = str(error)
    if not isinstance(error, UnbrokenError | OSError):  # the system words its refusals itself
        said = f"unexpected {type(error).__name__}: {error} (UNBROKEN_DEBUG=1 shows where)"
    print(f"unbroken: {_line(said)}", file=sys.stderr, flush=True)


def _line(text: str) -> str:
    return harmless(" ".join(text.split()))


_CUT = {
    "length": "the answer was cut short: it reached the limit of tokens (--max-tokens)",
    "content_filter": "the answer was stopped by the provider's content filter",
}


def say_end(response: Response) -> None:
    """An answer that is complete on the wire and still not all that was asked for."""
    if response.finish_reason in _CUT:
        dim(_CUT[response.finish_reason])
    if response.refusal:
        dim(f"the model refused: {response.refusal}")
    if later := [attempt for attempt in response.attempts if attempt.how != "start"]:
        cuts = "once" if len(later) == 1 else f"{len(later)} times"
        ways = ", ".join(f"{a.how} by {a.provider}/{a.model}" for a in later)
        dim(f"the answer was cut {cuts} and went on ({ways})")
    if response.skipped_events:
        dim(f"{response.skipped_events} malformed events were passed over")


def say_stats(response: Response, metrics: StreamMetrics | None = None) -> None:
    """Model, times, tokens and cost in one line; what is not known is not said."""
    dim(" · ".join(_stats(response, metrics)))


def _stats(response: Response, metrics: StreamMetrics | None) -> Iterator[str]:
    yield f"{response.provider}/{response.model.removeprefix(response.provider + '/')}"
    if metrics is None:
        yield f"{sum(a.delay + a.duration for a in response.attempts):.2f} s"
    elif metrics.time_to_first_token is not None:
        yield f"first token {metrics.time_to_first_token:.2f} s"
    if metrics is not None and metrics.tokens_per_second:
        yield f"{metrics.tokens_per_second:.0f} tokens/s"
    if response.usage is not None:
        yield f"{response.usage.input_tokens} in, {response.usage.output_tokens} out"
    if response.cost is not None:
        yield f"${response.cost:.6f}"
    if len(response.attempts) > 1:
        yield f"{len(response.attempts)} attempts"
