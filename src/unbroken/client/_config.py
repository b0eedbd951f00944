"""What `unbroken.toml` says of routes and limits.

[routes]
fast = ["openai/gpt-6-luna", "anthropic/claude-haiku-5-5"]

[limits.openai]
rpm = 500
tpm = 200_000
"""

from collections.abc import Collection, Mapping

from msgspec import Struct

from unbroken.client._file import find
from unbroken.engine.limits import Limits
from unbroken.errors import ConfigurationError
from unbroken.providers.registry import provider


class Config(Struct, frozen=True):
    """Routes by name: the models in the order they are asked. Limits by the provider's name."""

    routes: dict[str, list[str]] = {}
    limits: dict[str, Limits] = {}


def load(env: Mapping[str, str], directory: str = ".") -> Config:
    """The tables of the configuration file. ConfigurationError names the file and the line."""
    file = find(env, directory)
    routes = {name: file.value(list[str], "routes", name) for name in file.table("routes")}
    for name, models in routes.items():
        if mismatch := _wrong_route(name, models, routes):
            raise file.wrong(mismatch, ("routes", name))
    limits = {name: file.value(Limits, "limits", name) for name in file.table("limits")}
    for name in limits:
        try:
            provider(name)
        except ConfigurationError as error:
            raise file.wrong(str(error), ("limits", name)) from error
    return Config(routes, limits)


def _wrong_route(name: str, models: list[str], routes: Collection[str]) -> str:
    """What is wrong with a route. Whose its models are is not asked: that may be the server's
    affair which a `base_url` names.
    """
    if not models:
        return f"the route {name!r} names no model"
    route = next((model for model in models if model in routes), None)
    if route is not None:
        return f"the route {name!r} names the route {route!r}, and a route is of models"
    return ""
