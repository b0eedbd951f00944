"""How providers say no: error bodies, error events after a 200, and when to come back.

One table for both forms of delivery. A status decides the class where there is one; after a 200
the error's own words decide, and stand for the status they would have had.
"""

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any

import msgspec

from unbroken.errors import (
    ContentFiltered,
    ContextTooLong,
    ProviderError,
    QuotaExhausted,
    error_class,
)

# All that decoding JSON from a stranger can raise: bad JSON or another shape than expected, bytes
# that are no UTF-8, and brackets nested too deep to follow.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

# Words of `error.type` or `error.code`, and the status they stand for. OpenAI: "Error codes";
# Anthropic: "Errors"; OpenRouter and vLLM put the number itself into `code`, Mistral into
# `raw_status_code` (raycast/extensions#31107).
_STATUS_OF: dict[str, int] = {
    "invalid_request_error": 400,
    "BadRequestError": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "billing_error": 402,
    "insufficient_quota": 429,
    "permission_error": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "NotFoundError": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "rate_limited": 429,  # Mistral
    "requests": 429,
    "tokens": 429,
    "api_error": 500,
    "server_error": 500,
    "internal_error": 500,
    "InternalServerError": 500,
    "timeout_error": 504,
    "overloaded": 529,
    "overloaded_error": 529,
}

_CLASS_OF: dict[str, type[ProviderError]] = {
    "context_length_exceeded": ContextTooLong,
    "exceed_context_size_error": ContextTooLong,  # llama.cpp
    "content_filter": ContentFiltered,
    "content_policy_violation": ContentFiltered,
    "insufficient_quota": QuotaExhausted,
    "billing_error": QuotaExhausted,
}

_ERROR_STATUSES = frozenset(map(str, range(400, 600)))

# Anthropic, vLLM and others have no code for it, only a sentence.
_TOO_LONG = ("prompt is too long", "maximum context length", "context window", "context length")


def parse_error(
    body: bytes, status: int | None = None, headers: Mapping[str, str] | None = None
) -> ProviderError:
    """The error that a body stands for; `status` is None for an error event after a 200."""
    message, words = _read(body)
    number = status or _status_of(words)
    kind = _class_of(words, message, number)
    return kind(
        message,
        status=number,
        code=next((word for word in words if not word.isdecimal()), ""),
        body=body,
        retry_after=retry_after(headers or {}),
    )


def _read(body: bytes) -> tuple[str, list[str]]:
    """The message and the telling words (code before type), from the shapes that are sent."""
    try:
        found: Any = msgspec.json.decode(body)
    except UNREADABLE:
        return _first_line(body), []
    if isinstance(found, dict):
        found = found.get("error") or found
    if not isinstance(found, dict):
        return str(found), []
    message = found.get("message") or found.get("detail") or found.get("error") or ""
    words = [str(found[key]) for key in ("code", "type", "raw_status_code") if found.get(key)]
    return (message if isinstance(message, str) else str(message)), words


def _first_line(body: bytes) -> str:
    """What to show of a body that is no JSON: proxies answer with pages of HTML."""
    text = body[:2000].decode("utf-8", "replace").strip()
    if text.startswith("<"):
        return "a page of HTML instead of an answer"
    return text.splitlines()[0][:300] if text else ""


def _status_of(words: list[str]) -> int:
    """What is a number says it best."""
    numbers = (int(word) for word in words if word in _ERROR_STATUSES)
    named = (_STATUS_OF[word] for word in words if word in _STATUS_OF)
    return next(numbers, next(named, 500))


def _class_of(words: list[str], message: str, status: int) -> type[ProviderError]:
    for word in words:
        if word in _CLASS_OF:
            return _CLASS_OF[word]
    if status in (400, 413) and any(phrase in message.lower() for phrase in _TOO_LONG):
        return ContextTooLong
    return error_class(status)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from `retry-after-ms` (OpenAI) or `Retry-After` (RFC 9110, 10.2.3).

    A date is measured against the answer's own `Date`: no clock of ours is asked. Header names
    are expected in lower case.
    """
    try:
        if "retry-after-ms" in headers:
            return _seconds(headers["retry-after-ms"], per_second=1000)
        value = headers.get("retry-after", "")
        if not value or value.replace(".", "", 1).isdigit():
            return _seconds(value) if value else None
        until = parsedate_to_datetime(value) - parsedate_to_datetime(headers["date"])
        return max(0.0, until.total_seconds())
    except (ValueError, KeyError, TypeError):
        return None  # an unreadable wish is no wish; backoff decides


def _seconds(value: str, per_second: int = 1) -> float | None:
    """A wait that ends: "inf" and "nan" are numbers to `float`, but no time to come back."""
    seconds = float(value) / per_second
    return max(0.0, seconds) if isfinite(seconds) else None
