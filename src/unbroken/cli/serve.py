"""Serve answers to browsers and SDKs, each of them a durable log.

Without any option: on http://127.0.0.1:8080, answers in ./unbroken.db, the model that
`unbroken models` names as the default.
"""

from argparse import ArgumentParser, Namespace

from unbroken.cli._question import count
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


def run(args: Namespace) -> int:
    """Serve until Ctrl-C."""
    try:
        import uvicorn
    except ImportError as error:
        raise ConfigurationError(
            "serving needs the extra `server`", hint="pip install 'unbroken[server]'"
        ) from error
    from unbroken.server.gateway import Gateway

    gateway = Gateway(registry.open(args.store))
    print(f"answers on http://{args.host}:{args.port}  (store: {args.store}; Ctrl-C stops)")
    config = uvicorn.Config(
        gateway, host=args.host, port=args.port, log_level="warning", lifespan="on"
    )
    server = uvicorn.Server(config)
    server.run()
    return 0 if server.started else 1
