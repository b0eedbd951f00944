"""Who may ask, and how much: keys, their limits for a day, and links that share one answer.

Kept in the same store as the answers, so that every process of a store knows them. Only the hash
of a key is stored: it is shown once, when it is made. Until there is a first key, everybody who
reaches the gateway may use it; it binds to loopback only then. Revoking the last one opens nothing.
"""

import hashlib
import secrets
import time
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from unbroken.errors import (
    AuthenticationFailed,
    ConfigurationError,
    StreamMissing,
)
from unbroken.ready import ready
from unbroken.server.usage import UsageTotals, read_totals
from unbroken.stores.base import End, NewStream, Search, Store, StreamInfo

OWNER, SHARES = "_keys", "_shares"
"""Whose streams keys and links are; no caller is called so."""

EVER = "key_ever"
"""The stream that says that there has been a key; what is revoked is forgotten some day."""

FRESH = 5.0
"""Seconds that a process believes what it knows of a key: a revoked one works no longer."""

LONGEST = 64
"""Characters of a name, so that a list of keys stays a table."""


@ready
class Allowance(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a key may use in a day (UTC); None: as much as it likes. `usd` needs known prices."""

    requests: int | None = None
    tokens: int | None = None
    usd: float | None = None


class Caller(Struct, frozen=True):
    """Who asks. `owner` is whose streams are meant; the empty one is everybody, without keys."""

    owner: str = ""
    name: str = ""
    allowance: Allowance = Allowance()


EVERYBODY = Caller()


def user(name: str | None) -> Caller:
    """A user of the app that the gateway is part of. AuthenticationFailed if it is none."""
    if name is None:
        said = "who asks is not signed in"
        raise AuthenticationFailed(said, status=401, code="not_authenticated")
    return Caller(f"user:{name}", name)


def _id(kind: str, secret: str) -> str:
    return f"{kind}_{hashlib.sha256(secret.encode()).hexdigest()[:40]}"


class Keys:
    """The keys in a store. `limits` by a key's name go over those that it was made with."""

    def __init__(self, store: Store, limits: Mapping[str, Allowance] | None = None) -> None:
        self._store, self._limits = store, limits or {}
        self.needed = False
        """Whether nobody is let in without a key, even if the store knows of none."""
        self._known: dict[str, tuple[float, Caller]] = {}
        self._open_until = 0.0
        self._had_one = False  # once there was a key, there always was: see EVER

    async def create(self, name: str, allowance: Allowance) -> str:
        """A new key. It can't be shown again. ConfigurationError if the name is taken, or none."""
        _check(name)
        if any(info.labels["name"] == name for info in await self.all()):
            raise ConfigurationError(f"there is a key named {name!r} already")
        key = f"ub-{secrets.token_urlsafe(32)}"
        given = msgspec.structs.asdict(allowance)
        limits = {kind: str(most) for kind, most in given.items() if most is not None}
        new = NewStream(id=_id("key", key), owner=OWNER, labels={"name": name, **limits})
        for stream in (NewStream(id=EVER, owner=OWNER), new):
            await self._store.create(stream)  # without a producer: open, and never pruned
        return key

    async def all(self) -> list[StreamInfo]:
        """Every key that is not revoked, the youngest first."""
        keys, before = list[StreamInfo](), None
        while True:
            found = await self._store.find(OWNER, Search(closed=False, before=before, limit=500))
            keys += [info for info in found.streams if info.id != EVER]
            if (before := found.next) is None:
                return keys

    async def revoke(self, name: str) -> None:
        """End a key. ConfigurationError if there is none of that name."""
        for info in await self.all():
            if info.labels["name"] == name:
                await self._store.close(info.id, End("revoked"), info.tail, info.fence)
                return
        raise ConfigurationError(f"there is no key named {name!r}")

    async def caller(self, key: str) -> Caller:
        """Who shows this key. AuthenticationFailed if it is none of ours, or missing; until there
        is a first one any will do, since SDKs can't be without one.
        """
        if not self.needed and await self._nobody_had_one():
            return EVERYBODY
        place = _id("key", key)
        believed, caller = self._known.get(place, (0.0, EVERYBODY))
        if time.monotonic() < believed:
            return caller
        caller = await self._looked_up(place, key)
        self._known[place] = (time.monotonic() + FRESH, caller)
        return caller

    async def usage(self, owners: Sequence[str]) -> list[UsageTotals]:
        """Return what each of these keys has used today."""
        return await read_totals(self._store, owners)

    async def share(self, stream: str) -> str:
        """A secret with which anybody may read one answer."""
        token = secrets.token_urlsafe(16)
        new = NewStream(id=_id("share", token), owner=SHARES, labels={"stream": stream})
        info = (await self._store.create(new)).stream
        await self._store.close(info.id, End("shared"), info.tail)  # as old as what it shares
        return token

    async def shared(self, token: str, stream: str) -> bool:
        """Whether this secret opens that answer."""
        try:
            info = await self._store.info(_id("share", token))
        except StreamMissing:
            return False
        return info.labels.get("stream") == stream

    async def _looked_up(self, place: str, key: str) -> Caller:
        try:
            info = await self._store.info(place)
        except StreamMissing:
            info = None
        if info is None or info.closed or info.owner != OWNER:
            said = "this key is unknown or revoked" if key else "a key is needed"
            raise AuthenticationFailed(said, status=401, code="invalid_api_key")
        name = info.labels["name"]
        given = {kind: most for kind, most in info.labels.items() if kind != "name"}
        allowance = self._limits.get(name) or msgspec.convert(given, Allowance, strict=False)
        return Caller(place, name, allowance)

    async def _nobody_had_one(self) -> bool:
        if self._had_one or time.monotonic() < self._open_until:
            return not self._had_one
        self._had_one = bool((await self._store.find(OWNER, Search(limit=1))).streams)
        if not self._had_one:
            self._open_until = time.monotonic() + FRESH
        return not self._had_one


def _check(name: str) -> None:
    if not name.strip() or not name.isprintable() or len(name) > LONGEST:
        raise ConfigurationError(
            f"{name[:LONGEST]!r} is no name for a key",
            hint=f"A name is 1 to {LONGEST} characters, without line breaks and other controls.",
        )


def limits_of(caller: Caller) -> dict[str, float]:
    most = msgspec.structs.asdict(caller.allowance)
    return {kind: limit for kind, limit in most.items() if limit is not None}
