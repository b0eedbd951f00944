"""Opening a store by the scheme of its URL, which is the name of its module or entry point.

There is no list to edit. `memory:` is `unbroken.stores.memory`, `sqlite:///path.db` is
`unbroken.stores.sqlite`; each has a function `from_url`. Other packages register such a function
in the entry-point group `unbroken.stores`.
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
    """Return all known kinds of stores, in alphabetical order."""
    package = importlib.import_module(__package__)
    return tuple(sorted({*_files(package.__path__), *(entry.name for entry in _announced())}))


def _files(path: Iterable[str]) -> Iterable[str]:
    """Return the modules that are stores, not what they share."""
    for module in pkgutil.iter_modules(path):
        if module.name not in _NOT_STORES and not module.name.startswith("_"):
            yield module.name


def open_store(url: str) -> Store:
    """Return the store at a URL such as `memory:` or `sqlite:///answers.db`, still to be entered.

    ConfigurationError says what is wrong with the URL.
    """
    try:
        scheme = urlsplit(url).scheme.partition("+")[0]  # redis+cluster: the store reads the rest
    except ValueError as error:  # its message may show a password
        raise ConfigurationError(
            f"the URL of the store can't be read: {redacted(url)!r}"
        ) from error
    if scheme not in names():
        known = ", ".join(names())
        raise ConfigurationError(
            f"there is no store {redacted(url)!r}",
            hint=f"Write memory:, sqlite:///path.db or redis://host; known: {known}.",
        )
    return _opener(scheme)(url)


open = open_store  # the former name, deprecated


def redacted(url: str) -> str:
    """Return a store's URL without user, password and options.

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
