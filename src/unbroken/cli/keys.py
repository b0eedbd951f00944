"""Create, list and revoke the keys of a gateway.

A key is shown once, when it is made; the store keeps its hash. As soon as there is one, every
request needs one, and the gateway may listen to more than this machine.
"""

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from unbroken.cli._question import count, number
from unbroken.cli._table import table
from unbroken.client._plan import environment
from unbroken.errors import ConfigurationError

if TYPE_CHECKING:
    from unbroken.server.keys import Keys


def add_arguments(parser: ArgumentParser) -> None:
    """The options of `keys`."""
    parser.add_argument("action", choices=("create", "list", "revoke"))
    parser.add_argument("name", nargs="?", help="what the key is called")
    parser.add_argument(
        "--store", metavar="URL", help="as of `serve`, which reads UNBROKEN_STORE and unbroken.toml"
    )
    parser.add_argument("--requests", type=count, metavar="N", help="at most so many a day")
    parser.add_argument("--tokens", type=count, metavar="N", help="at most so many a day")
    parser.add_argument("--usd", type=number, metavar="X", help="at most so much a day")


def run(args: Namespace) -> int:
    """Do it."""
    if args.action != "list" and not args.name:
        raise ConfigurationError(
            f"{args.action} needs a name", hint=f"unbroken keys {args.action} NAME"
        )
    import asyncio

    asyncio.run(_with_keys(args))
    return 0


async def _with_keys(args: Namespace) -> None:
    try:
        from unbroken.server.keys import Keys
        from unbroken.server.settings import load
    except ImportError as error:
        raise ConfigurationError(
            "keys are the gateway's, which needs the extra `server`",
            hint="pip install 'unbroken[server]'",
        ) from error
    from unbroken.stores import registry
    from unbroken.stores.memory import MemoryStore

    given = {"store": args.store} if args.store else {}
    opened = registry.open(load(environment(), given).store)
    if isinstance(opened, MemoryStore):
        raise ConfigurationError(
            "the store memory: ends with this command, and no gateway would know its keys",
            hint="Write sqlite:///path.db or redis://host.",
        )
    async with opened as store:
        await _DO[args.action](Keys(store), args)


async def _create(keys: "Keys", args: Namespace) -> None:
    from unbroken.server.keys import Allowance

    allowance = Allowance(requests=args.requests, tokens=args.tokens, usd=args.usd)
    print(await keys.create(args.name, allowance))


async def _list(keys: "Keys", _args: Namespace) -> None:
    rows = []
    found = await keys.all()
    for info, used in zip(found, await keys.usage([info.id for info in found]), strict=True):
        today = f"{used.requests} requests, {used.tokens} tokens, ${used.usd:.4f}"
        limits = ", ".join(f"{most} {kind}" for kind, most in info.labels.items() if kind != "name")
        rows.append((info.labels["name"], limits or "none", today))
    print(table(("key", "limits for a day", "used today"), rows))


async def _revoke(keys: "Keys", args: Namespace) -> None:
    await keys.revoke(args.name)


_DO = {"create": _create, "list": _list, "revoke": _revoke}
