"""Finding a store: by the scheme of its URL, which is the name of its file or entry point.

There is no list to edit. `memory:` is `unbroken.stores.memory`, `sqlite:///path.db` is
`unbroken.stores.sqlite`; each has a function `from_url`. Packages of others announce such a
function in the entry-point group `unbroken.stores`.
"""

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from unbroken.errors import ConfigurationError
from unbroken.stores.base import Store

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "unbroken.stores"
_NOT_STORES = frozenset({"base", "contract", "counters", "notify", "registry", "tail", "testing"})


def _announced() -> "Iterable[EntryPoint]":
    from importlib.metadata import entry_points  # slow to import, and only asked once

    return entry_points(group=GROUP)


@cache
def names() -> tuple[str, ...]:
    """All known kinds of stores, in alphabetical order."""
    package = importlib.import_module(__package__)
    return tuple(sorted({*_files(package.__path__), *(entry.name for entry in _announced())}))


def _files(path: Iterable[str]) -> Iterable[str]:
    """The modules that are stores: not the room's furniture, nor a store's own parts."""
    for module in pkgutil.iter_modules(path):
        if module.name not in _NOT_STORES and not module.name.startswith("_"):
            yield module.name


def open(url: str) -> Store:
    """The store at a URL such as `memory:` or `sqlite:///answers.db`, still to be entered.

    ConfigurationError says what is wrong with the URL.
    """
    try:
        scheme = urlsplit(url).scheme.partition("+")[0]  # redis+cluster: is the store's own matter
    except ValueError as error:  # in its words may be a password
        raise ConfigurationError(f"the URL of the store can't be read: {shown(url)!r}") from error
    if scheme not in names():
        known = ", ".join(names())
        raise ConfigurationError(
            f"there is no store {shown(url)!r}",
            hint=f"Write memory:, sqlite:///path.db or redis://host; known: {known}.",
        )
    return _opener(scheme)(url)


def shown(url: str) -> str:
    """A store's URL without what nobody else should read: name and password, options.

    Passwords are often not escaped, so all up to the last @ goes; a file's path, behind the third
    slash, stays.
    """
    return re.sub(":/{0,2}(?!/).*@", "://", url).partition("?")[0]


def _opener(name: str) -> Callable[[str], Store]:
    announced = [entry for entry in _announced() if entry.name == name]
    try:
        opener: Callable[[str], Store] = (
            announced[0].load()
            if announced
            else importlib.import_module(f"{__package__}.{name}").from_url
        )
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the store {name!r} needs {error.name}", hint=f"pip install 'unbroken[{error.name}]'"
        ) from error
    return opener
