"""Decides which models a caller may name, and how many answers and readers one caller may have.

The simulator answers without a key and without cost, so it is served only where nothing else is
configured, or where `models` lists it. Its parameters (`sim/demo?tokens=5`) are for demos and
tests: callers may set them only with `simulator = "open"`. Routes and `models` are the operator's
own words and may name whatever they like.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Generator, Mapping, Sequence

from unbroken.client._plan import configured
from unbroken.errors import BadRequest, ConfigurationError, NotFound, RateLimited
from unbroken.providers.registry import resolve
from unbroken.server.settings import Settings

MAX_MODEL_NAME = 4096
"""Characters in the name of a model; the simulator's have their parameters in it."""

_SHOWN = 80
"""Characters of a name that an error message repeats."""

SIMULATOR = "sim/demo"


class Models:
    """The models of one gateway. `routes` are names of the operator's; `env` may hold keys."""

    def __init__(self, settings: Settings, routes: Collection[str], env: Mapping[str, str]) -> None:
        self._listed, self._routes = settings.models, list(routes)
        self._open = settings.simulator == "open"
        self._configured = configured(env)
        chosen = [*self._listed, env.get("UNBROKEN_MODEL", ""), *self._configured, *routes]
        self.default = next(filter(None, chosen), SIMULATOR)
        self._simulator = self._open or _is_simulated(self.default)

    def names(self) -> list[str]:
        """The names that `model` may have: those that are listed, or routes and defaults."""
        simulator = [SIMULATOR] if self._simulator else []
        found = [*self._routes, *self._configured, *simulator]
        return self._listed or list(dict.fromkeys(found))

    def check(self, models: Sequence[str]) -> None:
        """BadRequest or NotFound for the first that may not be asked; it names the setting."""
        for model in models:
            if len(model) > MAX_MODEL_NAME:
                said = f"the name of a model has at most {MAX_MODEL_NAME} characters"
                raise BadRequest(said, status=400, code="invalid_request_error")
            if self._listed and model not in self._listed:
                listed = ", ".join(self._listed)
                raise _not_found(f"model {_shown(model)} is not served here; available: {listed}")
            if model not in self._listed and model not in self._routes:
                self._check_simulated(model)

    def check_fields(self, fields: Collection[str]) -> None:
        """BadRequest for fields that would let a provider answer with an unlisted model."""
        if self._listed and (chosen := _CHOOSING.intersection(fields)):
            name = min(chosen)
            said = f"`{name}` names models that this gateway did not check; use `fallbacks`"
            raise BadRequest(said, status=400, code="unsupported_parameter")

    def _check_simulated(self, model: str) -> None:
        if not _is_simulated(model):
            return
        if "?" in model and not self._open:
            raise BadRequest(
                f"model {_shown(model)} sets parameters of the simulator, which callers of this "
                'gateway may not; its operator can allow it with simulator = "open" in [server] '
                "(UNBROKEN_SIMULATOR=open)",
                status=400,
                code="simulator_closed",
            )
        if not self._simulator:
            raise _not_found(
                f"model {_shown(model)} is not served here, since other models are: its "
                'operator can list it in `models` in [server], or set simulator = "open"'
            )


_CHOOSING = frozenset({"models", "fallback_models", "preset"})
"""Fields that choose models at OpenRouter (openrouter.ai/docs/features/model-routing)."""


def _is_simulated(model: str) -> bool:
    with contextlib.suppress(ConfigurationError):
        return resolve(model)[0].name == "sim"
    return False


def _not_found(said: str) -> NotFound:
    return NotFound(said, status=404, code="model_not_found")


def _shown(model: str) -> str:
    return repr(model if len(model) <= _SHOWN else model[:_SHOWN] + "…")


class Shares:
    """Counts what each owner has of something at a time. Without keys there is one owner only,
    which may have all of it: the bounds of the whole process apply.
    """

    def __init__(self, what: str, most: int) -> None:
        self._what, self._most = what, most
        self._held: Counter[str] = Counter()

    def check(self, owner: str, others: Callable[[], int] = int) -> None:
        """RateLimited (429) if the owner has as much as it may; `others` are counted elsewhere."""
        if owner and self._held[owner] + others() >= self._most:
            said = f"this key is at its limit of {self._most} {self._what} at a time"
            raise RateLimited(said, status=429, code="too_many_streams", retry_after=1.0)

    @contextlib.contextmanager
    def taken(self, owner: str) -> Generator[None, None, None]:
        """Count one more while the block runs."""
        self._held[owner] += 1
        try:
            yield
        finally:
            self._held[owner] -= 1
            if not self._held[owner]:
                del self._held[owner]
