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
UNBROKEN_LOG and so on. Other machines may connect once there is a key: unbroken keys create NAME.

SIGTERM and Ctrl-C stop it in an orderly way; SIGHUP reloads limits of keys, models, routes and
certificates, without touching open answers.
"""

from argparse import ArgumentParser, Namespace
from functools import partial
from typing import TYPE_CHECKING

from unbroken.cli._question import count, seconds
from unbroken.cli._terminal import dim
from unbroken.client._plan import environment
from unbroken.errors import ConfigurationError
from unbroken.stores.registry import redacted

if TYPE_CHECKING:
    from unbroken.server.process import Configuration
    from unbroken.server.settings import Settings

_OPTIONS = ("host", "port", "uds", "workers", "store", "drain", "ssl_certfile", "ssl_keyfile")


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of `serve`."""
    parser.add_argument("--host", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=count, help="port to listen on (8080)")
    parser.add_argument("--uds", metavar="PATH", help="unix socket to listen on instead")
    parser.add_argument("--workers", type=count, metavar="N", help="processes on this port (1)")
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
    parser.add_argument("--ssl-certfile", metavar="FILE", help="TLS certificate chain (PEM)")
    parser.add_argument("--ssl-keyfile", metavar="FILE", help="TLS private key (PEM)")


def run(args: Namespace) -> int:
    """Serve until Ctrl-C."""
    try:
        from unbroken.server.process import serve
        from unbroken.server.workers import Supervisor
    except ImportError as error:
        raise ConfigurationError(
            "serving needs the extra `server`", hint="pip install 'unbroken[server]'"
        ) from error
    given = {name: getattr(args, name) for name in _OPTIONS}
    load = partial(_configuration, {k: v for k, v in given.items() if v is not None})
    settings = load().settings
    console = _Console(settings)
    if settings.workers > 1:
        return Supervisor(load, settings).run(console)
    return serve(load, console)


def _configuration(given: dict[str, object]) -> "Configuration":
    """Read files, variables and options; again at each SIGHUP."""
    from unbroken.server.process import Configuration
    from unbroken.server.settings import key_limits, load

    env = environment()
    return Configuration(load(env, given), key_limits(env))


class _Console:
    """Prints how the start goes."""

    def __init__(self, settings: "Settings") -> None:
        self._settings, self._store = settings, redacted(settings.store)

    def ready(self) -> None:
        """The gateway accepts connections."""
        kept = self._settings.retention
        days = "kept for ever" if kept is None else f"kept {kept:g} days"
        facts = f"store: {self._store}, {days}; Ctrl-C stops"
        print(f"answers on {self._settings.url}  ({facts})", flush=True)

    def waiting(self) -> None:
        """The store does not open at once."""
        dim(f"waiting for the store {self._store}")
