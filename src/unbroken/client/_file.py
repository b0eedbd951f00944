"""`unbroken.toml`: found, read, and what is wrong in it told by its line.

Each part of the program reads its own tables; one that none of them reads is a slip of the pen.
"""

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from unbroken.errors import ConfigurationError

FILE = "unbroken.toml"
VARIABLE = "UNBROKEN_CONFIG"
TABLES = ("routes", "limits", "server", "keys")
T = TypeVar("T")


class File(Struct, frozen=True):
    """A configuration file; an empty one if there is none."""

    path: Path
    text: str = ""
    tables: dict[str, Any] = {}

    def table(self, name: str) -> dict[str, Any]:
        """A table, empty if it is not there. ConfigurationError if something else is."""
        found = self.tables.get(name, {})
        if not isinstance(found, dict):
            raise self.wrong(f"[{name}] is a table", (name,))
        return found

    def value(self, kind: type[T], *place: str) -> T:
        """What stands at a place, such as `limits`, `openai`, as a `kind`.

        ConfigurationError says what is wrong with it, and in which line.
        """
        found: Any = self.tables
        for name in place:
            found = found[name]
        try:
            return msgspec.convert(found, kind)
        except (msgspec.ValidationError, ValueError) as error:
            raise self.wrong(str(error), place) from error

    def wrong(self, said: str, place: tuple[str, ...]) -> ConfigurationError:
        """The error for it. Which name is meant is read from the words of the validation."""
        named = re.search(r"`\$\.?(\w+)|unknown field `(\w+)`|^(?:limit )?(\w+)=", said)
        key = next((name for name in named.groups() if name), "") if named else ""
        line = line_of(self.text, (*place, key) if key else place)
        where = f"{self.path} line {line}" if line else f"{self.path}"
        return ConfigurationError(f"{where}: [{'.'.join(place)}] {said}")


def find(env: Mapping[str, str], directory: str = ".") -> File:
    """The file that UNBROKEN_CONFIG names, or `unbroken.toml` here if there is one."""
    named = env.get(VARIABLE)
    path = Path(named) if named else Path(directory, FILE)
    if not named and not path.is_file():
        return File(path)
    try:
        text = path.read_text("utf-8")
        file = File(path, text, tomllib.loads(text))
    except OSError as error:
        said = f"{path} can't be read: {error.strerror}"
        raise ConfigurationError(said, hint=f"{VARIABLE} names it.") from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise ConfigurationError(f"{path}: {error}") from error
    for name in file.tables.keys() - set(TABLES):
        near = difflib.get_close_matches(name, TABLES, n=1)
        known = f"did you mean [{near[0]}]?" if near else f"there are: {', '.join(TABLES)}"
        raise file.wrong(f"there is no such table; {known}", (name,))
    return file


def line_of(text: str, place: tuple[str, ...]) -> int:
    """The line, from 1, where `place` is set: its key, else the table that holds it. 0: not found,
    as with tables that are written in one line.
    """
    best, table = (0, 0), tuple[str, ...]()
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line):
            table = _names(header[1])
            here = table
        elif key := re.match(r"\s*([^#=\s][^=]*?)\s*=", line):
            here = (*table, *_names(key[1]))
        else:
            continue
        if here == place[: len(here)] and len(here) > best[0]:
            best = (len(here), number)
    return best[1]


def _names(dotted: str) -> tuple[str, ...]:
    return tuple(name.strip().strip("\"'") for name in dotted.split("."))
