"""The options that every command has which asks a model, and what they mean for a call."""

import math
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Mapping

from unbroken.cli._terminal import dim
from unbroken.client._plan import Parameters, configured, default_model
from unbroken.engine.policy import Timeouts
from unbroken.errors import ConfigurationError

# A key is no option on purpose: the list of processes would show it to everybody.


def add_model_arguments(parser: ArgumentParser) -> None:
    """Which model, and how it answers."""
    parser.add_argument(
        "-m", "--model", type=wording, help="provider/model, or a name that is certain (gpt-...)"
    )
    parser.add_argument(
        "--fallback",
        action="append",
        type=wording,
        default=[],
        metavar="MODEL",
        help="who answers when that one can't; may be given more than once",
    )
    parser.add_argument(
        "--hedge-after",
        type=seconds,
        metavar="SECONDS",
        help="ask the next one too when nothing has come by then",
    )
    parser.add_argument("-s", "--system", type=wording, metavar="TEXT", help="the system message")
    parser.add_argument("--max-tokens", type=count, metavar="N", help="bound of the answer")
    parser.add_argument("--temperature", type=number, metavar="T", help="0 is the least random")
    parser.add_argument("--base-url", metavar="URL", help="another server of the same dialect")
    parser.add_argument(
        "--timeout", type=seconds, metavar="SECONDS", help="bound of the whole answer"
    )


def wording(text: str) -> str:
    """A text; Python keeps bytes that are none as half characters, which nobody can be sent."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ArgumentTypeError(f"{text!r} is not UTF-8") from error
    return text


def count(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def count_or_none(text: str) -> int:
    """A whole number from 0."""
    if not text.isdecimal():
        raise ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


def number(text: str) -> float:
    """A number that JSON can say."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ArgumentTypeError(f"{text!r} is not a number")
    return value


def seconds(text: str) -> float:
    """A time that is more than none."""
    value = number(text)
    if value <= 0:
        raise ArgumentTypeError(f"{text!r} is not more than 0 seconds")
    return value


def parameters(args: Namespace) -> Parameters:
    """The options as keyword arguments of a call."""
    given = Parameters()
    if args.max_tokens is not None:
        given["max_tokens"] = args.max_tokens
    if args.temperature is not None:
        given["temperature"] = args.temperature
    if args.timeout is not None:
        given["timeouts"] = Timeouts(total=args.timeout)
    if args.hedge_after is not None:
        given["hedge_after"] = args.hedge_after
    return given


def choose_model(args: Namespace, env: Mapping[str, str]) -> str:
    """The model that answers; a simulated answer says so, lest anybody take it for a real one."""
    model: str = args.model or default_model(env)
    if model.partition("/")[0] != "sim":
        return model
    if args.base_url:
        raise ConfigurationError(
            "the simulator has no base URL", hint="Name the model that is there: --model NAME."
        )
    chosen = args.model or env.get("UNBROKEN_MODEL") or configured(env)
    dim("simulated answer" if chosen else _NO_KEY)
    return model


_NO_KEY = (
    "simulated answer: no key found; set OPENAI_API_KEY or ANTHROPIC_API_KEY, or choose --model"
)
