"""What is configured: providers, keys, addresses and default models."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from unbroken.cli._table import table
from unbroken.client._plan import default_model, environment
from unbroken.providers import registry


class Row(Struct, kw_only=True):
    """One provider. The key itself is never shown; "" is: there is none."""

    provider: str
    key_variable: str
    key_set: bool
    default_model: str
    base_url: str
    base_url_variable: str


def add_arguments(parser: ArgumentParser) -> None:
    """The options of `models`."""
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: Namespace) -> int:
    """Print the table."""
    env = environment()
    rows = [_row(name, env) for name in registry.names()]
    if args.json:
        print(msgspec.json.encode(rows).decode())
        return 0
    print(table(("provider", "key", "default model", "address"), [_cells(row) for row in rows]))
    print(f"\nused when none is named: {default_model(env)}")
    return 0


def _row(name: str, env: Mapping[str, str]) -> Row:
    provider = registry.provider(name)
    model = registry.default_model(name)
    address = env.get(provider.base_url_env) or provider.base_url
    return Row(
        provider=name,
        key_variable=provider.auth.env,
        key_set=bool(provider.auth.env and env.get(provider.auth.env)),
        default_model=f"{name}/{model}" if model else "",
        base_url="" if provider.in_process else address,
        base_url_variable=provider.base_url_env,
    )


def _cells(row: Row) -> tuple[str, str, str, str]:
    key = f"{row.key_variable} {'is set' if row.key_set else 'is not set'}"
    unset = f"{row.base_url_variable} is not set" if row.base_url_variable else "in this process"
    return (
        row.provider,
        key if row.key_variable else "not needed",
        row.default_model or "-",
        row.base_url or unset,
    )
