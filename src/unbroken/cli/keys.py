"""Create, list and revoke the API keys of a gateway.

A key is shown once, when it is created; the store keeps its hash. As soon as there is one, every
request needs one, and the gateway may listen on other addresses than this machine's own. A key of
`--admin` may also manage keys over HTTP (/v1/keys).
"""

import time
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from unbroken.cli._question import count, number
from unbroken.cli._table import table
from unbroken.client._plan import environment
from unbroken.errors import ConfigurationError

if TYPE_CHECKING:
    from unbroken.server.auth import Keys

_DAY = 86_400
_LIMITS = ("requests", "tokens", "usd", "requests_per_minute", "tokens_per_minute")


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of `keys`."""
    parser.add_argument("action", choices=("create", "list", "revoke"))
    parser.add_argument("name", nargs="?", help="the key's name")
    parser.add_argument(
        "--store", metavar="URL", help="as of `serve`, which reads UNBROKEN_STORE and unbroken.toml"
    )
    parser.add_argument("--requests", type=count, metavar="N", help="requests per day (UTC)")
    parser.add_argument("--tokens", type=count, metavar="N", help="tokens per day")
    parser.add_argument("--usd", type=number, metavar="X", help="USD per day")
    parser.add_argument("--requests-per-minute", type=count, metavar="N")
    parser.add_argument("--tokens-per-minute", type=count, metavar="N")
    parser.add_argument("--expires", type=number, metavar="DAYS", help="valid for so many days")
    parser.add_argument("--admin", action="store_true", help="may manage keys over HTTP")


def run(args: Namespace) -> int:
    """Run the action."""
    if args.action != "list" and not args.name:
        raise ConfigurationError(
            f"{args.action} needs a name", hint=f"unbroken keys {args.action} NAME"
        )
    import asyncio

    asyncio.run(_with_keys(args))
    return 0


async def _with_keys(args: Namespace) -> None:
    try:
        from unbroken.server.auth import Keys
        from unbroken.server.settings import key_limits, load
    except ImportError as error:
        raise ConfigurationError(
            "keys belong to the gateway, which needs the extra `server`",
            hint="pip install 'unbroken[server]'",
        ) from error
    from unbroken.stores import registry
    from unbroken.stores.memory import MemoryStore

    env = environment()
    given = {"store": args.store} if args.store else {}
    opened = registry.open(load(env, given).store)
    if isinstance(opened, MemoryStore):
        raise ConfigurationError(
            "the store memory: ends with this command, and no gateway would know its keys",
            hint="Write sqlite:///path.db or redis://host.",
        )
    async with opened as store:
        await _ACTIONS[args.action](Keys(store, key_limits(env)), args)


async def _create(keys: "Keys", args: Namespace) -> None:
    from unbroken.server.auth import KeyLimits, NewKey

    limits = KeyLimits(**{name: getattr(args, name) for name in _LIMITS})
    expires_in = None if args.expires is None else args.expires * _DAY
    new = NewKey(name=args.name, limits=limits, admin=args.admin, expires_in=expires_in)
    print(await keys.create(new))


async def _list(keys: "Keys", _args: Namespace) -> None:
    from unbroken.server.auth import principal_of

    found = await keys.all()
    rows = []
    for info, used in zip(found, await keys.usage([i.id for i in found]), strict=True):
        key = principal_of(info, keys.limits)
        today = f"{used.requests} requests, {used.tokens} tokens, ${used.usd:.4f}"
        limits = ", ".join(f"{v:g} {k.replace('_', ' ')}" for k, v in key.limits.given().items())
        rows.append(
            (_label(key.name, admin=key.admin), limits or "none", _until(key.expires), today)
        )
    print(table(("key", "limits", "expires", "used today"), rows))


def _label(name: str, *, admin: bool) -> str:
    return f"{name} (admin)" if admin else name


def _until(expires: float) -> str:
    if not expires:
        return "never"
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(expires))
    return f"{when} (expired)" if expires <= time.time() else when


async def _revoke(keys: "Keys", args: Namespace) -> None:
    await keys.revoke(args.name)


_ACTIONS = {"create": _create, "list": _list, "revoke": _revoke}
