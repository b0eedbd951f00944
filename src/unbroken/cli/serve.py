"""Serve answers to browsers and SDKs, each of them a durable log.

Without any option: on http://127.0.0.1:8080, answers in ./unbroken.db, the model that
`unbroken models` names as the default.

  /                      a chat page
  /docs                  every request, described
  /v1/chat/completions   for OpenAI's SDKs; /v1/responses too, /v1/messages for Anthropic's
  /stream?prompt=...     for curl and a browser's EventSource
  /metrics               for Prometheus

All settings may stand in the `[server]` table of `unbroken.toml`, or in variables: UNBROKEN_PORT,
UNBROKEN_STORE, UNBROKEN_CORS, UNBROKEN_MODELS, UNBROKEN_ON_DISCONNECT, UNBROKEN_KEEP_DAYS,
UNBROKEN_LOG and so on. Other machines may ask once there is a key: unbroken keys create NAME.
"""

from argparse import ArgumentParser, Namespace

from unbroken.cli._question import count, seconds
from unbroken.cli._terminal import dim
from unbroken.client._plan import environment
from unbroken.errors import ConfigurationError
from unbroken.stores.registry import redacted


def add_arguments(parser: ArgumentParser) -> None:
    """The options of `serve`."""
    parser.add_argument("--host", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=count, help="port to listen on (8080)")
    parser.add_argument(
        "--store",
        metavar="URL",
        help="where answers are kept: redis://HOST, memory:, sqlite:///FILE "
        "(sqlite:///unbroken.db)",
    )
    parser.add_argument(
        "--drain",
        type=seconds,
        metavar="SECONDS",
        help="when stopped: the time that open answers get before they are handed over (10)",
    )


def run(args: Namespace) -> int:
    """Serve until Ctrl-C."""
    try:
        from unbroken.server.serving import serve, url_of
        from unbroken.server.settings import key_limits, load
    except ImportError as error:
        raise ConfigurationError(
            "serving needs the extra `server`", hint="pip install 'unbroken[server]'"
        ) from error
    given = {name: getattr(args, name) for name in ("host", "port", "store", "drain")}
    env = environment()
    settings = load(env, {k: v for k, v in given.items() if v is not None})
    store = redacted(settings.store)

    def ready() -> None:
        print(f"answers on {url_of(settings)}  (store: {store}; Ctrl-C stops)", flush=True)

    return serve(settings, key_limits(env), ready, lambda: dim(f"waiting for the store {store}"))
