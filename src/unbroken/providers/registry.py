"""Finding a provider: by the name of its file, by entry point, or by a model's certain name.

There is no list to edit. `unbroken.providers.NAME` is imported when NAME is asked for; packages
of others announce theirs in the entry-point group `unbroken.providers`.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from unbroken.errors import ConfigurationError
from unbroken.providers.base import Provider

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "unbroken.providers"
_NOT_PROVIDERS = frozenset({"base", "registry", "contract"})


@cache
def names() -> tuple[str, ...]:
    """All known providers, in alphabetical order."""
    package = importlib.import_module(__package__)
    files = {module.name for module in pkgutil.iter_modules(package.__path__)} - _NOT_PROVIDERS
    own = {name.replace("_", "-") for name in files}
    return tuple(sorted(own | {entry.name for entry in _announced()}))


def _announced() -> "Iterable[EntryPoint]":
    from importlib.metadata import entry_points  # slow to import, and only asked once

    return entry_points(group=GROUP)


@cache
def provider(name: str) -> Provider:
    """The provider of that name; ConfigurationError names the near ones if there is none."""
    if name not in names():
        raise ConfigurationError(f"there is no provider {name!r}", hint=_suggestion(name))
    announced = [entry for entry in _announced() if entry.name == name]
    if announced:
        found = announced[0].load()
    else:
        found = importlib.import_module(f"{__package__}.{name.replace('-', '_')}").PROVIDER
    assert isinstance(found, Provider)
    return found


def _suggestion(name: str) -> str:
    near = difflib.get_close_matches(name, names(), n=1)
    meant = f"Did you mean {near[0]!r}? " if near else ""
    known = ", ".join(names())
    return f"{meant}Known: {known}. For any other OpenAI-compatible server give `base_url`."


@cache
def defaults() -> dict[str, dict[str, str]]:
    """The data file of default models, by provider, in the order they are tried in."""
    import tomllib

    return tomllib.loads(files(__package__).joinpath("defaults.toml").read_text("utf-8"))


def default_model(name: str) -> str | None:
    """The model that answers for a provider when none is named."""
    return defaults().get(name, {}).get("model")


def resolve(model: str, *, elsewhere: bool = False) -> tuple[Provider, str]:
    """The provider and its own name for `model`: `provider/model`, `provider`, or a certain name.

    `elsewhere`: a base URL was given, so that a name nobody knows belongs to the compatible
    server there. Raises ConfigurationError with what would work.
    """
    head, slash, rest = model.partition("/")
    if slash and rest and head in names():
        return provider(head), rest
    if not slash and head in names() and (default := default_model(head)):
        return provider(head), default
    certain = None if slash else _by_prefix(model)
    if certain is not None and not elsewhere:
        return certain, model
    if elsewhere and model:
        return provider("compatible"), model
    raise _unresolved(model, head if slash else "")


def _by_prefix(model: str) -> Provider | None:
    known = (provider(name) for name in names())
    return next((found for found in known if model.startswith(found.prefixes)), None)


def _unresolved(model: str, head: str) -> ConfigurationError:
    if head:
        return ConfigurationError(
            f"there is no provider {head!r} (in {model!r})", hint=_suggestion(head)
        )
    return ConfigurationError(
        f"the provider of the model {model!r} is not known",
        hint=f"Write provider/model, such as openai/{model or 'gpt-...'}.",
    )
