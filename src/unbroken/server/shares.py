"""Share links: secrets that let anybody read one answer.

A link works while the answer exists, the key that owns it is valid, and nobody has revoked it.
Only the hash of the secret is stored; it is the link's id, by which it can be listed and revoked.
"""

import secrets

from msgspec import Struct

from unbroken.errors import StreamMissing
from unbroken.server.auth import Keys, secret_id
from unbroken.stores.base import End, NewStream, Search, Store, StreamInfo

OWNER = "_shares"
"""Owner of the streams that stand for links made before they belonged to a key."""


def owner_of_links(owner: str) -> str:
    """Return the owner, in the store, of the links to the answers of `owner`."""
    return f"{OWNER}:{owner}"


class Link(Struct, frozen=True):
    """A share link. `created` is in seconds since the epoch."""

    id: str
    stream: str
    created: float


class ShareLinks:
    """The share links in a store."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store, self._keys = store, keys

    async def create(self, stream: StreamInfo) -> tuple[Link, str]:
        """Create a link to an answer; return it and its secret, which can't be shown again."""
        token = secrets.token_urlsafe(16)
        labels = {"stream": stream.id, "owner": stream.owner}
        new = NewStream(secret_id("share", token), owner_of_links(stream.owner), labels)
        info = (await self._store.create(new)).stream
        await self._store.close(info.id, End("shared"), info.tail)  # so that retention removes it
        return _link(info), token

    async def verify(self, token: str, stream: str) -> bool:
        """Whether this secret opens that answer."""
        try:
            info = await self._store.info(secret_id("share", token))
        except StreamMissing:
            return False
        if info.labels.get("stream") != stream:
            return False
        return await self._keys.is_valid(info.labels.get("owner", ""))

    async def all(self, owner: str, before: int | None = None) -> tuple[list[Link], int | None]:
        """Return a page of the links to an owner's answers, the youngest first, and its next."""
        search = Search(before=before, limit=100)
        found = await self._store.find(owner_of_links(owner), search)
        return [_link(info) for info in found.streams], found.next

    async def revoke(self, owner: str, link: str) -> bool:
        """Revoke a link. False if the owner has no such link."""
        try:
            info = await self._store.info(link)
        except StreamMissing:
            return False
        if info.owner != owner_of_links(owner):
            return False
        await self._store.delete(link)
        return True


def _link(info: StreamInfo) -> Link:
    return Link(info.id, info.labels.get("stream", ""), info.created)
