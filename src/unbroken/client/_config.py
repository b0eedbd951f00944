"""What `unbroken.toml` says of routes and limits.

[routes]
fast = ["openai/gpt-6-luna", "anthropic/claude-haiku-5-5"]

[limits.openai]
rpm = 500
tpm = 200_000
"""

from collections.abc import Mapping

from msgspec import Struct

from unbroken.client._file import find
from unbroken.engine.health import Limits


class Config(Struct, frozen=True):
    """Routes by name: the models in the order they are asked. Limits by the provider's name."""

    routes: dict[str, list[str]] = {}
    limits: dict[str, Limits] = {}


def load(env: Mapping[str, str], directory: str = ".") -> Config:
    """The tables of the configuration file. ConfigurationError names the file and the line."""
    file = find(env, directory)
    routes = {name: file.value(list[str], "routes", name) for name in file.table("routes")}
    for name, models in routes.items():
        if not models:
            raise file.wrong(f"the route {name!r} names no model", ("routes", name))
    limits = {name: file.value(Limits, "limits", name) for name in file.table("limits")}
    return Config(routes, limits)
