"""API keys: who may use the gateway, how much, and until when.

Keys are kept in the same store as the answers, so that every process of a store knows them. Only
the hash of a key is stored; the key itself is shown once, when it is created. Until the first key
exists, everybody who can connect may use the gateway; it listens on loopback only then. Revoking
the last key opens nothing.
"""

import hashlib
import secrets
import time
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct
from starlette.requests import HTTPConnection

from unbroken.errors import (
    AuthenticationFailed,
    ConfigurationError,
    PermissionDenied,
    StreamMissing,
)
from unbroken.ready import ready
from unbroken.server.usage import LimitsByWindow, UsageTotals, read_totals
from unbroken.stores.base import End, NewStream, Search, Store, StreamInfo
from unbroken.stores.counters import Window

OWNER = "_keys"
"""Owner of the streams that stand for keys; no caller has this name."""

MARKER = "key_ever"
"""A stream that exists since the first key was created, and is never closed."""

CACHE_TTL = 5.0
"""Seconds that a process relies on what it knows of a key: a revoked one works no longer than
this, and its open answers are stopped within half of it more."""

CACHE_SIZE = 10_000
"""Keys, valid or not, that a process remembers."""

MAX_NAME = 64
"""Characters of a name, so that a list of keys stays a table."""


@ready
class KeyLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a key may use per day (UTC) and per minute. None: no limit. `usd` needs known prices."""

    requests: int | None = None
    tokens: int | None = None
    usd: float | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None

    def __post_init__(self) -> None:
        for name, value in self.given().items():
            if not 0 <= value < 10**12:
                raise ValueError(f"{name}={value} must be between 0 and 10^12")

    def given(self) -> dict[str, float]:
        """Return the limits that are set, by name."""
        fields = msgspec.structs.asdict(self)
        return {name: value for name, value in fields.items() if value is not None}

    def by_window(self) -> LimitsByWindow:
        """Return the limits by the window of time in which they are counted."""
        windows: dict[Window, dict[str, float]] = {"day": {}, "minute": {}}
        for name, value in self.given().items():
            field, _, minute = name.partition("_per_")
            windows["minute" if minute else "day"][field] = value
        return windows


class Principal(Struct, frozen=True):
    """The caller of a request. `owner` owns its streams; "" is everybody, while there are no keys.
    `expires` is in seconds since the epoch; 0: never.
    """

    owner: str = ""
    name: str = ""
    limits: KeyLimits = KeyLimits()
    admin: bool = False
    expires: float = 0.0


EVERYBODY = Principal()


class NewKey(Struct, frozen=True, kw_only=True):
    """A key to be created; `expires_in` is in seconds, None: it never expires."""

    name: str
    limits: KeyLimits = KeyLimits()
    admin: bool = False
    expires_in: float | None = None


def user(name: str | None) -> Principal:
    """Return the principal of a user of the surrounding app. Raises AuthenticationFailed."""
    if name is None:
        raise AuthenticationFailed("Not authenticated.", status=401, code="not_authenticated")
    return Principal(f"user:{name}", name)


def secret_id(kind: str, secret: str) -> str:
    """Return the id of the stream that stands for a secret: of its hash."""
    return f"{kind}_{hashlib.sha256(secret.encode()).hexdigest()[:40]}"


class Keys:
    """The keys in a store. `limits` by a key's name override those it was created with."""

    def __init__(self, store: Store, limits: Mapping[str, KeyLimits] | None = None) -> None:
        self._store, self.limits = store, dict(limits or {})
        self.required = False
        """Whether a key is needed even if the store has none."""
        self._cache: dict[str, tuple[float, Principal | None]] = {}
        self._closed = False  # a first key exists, or existed
        self._open_until = 0.0

    def set_limits(self, limits: Mapping[str, KeyLimits]) -> None:
        """Replace the limits by name."""
        self.limits = dict(limits)
        self._cache.clear()

    async def create(self, new: NewKey) -> str:
        """Create a key and return it. It can't be shown again.

        Raises ConfigurationError if the name is invalid or taken, or the expiry is not positive.
        """
        _check(new)
        if any(info.labels["name"] == new.name for info in await self.all()):
            raise ConfigurationError(f"a key named {new.name!r} exists already")
        key = f"ub-{secrets.token_urlsafe(32)}"
        labels = {"name": new.name} | {k: str(v) for k, v in new.limits.given().items()}
        if new.admin:
            labels["admin"] = "yes"
        if new.expires_in is not None:
            labels["expires"] = str(time.time() + new.expires_in)
        for stream in (
            NewStream(id=MARKER, owner=OWNER),
            NewStream(id=secret_id("key", key), owner=OWNER, labels=labels),
        ):
            await self._store.create(stream)  # without a producer: open, and never pruned
        return key

    async def all(self) -> list[StreamInfo]:
        """Return every key that is not revoked, the youngest first."""
        keys, before = list[StreamInfo](), None
        while True:
            found = await self._store.find(OWNER, Search(closed=False, before=before, limit=500))
            keys += [info for info in found.streams if info.id != MARKER]
            if (before := found.next) is None:
                return keys

    async def revoke(self, name: str) -> None:
        """Revoke a key. Raises ConfigurationError if no key has this name."""
        for info in await self.all():
            if info.labels["name"] == name:
                await self._store.close(info.id, End("revoked"), info.tail, info.fence)
                self._cache.pop(info.id, None)
                return
        raise ConfigurationError(f"no key named {name!r}")

    async def principal(self, key: str) -> Principal:
        """Return who presents this key. Raises AuthenticationFailed if it is missing, unknown,
        revoked or expired. Before the first key any is accepted, since SDKs can't be without one.
        """
        if not self.required and await self._is_open():
            return EVERYBODY
        found = await self._cached(secret_id("key", key))
        if found is None or (found.expires and found.expires <= time.time()):
            if not key:
                reason = "An API key is required."
            else:
                reason = "This API key has expired." if found else "Unknown or revoked API key."
            raise AuthenticationFailed(reason, status=401, code="invalid_api_key")
        return found

    async def is_valid(self, owner: str) -> bool:
        """Whether the key that owns a stream is still good. Others than keys always are."""
        if not owner.startswith("key_"):
            return True
        found = await self._cached(owner)
        return found is not None and not (found.expires and found.expires <= time.time())

    async def usage(self, owners: Sequence[str], window: Window = "day") -> list[UsageTotals]:
        """Return what each of these keys has used in the current window."""
        return await read_totals(self._store, owners, window)

    async def _cached(self, place: str) -> Principal | None:
        until, found = self._cache.get(place, (0.0, None))
        if time.monotonic() < until:
            return found
        found = await self._look_up(place)
        if len(self._cache) >= CACHE_SIZE:
            self._cache.clear()
        self._cache[place] = (time.monotonic() + CACHE_TTL, found)
        return found

    async def _look_up(self, place: str) -> Principal | None:
        try:
            info = await self._store.info(place)
        except StreamMissing:
            return None
        if info.closed or info.owner != OWNER:
            return None
        return principal_of(info, self.limits)

    async def _is_open(self) -> bool:
        """Whether no key was ever created. Once there is one, the store is not asked again."""
        if self._closed or time.monotonic() < self._open_until:
            return not self._closed
        self._closed = bool((await self._store.find(OWNER, Search(limit=1))).streams)
        self._open_until = time.monotonic() + CACHE_TTL
        return not self._closed


