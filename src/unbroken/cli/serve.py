"""Serve answers to browsers and SDKs, each of them a durable log.

Without any option: on http://127.0.0.1:8080, answers in ./unbroken.db, the model that
`unbroken models` names as the default.
"""

import asyncio
from argparse import ArgumentParser, Namespace

from unbroken.cli._question import count, seconds
from unbroken.errors import ConfigurationError
from unbroken.stores import registry


def add_arguments(parser: ArgumentParser) -> None:
    """The options of `serve`."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=count, default=8080, help="port to listen on")
    parser.add_argument(
        "--store",
        default="sqlite:///unbroken.db",
        metavar="URL",
        help="where answers are kept: sqlite:///FILE or memory:",
    )

    parser.add_argument(
        "--drain",
        type=seconds,
        default=10.0,
        metavar="SECONDS",
        help="when stopped: the time that open answers get before they are handed over",
    )


def run(args: Namespace) -> int:
    """Serve until Ctrl-C."""
    try:
        from unbroken.server.serving import may_listen, serve
    except ImportError as error:
        raise ConfigurationError(
            "serving needs the extra `server`", hint="pip install 'unbroken[server]'"
        ) from error
    if not asyncio.run(may_listen(registry.open(args.store), args.host)):
        raise ConfigurationError(
            f"without a key only this machine may ask, and {args.host} is more than that",
            hint="Make one: unbroken keys create NAME",
        )
    where = f"http://{args.host}:{args.port}"
    print(f"answers on {where}  (store: {args.store}; Ctrl-C stops)", flush=True)
    return serve(registry.open(args.store), args.host, args.port, args.drain)
