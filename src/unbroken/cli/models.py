"""What is configured: providers, keys, addresses and default models."""

from argparse import ArgumentParser, Namespace

import msgspec

from unbroken.cli._table import table
from unbroken.client._plan import default_model, environment
from unbroken.providers import registry


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
    print(table(("provider", "key", "default model", "address"), [tuple(r.values()) for r in rows]))
    print(f"\nused when none is named: {default_model(env)}")
    return 0


def _row(name: str, env: dict[str, str]) -> dict[str, str]:
    """One provider. The key itself is never shown."""
    provider = registry.provider(name)
    variable = provider.auth.env
    key = "not needed" if not variable else f"{variable} {'is set' if env.get(variable) else '-'}"
    url = env.get(provider.base_url_env, "") or provider.base_url
    address = "in this process" if provider.in_process else url or f"{provider.base_url_env} -"
    model = registry.default_model(name)
    return {
        "provider": name,
        "key": key,
        "default_model": f"{name}/{model}" if model else "-",
        "address": address,
    }
