"""How a gateway is set up: the `[server]` table of `unbroken.toml`, checked at the start.

    [server]
    host = "0.0.0.0"
    port = 8080
    store = "sqlite:///answers.db"
    keep_days = 30
    cors = ["https://chat.example"]

Routes and limits stand in tables of their own, which the client reads (`client/_config.py`).
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from unbroken.client._config import FILE, VARIABLE
from unbroken.errors import ConfigurationError
from unbroken.server.records import OnDisconnect


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One gateway. Seconds, bytes, days.

    `on_disconnect`: what becomes of an answer of the SDK endpoints and of `/stream` when its last
    reader leaves (`server/wishes.py`); `grace`: how long it waits for one to come back. `drain`:
    the time that open answers get when the server is stopped. `keep_days` and `keep_bytes` bound
    what is stored; None keeps all. `cors`: the origins whose pages may ask, `*` for any.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    store: str = "sqlite:///unbroken.db"
    on_disconnect: OnDisconnect = "grace"
    grace: float = 10.0
    drain: float = 10.0
    heartbeat: float = 15.0
    max_body: int = 32 * 1024 * 1024
    keep_days: float | None = None
    keep_bytes: int | None = None
    cors: list[str] = []

    def __post_init__(self) -> None:
        for name in ("grace", "drain", "heartbeat", "max_body", "keep_days", "keep_bytes"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name}={value} must be more than 0")
        if not 0 < self.port < 65536:
            raise ValueError(f"port={self.port} is no port")


def load(env: Mapping[str, str], given: Mapping[str, object], directory: str = ".") -> Settings:
    """The table in the file that UNBROKEN_CONFIG names, or in `unbroken.toml` here, with what was
    `given` over it. ConfigurationError names the file and the place.
    """
    path = Path(env.get(VARIABLE) or Path(directory, FILE))
    table = _table(path) if path.is_file() else {}
    try:
        return msgspec.convert({**table, **given}, Settings)
    except (msgspec.ValidationError, ValueError) as error:
        raise ConfigurationError(f"{path} [server]: {error}") from error


def _table(path: Path) -> dict[str, object]:
    try:
        table = tomllib.loads(path.read_text("utf-8")).get("server", {})
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: {error}") from error
    if not isinstance(table, dict):
        raise ConfigurationError(f"{path}: [server] is a table")
    return table
