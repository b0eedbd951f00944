"""Settings of a gateway: the `[server]` table of `unbroken.toml`, validated at the start.

    [server]
    host = "0.0.0.0"
    port = 8080
    store = "sqlite:///answers.db"
    keep_days = 30
    cors = ["https://chat.example"]
    models = ["fast", "sim/demo"]

    [keys.phone]
    usd = 5

Routes and limits of providers have tables of their own, which the client reads
(`client/_config.py`). Keys are created by `unbroken keys create`; their limits may be set here.
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
from unbroken.server.auth import KeyLimits
from unbroken.server.log import Style
from unbroken.server.records import OnDisconnect


@ready
class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One gateway. Seconds, bytes, days. docs/reference/settings.md describes every field.

    `on_disconnect`: what happens to an answer of the SDK endpoints and of `/stream` when its last
    reader disconnects (`server/options.py`); `grace`: how long it waits for a reader to return.
    `drain`: the time that open answers get when the server stops. `keep_days` and `keep_bytes`
    bound what is stored; `keep_days = "forever"` keeps all. `max_streams` bounds the answers that
    one process produces at a time, `max_streams_per_key` and `max_followers_per_key` the open
    answers and the readers that one key has in it. `log_content` logs prompts and answers. `cors`:
    origins whose pages may send requests, `*` for any. `models`: the models and routes that may be
    requested, the first of them by default; all if empty.

    `simulator`: `open` lets callers request `sim/...` models with parameters (`sim/demo?tps=20`);
    `auto` serves them, without parameters, only if nothing else is configured or `models` lists
    them.

    `uds`, `ssl_*`, `proxy_headers`, `forwarded_allow_ips` and `timeout_keep_alive` are uvicorn's
    settings of these names. `timeout_head` and `timeout_body` bound how long a request may take to
    arrive, `timeout_write` how long a client may read nothing while a response waits for it.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    uds: str = ""
    workers: int = 1
    store: str = "sqlite:///unbroken.db"
    on_disconnect: OnDisconnect = "grace"
    grace: float = 10.0
    drain: float = 10.0
    heartbeat: float = 15.0
    max_body: int = 32 * 1024 * 1024
    max_streams: int = 10_000
    max_connections: int = 10_000
    max_connections_per_client: int = 1_000
    timeout_head: float = 10.0
    timeout_body: float = 300.0
    timeout_write: float = 300.0
    timeout_keep_alive: int = 30
    ssl_certfile: str = ""
    ssl_keyfile: str = ""
    ssl_keyfile_password: str = ""
    proxy_headers: bool = True
    forwarded_allow_ips: str = "127.0.0.1,::1"
    keep_days: float | Literal["forever"] = 30.0
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
            if isinstance(value, int | float) and not 0 < value < math.inf:
                raise ValueError(f"{name}={value} must be a finite number above 0")
        if not 0 < self.port < 65536:
            raise ValueError(f"port={self.port} must be between 1 and 65535")

    @property
    def url(self) -> str:
        """The address of the gateway."""
        if self.uds:
            return f"unix:{self.uds}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.ssl_certfile else 'http'}://{host}:{self.port}"

    @property
    def retention(self) -> float | None:
        """Days that a finished answer is kept, or None for ever."""
        return None if self.keep_days == "forever" else self.keep_days


_POSITIVE = (
    *("workers", "grace", "drain", "heartbeat", "max_body", "max_streams", "keep_days"),
    *("max_streams_per_key", "max_followers_per_key"),
    *("keep_bytes", "max_connections", "max_connections_per_client", "timeout_head"),
    *("timeout_body", "timeout_write", "timeout_keep_alive"),
)

RELOADABLE = (
    *("grace", "drain", "heartbeat", "max_body", "max_streams", "keep_days", "keep_bytes"),
    *("on_disconnect", "models", "log_content"),
)
"""Settings that SIGHUP changes in a running gateway; the others need a restart."""


def load(env: Mapping[str, str], given: Mapping[str, object], directory: str = ".") -> Settings:
    """Return the settings: the `[server]` table, overridden by variables (UNBROKEN_PORT and so on),
    overridden by the `given` options. Raises ConfigurationError naming line, variable or option.
    """
    file = find(env, directory)
    table = file.table("server")
    if table:
        file.value(Settings, "server")
    options = {name: _converted(name, value, f"--{name}") for name, value in given.items()}
    settings = msgspec.convert({**table, **_variables(env), **options}, Settings)
    _check_together(settings)
    routes = tables(env, directory).routes
    for name, models in routes.items():
        if problem := _unknown(models):
            raise file.wrong(problem, ("routes", name))
    if problem := _unknown(model for model in settings.models if model not in routes):
        raise _wrong_models(file, env, problem)
    return settings


def _check_together(settings: Settings) -> None:
    """Raise ConfigurationError for settings that exclude each other."""
    if settings.ssl_keyfile and not settings.ssl_certfile:
        raise ConfigurationError("ssl_keyfile needs ssl_certfile as well")
    if settings.workers > 1 and settings.store.startswith("memory:"):
        raise ConfigurationError(
            f"workers={settings.workers} need a shared store, and memory: is none",
            hint="Write sqlite:///path.db or redis://host.",
        )


def _unknown(models: Iterable[str]) -> str:
    """Return the error of the first model without a provider, or "". A gateway has no `base_url`
    of its own, so that an unknown name would fail only when it is requested.
    """
    for model in models:
        try:
            resolve(model)
        except ConfigurationError as error:
            return str(error)
    return ""


def _wrong_models(file: File, env: Mapping[str, str], problem: str) -> ConfigurationError:
    if env.get("UNBROKEN_MODELS"):
        return ConfigurationError(f"UNBROKEN_MODELS: {problem}")
    return file.wrong(problem, ("server", "models"))


def key_limits(env: Mapping[str, str], directory: str = ".") -> dict[str, KeyLimits]:
    """Return the `[keys.NAME]` tables: limits that override those a key was created with."""
    file = find(env, directory)
    return {name: file.value(KeyLimits, "keys", name) for name in file.table("keys")}


def _variables(env: Mapping[str, str]) -> dict[str, object]:
    """Return the settings from the environment. Lists are separated by commas."""
    found: dict[str, object] = {}
    for field in msgspec.structs.fields(Settings):
        variable = f"UNBROKEN_{field.name.upper()}"
        if text := env.get(variable):
            listed = isinstance(field.default_factory, type)
            value = [one.strip() for one in text.split(",") if one.strip()] if listed else text
            if not value:
                raise ConfigurationError(f"{variable}: {text!r} is an empty list")
            found[field.name] = _converted(field.name, value, variable)
    return found


def _converted(name: str, value: object, source: str) -> object:
    try:
        return getattr(msgspec.convert({name: value}, Settings, strict=False), name)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{source}: {error}") from error
