"""How a gateway is set up: the `[server]` table of `unbroken.toml`, checked at the start.

    [server]
    host = "0.0.0.0"
    port = 8080
    store = "sqlite:///answers.db"
    keep_days = 30
    cors = ["https://chat.example"]
    models = ["fast", "sim/demo"]

    [keys.phone]
    usd = 5

Routes and limits of providers stand in tables of their own, which the client reads
(`client/_config.py`). Keys are made by `unbroken keys create`; their limits may stand here.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec
from msgspec import Struct

from unbroken.client._config import load as tables
from unbroken.client._file import File, find
from unbroken.errors import ConfigurationError
from unbroken.providers.registry import resolve
from unbroken.ready import ready
from unbroken.server.keys import Allowance
from unbroken.server.log import Style
from unbroken.server.records import OnDisconnect


@ready
class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One gateway. Seconds, bytes, days.

    `on_disconnect`: what becomes of an answer of the SDK endpoints and of `/stream` when its last
    reader leaves (`server/options.py`); `grace`: how long it waits for one to come back. `drain`:
    the time that open answers get when the server is stopped. `keep_days` and `keep_bytes` bound
    what is stored; None keeps all. `max_streams` bounds the answers that this process produces at a
    time. `log` is how the command writes its log; with `log_content` it holds prompts and answers.
    `cors`: the origins whose pages may ask, `*` for any. `models`: the models and routes that
    may be asked, the first of them when none is named; all if there are none. `simulator`: `open`
    lets callers ask `sim/...` models, with parameters (`sim/demo?tps=20`), whatever else is
    configured; `auto` serves them only where nothing else is, or where `models` lists them.
    `max_streams_per_key` and `max_followers_per_key` bound the open answers and the readers that
    one key has in this process at a time.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    store: str = "sqlite:///unbroken.db"
    on_disconnect: OnDisconnect = "grace"
    grace: float = 10.0
    drain: float = 10.0
    heartbeat: float = 15.0
    max_body: int = 32 * 1024 * 1024
    max_streams: int = 10_000
    keep_days: float | None = None
    keep_bytes: int | None = None
    log: Style = "text"
    log_content: bool = False
    cors: list[str] = []
    models: list[str] = []
    simulator: Literal["auto", "open"] = "auto"
    max_streams_per_key: int = 1_000
    max_followers_per_key: int = 5_000

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name}={value} must be more than 0, and not without end")
        if not 0 < self.port < 65536:
            raise ValueError(f"port={self.port} is no port")


_POSITIVE = (
    "grace",
    "drain",
    "heartbeat",
    "max_body",
    "max_streams",
    "max_streams_per_key",
    "max_followers_per_key",
    "keep_days",
    "keep_bytes",
)


def load(env: Mapping[str, str], given: Mapping[str, object], directory: str = ".") -> Settings:
    """The `[server]` table; over it UNBROKEN_PORT and so on, a variable for each name; over them
    what was `given` as options. ConfigurationError names the line, the variable or the option.
    """
    file = find(env, directory)
    table = file.table("server")
    if table:
        file.value(Settings, "server")
    options = {name: _converted(name, value, f"--{name}") for name, value in given.items()}
    settings = msgspec.convert({**table, **_variables(env), **options}, Settings)
    routes = tables(env, directory).routes
    for name, models in routes.items():
        if said := _unknown(models):
            raise file.wrong(said, ("routes", name))
    if said := _unknown(model for model in settings.models if model not in routes):
        raise _wrong_models(file, env, said)
    return settings


def _unknown(models: Iterable[str]) -> str:
    """What is wrong with the first that has no provider. A gateway has no `base_url` of its own, so
    that a name which nobody knows would fail only when it is asked.
    """
    for model in models:
        try:
            resolve(model)
        except ConfigurationError as error:
            return str(error)
    return ""


def _wrong_models(file: File, env: Mapping[str, str], said: str) -> ConfigurationError:
    if env.get("UNBROKEN_MODELS"):
        return ConfigurationError(f"UNBROKEN_MODELS: {said}")
    return file.wrong(said, ("server", "models"))


def key_limits(env: Mapping[str, str], directory: str = ".") -> dict[str, Allowance]:
    """The `[keys.NAME]` tables: what keys may use in a day, whatever they were made with."""
    file = find(env, directory)
    return {name: file.value(Allowance, "keys", name) for name in file.table("keys")}


def _variables(env: Mapping[str, str]) -> dict[str, object]:
    """What the environment says. Lists are written with commas."""
    found: dict[str, object] = {}
    for field in msgspec.structs.fields(Settings):
        variable = f"UNBROKEN_{field.name.upper()}"
        if said := env.get(variable):
            listed = isinstance(field.default_factory, type)
            value = [one.strip() for one in said.split(",") if one.strip()] if listed else said
            if not value:
                raise ConfigurationError(f"{variable}: {said!r} names nothing")
            found[field.name] = _converted(field.name, value, variable)
    return found


def _converted(name: str, value: object, source: str) -> object:
    try:
        return getattr(msgspec.convert({name: value}, Settings, strict=False), name)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{source}: {error}") from error
