"""What is configured: providers, keys, addresses, default models, and which local servers run.

With --list PROVIDER: all models that this provider lists, one a line.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from unbroken.cli._offers import Offer, address, listed, running
from unbroken.cli._table import table
from unbroken.cli._terminal import harmless
from unbroken.client._plan import default_model, environment
from unbroken.errors import ConfigurationError
from unbroken.providers import registry
from unbroken.providers.base import Provider


class Row(Struct, kw_only=True):
    """One provider. The key itself is never shown; "" is: there is none.

    `models`: those of a local server that runs now.
    """

    provider: str
    key_variable: str
    key_set: bool
    default_model: str
    base_url: str
    base_url_variable: str
    local: bool
    running: bool
    models: list[str]


def add_arguments(parser: ArgumentParser) -> None:
    """The options of `models`."""
    parser.add_argument("--list", metavar="PROVIDER", help="all models that this provider lists")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: Namespace) -> int:
    """Print the table, or the list."""
    env = environment()
    if args.list:
        _say_list(registry.provider(args.list), env, as_json=args.json)
        return 0
    offers = running(env)
    rows = [_row(registry.provider(name), env, offers) for name in registry.names()]
    if args.json:
        print(msgspec.json.encode(rows).decode())
        return 0
    print(table(("provider", "key", "default model", "address"), [_cells(row) for row in rows]))
    for offer in offers:
        _say_offer(offer)
    print(f"\nused when none is named: {default_model(env)}")
    _advise(offers, default_model(env))
    return 0


def _say_list(provider: Provider, env: Mapping[str, str], *, as_json: bool) -> None:
    names = [f"{provider.name}/{name}" for name in listed(provider, env)]
    print(msgspec.json.encode(names).decode() if as_json else harmless("\n".join(names)))


def _say_offer(offer: Offer) -> None:
    print(f"\n{offer.provider} is running at {offer.address}:")
    for name in offer.models:
        print(harmless(f"  {offer.provider}/{name}"))
    if not offer.models:
        print("  it has no model yet")


def _advise(offers: Sequence[Offer], default: str) -> None:
    """How to use what was found, for those who would only be answered by the simulator."""
    first = next((f"{o.provider}/{o.models[0]}" for o in offers if o.models), None)
    if first is not None and default.startswith("sim/"):
        print(harmless(f'to use a local one: unbroken ask -m {first} "Hello!"'))
        print(harmless(f"to use it always:   export UNBROKEN_MODEL={first}"))


def _row(provider: Provider, env: Mapping[str, str], offers: Sequence[Offer]) -> Row:
    model = registry.default_model(provider.name)
    found = next((offer for offer in offers if offer.provider == provider.name), None)
    return Row(
        provider=provider.name,
        key_variable=provider.auth.env,
        key_set=bool(provider.auth.env and env.get(provider.auth.env)),
        default_model=f"{provider.name}/{model}" if model else "",
        base_url=_base_url(provider, env),
        base_url_variable=provider.base_url_env or provider.host_env,
        local=provider.local,
        running=found is not None,
        models=found.models if found else [],
    )


def _base_url(provider: Provider, env: Mapping[str, str]) -> str:
    """The address; where the environment must say it and does not, with the variable's name."""
    if provider.in_process:
        return ""
    try:
        return address(provider, env)
    except ConfigurationError:
        if "{" not in provider.base_url:
            raise
        return provider.base_url


def _cells(row: Row) -> tuple[str, str, str, str]:
    key = f"{row.key_variable} {'is set' if row.key_set else 'is not set'}"
    unset = f"{row.base_url_variable} is not set" if row.base_url_variable else "in this process"
    needed = row.key_variable and (row.key_set or not row.local)
    return (
        row.provider,
        key if needed else "not needed",
        row.default_model or "-",
        row.base_url or unset,
    )
