"""What providers list as their models, and which servers run on this machine."""

import threading
import time
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from unbroken.errors import (
    AuthenticationFailed,
    ConfigurationError,
    ConnectFailed,
    ProtocolError,
    ProviderError,
    RemoteProtocolError,
    TransportError,
    UnbrokenError,
)
from unbroken.providers import registry
from unbroken.providers.base import Provider
from unbroken.transport.base import Deadlines, Transport
from unbroken.wire.codec import MAX_BODY

_PATIENCE = 15.0  # seconds for a list that somebody asked for
_GLANCE = 0.8  # seconds for all local servers together: who listens answers in a few milliseconds


class Offer(Struct, frozen=True):
    """A local server that runs, and the names of its models."""

    provider: str
    address: str
    models: list[str]


class _Model(Struct):
    id: str
    owned_by: str | None = None


class _Named(Struct):
    name: str


class _Page(Struct):
    data: list[_Model] = []
    models: list[_Named] = []  # Gemini's


# An object around the list with most, the bare list with Together.
_read = msgspec.json.Decoder(_Page | list[_Model]).decode


def address(provider: Provider, env: Mapping[str, str]) -> str:
    """Where the environment says it is; ConfigurationError names what is missing."""
    return env.get(provider.base_url_env) or provider.located(env)


def listed(provider: Provider, env: Mapping[str, str]) -> list[str]:
    """The names of all models that the provider lists. Raises an UnbrokenError."""
    key = provider.key_in(env)
    if not provider.models_path:
        raise ConfigurationError(f"{provider.name} has no list of models")
    if provider.auth.required and not key:
        missing = AuthenticationFailed(f"no key for {provider.name}")
        missing.advice = f"Set {provider.auth.env} (in the environment or in .env)."
        raise missing
    there = address(provider, env)
    try:
        found = _asked(provider, key, there, _PATIENCE)
    except UnbrokenError as error:
        error.provider, error.model = provider.name, "models"
        if provider.local and isinstance(error, ConnectFailed):
            error.advice = f"Is it running? Asked was {there}."
        raise
    return sorted(map(_name, found))


def running(env: Mapping[str, str]) -> list[Offer]:
    """The local servers that answer at once, all asked at the same time."""
    local = [found for found in map(registry.provider, registry.names()) if found.local]
    offers: dict[str, Offer] = {}
    threads = [
        threading.Thread(target=_look, args=(provider, env, offers), daemon=True)
        for provider in local
    ]
    for thread in threads:
        thread.start()
    until = time.monotonic() + _GLANCE
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return [offers[provider.name] for provider in local if provider.name in offers]


def _look(provider: Provider, env: Mapping[str, str], offers: dict[str, Offer]) -> None:
    try:
        there = address(provider, env)
        found = _asked(provider, env.get(provider.auth.env, ""), there, _GLANCE)
    except (TransportError, ProtocolError, ProviderError, ConfigurationError):
        return  # nobody is there, or somebody else: not a fault of whoever looks around
    if there != provider.base_url or not _anothers(provider, found):
        offers[provider.name] = Offer(provider.name, there, sorted(map(_name, found)))


def _anothers(provider: Provider, found: list[_Model]) -> bool:
    """All models say that another provider owns them: a gateway listens at the usual port."""
    others = set(registry.names()) - {provider.name}
    return bool(found) and all(model.owned_by in others for model in found)


def _asked(provider: Provider, key: str, base_url: str, seconds: float) -> list[_Model]:
    transport = _transport(provider)
    until = transport.now() + seconds
    body = transport.open(provider.models_request(key, base_url), Deadlines(until, until))
    data = b""
    try:
        while (piece := body.read(until)) and len(data) < MAX_BODY:
            data += piece
    finally:
        body.close()
        transport.close()
    if body.status >= 400:
        raise provider.codec.dialect.decode_error(body.status, body.headers, data)
    return _models(data)


def _transport(provider: Provider) -> Transport:
    from unbroken.transport.http_sync import HttpTransport  # urllib3 is slow to import

    return HttpTransport() if provider.in_process is None else provider.in_process.sync()


def _models(data: bytes) -> list[_Model]:
    try:
        found: _Page | list[_Model] = _read(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"this is no list of models: {error}") from error
    if isinstance(found, list):
        return found
    return [*found.data, *(_Model(model.name) for model in found.models)]


def _name(model: _Model) -> str:
    """Gemini's names have their kind before them, which it also does without."""
    return model.id.removeprefix("models/")
