"""Words errors for callers of a gateway, who must not learn where its providers are.

A provider's own message reaches the caller as it is. Errors of the connection to it name hosts,
ports and URLs, which may be private: those are for the operator's log only.
"""

import re
from typing import get_args

import msgspec

from unbroken.errors import (
    ConnectFailed,
    ConnectionLost,
    ProviderError,
    StreamInterrupted,
    TimedOut,
    TransportError,
    UnbrokenError,
)
from unbroken.events import Event, Notice

_SENTENCES: dict[type[TransportError], str] = {
    ConnectFailed: "could not connect to the provider",
    ConnectionLost: "the connection to the provider was lost",
}

_ADDRESS = re.compile(
    r"""\b\w+://[^\s'",)\]]+                    # a URL
    |\b(?:[a-z0-9-]+\.)+[a-z]{2,}(?::\d+)?\b    # a host, and its port
    |\b[a-z0-9.-]+:\d{2,5}\b                    # a name, and its port
    |\b\d{1,3}(?:\.\d{1,3}){3}\b                # IPv4
    |(?<![\w:])(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{0,4}(?![\w:])  # IPv6
    """,
    re.IGNORECASE | re.VERBOSE,
)

_PAIR = re.compile(r"""\(['"]?\[address\]['"]?,\s*\d+[^)]*\)""")
"""An address and its port, as Python's sockets write them."""


def for_callers(error: UnbrokenError) -> str:
    """Return the message of an error without the addresses of providers."""
    if isinstance(error, ProviderError) and error.status is not None:
        return error.message or str(error)
    cause = error.__cause__
    if isinstance(error, StreamInterrupted) and isinstance(cause, UnbrokenError):
        length = len(error.response.text)
        return _with_model(error, f"interrupted after {length} characters, {for_callers(cause)}")
    if isinstance(error, TimedOut):
        return _with_model(error, next(iter(error.facts())))
    if isinstance(error, TransportError):
        sentence = _SENTENCES.get(type(error), "the connection to the provider failed")
        return _with_model(error, sentence)
    return without_addresses(str(error))


def _with_model(error: UnbrokenError, what: str) -> str:
    who = f"{error.provider}/{error.model}: " if error.provider else ""
    tries = f" (after {len(error.attempts)} attempts)" if len(error.attempts) > 1 else ""
    return f"{who}{what}{tries}"


def public(events: list[Event]) -> list[Event]:
    """Return the events as callers may see them: reasons of retries hold messages of errors."""
    return [_public(event) if type(event) in _NOTICES else event for event in events]


def _public(event: Event) -> Event:
    return msgspec.structs.replace(event, reason=without_addresses(event.reason))  # type: ignore[union-attr]


_NOTICES = frozenset(get_args(Notice))


def without_addresses(text: str) -> str:
    """Return the text with every URL, host and IP address left out."""
    return _PAIR.sub("[address]", _ADDRESS.sub("[address]", text))
