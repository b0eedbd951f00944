"""What is said beside the answer: dim lines on standard error."""

import os
import sys
from argparse import ArgumentParser, Namespace

from unbroken.client._plan import Parameters, configured
from unbroken.engine.policy import Timeouts
from unbroken.events import FellBack, Notice, Restarted, Resumed, Retrying
from unbroken.metrics.timing import StreamMetrics
from unbroken.response import Response


def dim(line: str) -> None:
    """One line for people; plain where standard error is not a terminal or NO_COLOR is set."""
    colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    print(f"\x1b[2m{line}\x1b[0m" if colour else line, file=sys.stderr, flush=True)


def add_model_arguments(parser: ArgumentParser) -> None:
    """The options that every command has which asks a model."""
    parser.add_argument("-m", "--model", help="provider/model, or a name that is certain (gpt-...)")
    parser.add_argument("-s", "--system", help="the system message")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="bound of the answer in tokens")
    parser.add_argument("--temperature", type=float, metavar="T")
    parser.add_argument("--base-url", metavar="URL", help="another server for the same dialect")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="bound of the whole call")


def parameters(args: Namespace) -> Parameters:
    """The options as keyword arguments of a call."""
    given = Parameters()
    if args.max_tokens is not None:
        given["max_tokens"] = args.max_tokens
    if args.temperature is not None:
        given["temperature"] = args.temperature
    if args.timeout is not None:
        given["timeouts"] = Timeouts(total=args.timeout)
    return given


def say_if_simulated(model: str, env: dict[str, str], chosen: str | None) -> None:
    """Nobody shall take a simulated answer for a real one."""
    if model.partition("/")[0] != "sim":
        return
    if chosen or env.get("UNBROKEN_MODEL"):
        dim("simulated answer")
    elif not configured(env):
        dim(
            "simulated answer: no key found; set OPENAI_API_KEY or ANTHROPIC_API_KEY, "
            "or choose with --model"
        )


def say_notice(notice: Notice) -> None:
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


_CUT = {
    "length": "the answer was cut short: it reached the limit of tokens (--max-tokens)",
    "content_filter": "the provider's content filter stopped the answer",
}


def say_end(response: Response) -> None:
    """An answer that is complete on the wire and still not all that was asked for."""
    if response.finish_reason in _CUT:
        dim(_CUT[response.finish_reason])
    if response.skipped_events:
        dim(f"{response.skipped_events} malformed events were passed over")


def say_stats(response: Response, metrics: StreamMetrics | None) -> None:
    """Model, times, tokens and cost in one line; what is not known is not said."""
    parts = [f"{response.provider}/{response.model.removeprefix(response.provider + '/')}"]
    if metrics is not None and metrics.time_to_first_token is not None:
        parts.append(f"first token {metrics.time_to_first_token:.2f} s")
    if metrics is not None and metrics.tokens_per_second:
        parts.append(f"{metrics.tokens_per_second:.0f} tokens/s")
    if response.usage is not None:
        parts.append(f"{response.usage.input_tokens} in, {response.usage.output_tokens} out")
    if response.cost is not None:
        parts.append(f"${response.cost:.6f}")
    dim(" · ".join(parts))
