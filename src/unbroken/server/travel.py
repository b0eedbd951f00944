"""Headers that travel between a client and a provider of the same dialect, and reports of what did
not travel.
"""

from collections.abc import Mapping

import msgspec
from msgspec import Struct

from unbroken.errors import ProviderError
from unbroken.messages import CHAT, MESSAGES, RESPONSES, Request
from unbroken.response import Response

OMITTED_HEADER = "x-unbroken-omitted"
"""Names the JSON paths of the request that the provider's dialect could not express."""

_OPENAI = frozenset({"openai-beta", "openai-organization", "openai-project"})
_REQUEST = {
    MESSAGES: frozenset({"anthropic-beta", "anthropic-version"}),
    CHAT: _OPENAI,
    RESPONSES: _OPENAI,
}
"""Request headers by dialect."""

_RESPONSE = {
    MESSAGES: ("anthropic-ratelimit-", "anthropic-organization-id", "request-id"),
    CHAT: ("x-ratelimit-", "openai-"),
    RESPONSES: ("x-ratelimit-", "openai-"),
}
"""Beginnings of response headers by dialect. `x-request-id` is the gateway's own: the provider's
stands in `openai-request-id`.
"""

_MAX_HEADER = 2048  # bytes; the limit of common proxies is four times that


def with_headers(request: Request, headers: Mapping[str, str]) -> Request:
    """Return the request with the caller's headers that belong to its dialect."""
    native = request.native
    if native is None:
        return request
    names = _REQUEST.get(native.dialect, frozenset())
    found = {name: value for name in names if (value := headers.get(name))}
    return msgspec.structs.replace(request, native=msgspec.structs.replace(native, headers=found))


class ProviderFacts(Struct, frozen=True, omit_defaults=True):
    """What headers tell of a provider's answer: its own, as far as they travel, and the paths of
    what was left out of the request.
    """

    dialect: str = ""
    headers: dict[str, str] = {}
    omitted: tuple[str, ...] = ()


def provider_facts(response: Response) -> ProviderFacts:
    """Return what a client may learn about the provider's answer."""
    return ProviderFacts(response.dialect, _own(response), response.omitted)


def response_headers(facts: ProviderFacts, dialect: str) -> dict[str, str]:
    """Return the headers for a client of `dialect`."""
    return _omitted(facts.omitted) | (facts.headers if facts.dialect == dialect else {})


def error_headers(error: ProviderError, dialect: str) -> dict[str, str]:
    """Return the provider's name for a request that it refused."""
    if not error.request_id or error.dialect != dialect:
        return {}
    name = "request-id" if dialect == MESSAGES else "openai-request-id"
    return {name: error.request_id}


def _own(response: Response) -> dict[str, str]:
    begins = _RESPONSE.get(response.dialect, ())
    own = {name: v for name, v in response.headers.items() if name.startswith(begins)}
    if response.dialect in (CHAT, RESPONSES) and response.request_id:
        own["openai-request-id"] = response.request_id
    return {name: value for name, value in own.items() if value.isascii() and value.isprintable()}


def _omitted(paths: tuple[str, ...]) -> dict[str, str]:
    shown = ", ".join(path for path in paths if path.isascii() and path.isprintable())
    if len(shown) > _MAX_HEADER:
        shown = f"{shown[:_MAX_HEADER].rpartition(', ')[0]}, ..."
    return {OMITTED_HEADER: shown} if shown else {}
