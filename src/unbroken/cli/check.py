"""Ask every provider that has a key one tiny question, and say what is wrong.

Exit code 0 if all are well, else the code of the first that is not; 2 if no provider has a key.
"""

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from unbroken.cli._exits import exit_code
from unbroken.cli._table import table
from unbroken.client._async import AsyncClient
from unbroken.client._plan import configured, environment
from unbroken.engine.policy import RecoveryPolicy, Timeouts
from unbroken.errors import (
    AuthenticationFailed,
    ConfigurationError,
    ConnectFailed,
    NotFound,
    Overloaded,
    PermissionDenied,
    QuotaExhausted,
    RateLimited,
    TimedOut,
    TransportError,
    UnbrokenError,
)
from unbroken.providers import registry

# The first row that fits decides, so the narrower classes come first.
_SAYS: tuple[tuple[type[UnbrokenError], str], ...] = (
    (AuthenticationFailed, "wrong key"),
    (PermissionDenied, "no access"),
    (NotFound, "no such model"),
    (QuotaExhausted, "quota exhausted"),
    (RateLimited, "rate limited"),
    (Overloaded, "overloaded"),
    (ConnectFailed, "not reachable"),
    (TimedOut, "timed out"),
    (TransportError, "connection lost"),
)
_TIMEOUTS = Timeouts(connect=5, first_event=20, total=30)
_TOKENS = 16  # the fewest that every provider takes


class Finding(Struct, kw_only=True):
    """One provider's line."""

    provider: str
    model: str
    state: str
    seconds: float
    detail: str = ""
    code: int = 0


def add_arguments(parser: ArgumentParser) -> None:
    """The options of `check`."""
    parser.add_argument(
        "model", nargs="*", help="provider or provider/model; default: all that have a key"
    )
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: Namespace) -> int:
    """Check, and print the table."""
    import asyncio  # slow to import, and no other command needs it

    found = asyncio.run(_check_all(args.model or _with_keys()))
    if args.json:
        print(msgspec.json.encode(found).decode())
    else:
        rows = [(f.provider, f.model, f.state, f"{f.seconds:.1f} s", f.detail) for f in found]
        print(table(("provider", "model", "state", "time", ""), rows))
    return next((finding.code for finding in found if finding.code), 0)


def _with_keys() -> list[str]:
    models = configured(environment())
    if not models:
        variables = (registry.provider(name).auth.env for name in registry.defaults())
        names = ", ".join(variable for variable in variables if variable)
        raise ConfigurationError("no provider has a key", hint=f"Set one of {names}.")
    return models


async def _check_all(models: Sequence[str]) -> list[Finding]:
    import asyncio

    named = [registry.resolve(model) for model in models]  # a wrong name is told before any asking
    async with AsyncClient(timeouts=_TIMEOUTS, recovery=RecoveryPolicy(attempts=1)) as client:
        return await asyncio.gather(
            *(_check(client, provider.name, model) for provider, model in named)
        )


async def _check(client: AsyncClient, provider: str, model: str) -> Finding:
    began = time.monotonic()
    state, detail, code = "ok", "", 0
    try:
        await client.complete(f"{provider}/{model}", "Say ok.", max_tokens=_TOKENS)
    except UnbrokenError as error:
        state = next((says for kind, says in _SAYS if isinstance(error, kind)), "failed")
        detail, code = " ".join(str(error).split()), exit_code(error)
    seconds = time.monotonic() - began
    return Finding(
        provider=provider, model=model, state=state, seconds=seconds, detail=detail, code=code
    )
