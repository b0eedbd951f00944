"""What a provider is: a value that says where it lives, how it is asked, and in which dialect.

A new provider is one file that binds `PROVIDER = Provider(...)`. Nothing else is edited: the
registry finds it by the file's name, or by the entry-point group `unbroken.providers`.
"""

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from unbroken.messages import Request
from unbroken.transport.base import AsyncTransport, HttpRequest, Transport
from unbroken.wire.codec import Codec


class Auth(Protocol):
    """How a key becomes headers. `env` names the variable that holds it, "" if none does."""

    @property
    def env(self) -> str: ...

    @property
    def required(self) -> bool: ...

    def headers(self, key: str, /) -> dict[str, str]: ...


class BearerKey(Struct, frozen=True):
    """`authorization: Bearer KEY` (RFC 6750). Without `required`, an absent key is no fault."""

    env: str
    required: bool = True

    def headers(self, key: str) -> dict[str, str]:
        """The header that shows the key; none without a key."""
        return {"authorization": f"Bearer {key}"} if key else {}


class HeaderKey(Struct, frozen=True):
    """The key in a header of its own."""

    env: str
    header: str
    required: bool = True

    def headers(self, key: str) -> dict[str, str]:
        """The header that shows the key; none without a key."""
        return {self.header: key} if key else {}


class InProcess(Struct, frozen=True):
    """A provider without a network: how to make its transports."""

    sync: Callable[[], Transport]
    aio: Callable[[], AsyncTransport]


class Provider(Struct, frozen=True, kw_only=True):
    """One provider.

    `path` is appended to `base_url`. `prefixes` are the beginnings of model names that certainly
    are this provider's, so that they work without `name/`. `base_url_env` is the variable that
    moves it elsewhere; the official SDKs read the same ones.
    """

    name: str
    base_url: str
    path: str
    auth: Auth
    codec: Codec
    base_url_env: str = ""
    headers: dict[str, str] = {}
    prefixes: tuple[str, ...] = ()
    in_process: InProcess | None = None

    def http_request(self, request: Request, key: str, base_url: str) -> HttpRequest:
        """The HTTP request that asks `request`; LocalProtocolError if it can't be asked here."""
        accept = self.codec.content_type if request.stream else "application/json"
        return HttpRequest(
            "POST",
            base_url.rstrip("/") + self.path,
            {
                "content-type": "application/json",
                "accept": accept,
                "accept-encoding": "identity",  # compression makes proxies collect what should flow
                **self.headers,
                **self.auth.headers(key),
            },
            self.codec.dialect.encode_request(request),
        )
