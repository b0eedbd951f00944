"""Run the simulator as a server that any SDK can be pointed at.

The model's name chooses pace and faults: demo?ttft=0.2&tps=80&fault=cut:events=20
"""

import asyncio
import contextlib
from argparse import ArgumentParser, Namespace
from pathlib import Path

from unbroken.errors import ConfigurationError
from unbroken.simulator.scenario import Scenario, load


def add_arguments(parser: ArgumentParser) -> None:
    """The options of `simulate`."""
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8081, help="0 takes a free one")
    parser.add_argument(
        "--scenarios", type=Path, metavar="FILE", help="TOML: a table per model name"
    )


def run(args: Namespace) -> int:
    """Serve until Ctrl-C."""
    asyncio.run(_serve(args.host, args.port, _scenarios(args.scenarios)))
    return 0


def _scenarios(path: Path | None) -> dict[str, Scenario]:
    if path is None:
        return {}
    try:
        return load(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path} can't be read: {error.strerror}") from error


async def _serve(host: str, port: int, scenarios: dict[str, Scenario]) -> None:
    from unbroken.simulator.app import serving  # a server is heavy; only this command needs one

    async with contextlib.AsyncExitStack() as stack:
        try:
            url = await stack.enter_async_context(serving(host, port, scenarios))
        except OSError as error:
            raise ConfigurationError(f"can't listen on {host}:{port}: {error.strerror}") from error
        print(f"simulated provider on {url}; its log is at {url}/log. Ctrl-C stops it.")
        print(f"export OPENAI_BASE_URL={url}/v1 OPENAI_API_KEY=simulated")
        print(f"export ANTHROPIC_BASE_URL={url} ANTHROPIC_API_KEY=simulated", flush=True)
        await asyncio.Event().wait()