def principal_of(info: StreamInfo, limits: Mapping[str, KeyLimits]) -> Principal:
    """Return the principal of a key's stream."""
    labels = dict(info.labels)
    name, admin = labels.pop("name"), labels.pop("admin", "") == "yes"
    expires = float(labels.pop("expires", "0"))
    own = msgspec.convert(labels, KeyLimits, strict=False)
    return Principal(info.id, name, limits.get(name) or own, admin, expires)


def presented_key(http: HTTPConnection) -> str:
    """Return the key that a request shows, as OpenAI's, Anthropic's or Google's SDK does."""
    scheme, _, key = http.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return key.strip()
    shown = http.headers.get("x-api-key") or http.headers.get("x-goog-api-key")
    in_query = "/models" in http.scope.get("path", "")  # ai.google.dev/gemini-api/docs/api-key
    return shown or (http.query_params.get("key", "") if in_query else "")


def check_admin(principal: Principal) -> None:
    """Raise PermissionDenied unless the key is an administrator's."""
    if not principal.admin:
        raise PermissionDenied(
            "This needs an administrator's key: unbroken keys create NAME --admin",
            status=403,
            code="admin_key_required",
        )


def _check(new: NewKey) -> None:
    name = new.name
    if not name.strip(" .") or not name.isprintable() or len(name) > MAX_NAME or "/" in name:
        raise ConfigurationError(
            f"invalid key name {name[:MAX_NAME]!r}",
            hint=f"A name has 1 to {MAX_NAME} printable characters, no slash, and not only dots.",
        )
    if new.expires_in is not None and not 0 < new.expires_in < 10**10:
        raise ConfigurationError("a key's expiry must be a positive number of seconds")
