"""Run the simulator as a server that any SDK can be pointed at.

The model's name chooses pace and faults: demo?ttft=0.2&tps=80&fault=cut:events=20
"""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path

from unbroken.errors import BadRequest, ConfigurationError
from unbroken.simulator.scenario import Scenario, load


def add_arguments(parser: ArgumentParser) -> None:
    """The options of `simulate`."""
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    parser.add_argument(
        "--port", type=_port, default=8081, help="0 takes a free one; default: %(default)s"
    )
    parser.add_argument(
        "--scenarios",
        "--scenario",
        type=Path,
        metavar="FILE",
        help="TOML: a table for each model name",
    )


def run(args: Namespace) -> int:
    """Serve until Ctrl-C."""
    import asyncio  # slow to import, like the server itself

    asyncio.run(_serve(args.host, args.port, _scenarios(args.scenarios)))
    return 0


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise ArgumentTypeError(f"{text!r} is not a port: 0 to 65535")
    return int(text)


def _scenarios(path: Path | None) -> dict[str, Scenario]:
    if path is None:
        return {}
    try:
        return load(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path} can't be read: {error.strerror}") from error
    except (BadRequest, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: {getattr(error, 'message', error)}") from error


async def _serve(host: str, port: int, scenarios: dict[str, Scenario]) -> None:
    import asyncio
    import contextlib

    from unbroken.simulator.app import serving

    async with contextlib.AsyncExitStack() as stack:
        try:
            url = await stack.enter_async_context(serving(host, port, scenarios))
        except OSError as error:
            raise ConfigurationError(f"can't listen on {host}:{port}: {error.strerror}") from error
        print(f"simulated provider on {url}; its log is at {url}/log. Ctrl-C stops it.")
        print(f"export OPENAI_BASE_URL={url}/v1 OPENAI_API_KEY=simulated")
        print(f"export ANTHROPIC_BASE_URL={url} ANTHROPIC_API_KEY=simulated", flush=True)
        await asyncio.Event().wait()
