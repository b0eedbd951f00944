"""What `unbroken.toml` says of routes and limits; other programs' tables in it are left alone.

[routes]
fast = ["openai/gpt-6-luna", "anthropic/claude-haiku-5-5"]

[limits.openai]
rpm = 500
tpm = 200_000
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from unbroken.engine.health import Limits
from unbroken.errors import ConfigurationError

FILE = "unbroken.toml"
VARIABLE = "UNBROKEN_CONFIG"


class Config(Struct, frozen=True):
    """Routes by name: the models in the order they are asked. Limits by the provider's name."""

    routes: dict[str, list[str]] = {}
    limits: dict[str, Limits] = {}


def load(env: Mapping[str, str], directory: str = ".") -> Config:
    """The file that UNBROKEN_CONFIG names, or `unbroken.toml` here if there is one.

    Raises ConfigurationError that names the file and the place.
    """
    named = env.get(VARIABLE)
    path = Path(named) if named else Path(directory, FILE)
    if not named and not path.is_file():
        return Config()
    try:
        return _read(path.read_text("utf-8"), path)
    except OSError as error:
        raise ConfigurationError(
            f"{path} can't be read: {error.strerror}", hint=f"{VARIABLE} names it."
        ) from error


def _read(text: str, path: Path) -> Config:
    try:
        tables: dict[str, Any] = tomllib.loads(text)
        config = msgspec.convert(tables, Config)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: {error}") from error
    except (msgspec.ValidationError, ValueError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    empty = [name for name, models in config.routes.items() if not models]
    if empty:
        raise ConfigurationError(f"{path}: the route {empty[0]!r} names no model")
    return config
