"""Ask every provider that has a key one tiny question, and say what is wrong.

Exit code 0 if all are well, else the code of the first that is not.
"""

import time
from argparse import ArgumentParser, Namespace

import msgspec

from unbroken.cli._exits import exit_code
from unbroken.cli._table import table
from unbroken.client._plan import configured, environment
from unbroken.client._sync import Client
from unbroken.engine.policy import RecoveryPolicy, Timeouts
from unbroken.errors import (
    AuthenticationFailed,
    ConfigurationError,
    NotFound,
    PermissionDenied,
    QuotaExhausted,
    RateLimited,
    TransportError,
    UnbrokenError,
)
from unbroken.providers import registry

_SAYS: tuple[tuple[type[UnbrokenError], str], ...] = (
    (AuthenticationFailed, "wrong key"),
    (PermissionDenied, "no access"),
    (NotFound, "no such model"),
    (QuotaExhausted, "nothing left to spend"),
    (RateLimited, "rate limit"),
    (TransportError, "not reachable"),
)


def add_arguments(parser: ArgumentParser) -> None:
    """The options of `check`."""
    parser.add_argument(
        "model", nargs="*", help="provider or provider/model; default: all with keys"
    )
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: Namespace) -> int:
    """Check, and print the table."""
    models = args.model or configured(environment())
    if not models:
        variables = (registry.provider(name).auth.env for name in registry.defaults())
        names = ", ".join(variable for variable in variables if variable)
        raise ConfigurationError("no provider has a key", hint=f"Set one of {names}.")
    with Client(timeouts=_TIMEOUTS, recovery=RecoveryPolicy(attempts=1)) as client:
        found = [_check(client, model) for model in models]
    rows = [row for row, _ in found]
    if args.json:
        print(msgspec.json.encode(rows).decode())
    else:
        print(table(("model", "state", "seconds", ""), [tuple(row.values()) for row in rows]))
    return next((code for _, code in found if code), 0)


_TIMEOUTS = Timeouts(connect=5, first_event=20, total=30)


def _check(client: Client, model: str) -> tuple[dict[str, str], int]:
    began = time.monotonic()
    try:
        response = client.complete(model, "Say ok.", max_tokens=16)
    except UnbrokenError as error:
        state = next((says for kind, says in _SAYS if isinstance(error, kind)), "failed")
        return _row(model, state, began, str(error)), exit_code(error)
    return _row(f"{response.provider}/{response.model}", "ok", began, ""), 0


def _row(model: str, state: str, began: float, detail: str) -> dict[str, str]:
    seconds = f"{time.monotonic() - began:.1f}"
    return {"model": model, "state": state, "seconds": seconds, "detail": detail}
