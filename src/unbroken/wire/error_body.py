"""Errors of providers: bodies, error events after a 200, and when to come back.

One table for both forms of delivery. A status decides the class where there is one; after a 200
the error's own words decide, and stand for the status they would have had. Money decides before
the status: some providers send 400, 402 or 500 for an empty account.
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
    RemoteProtocolError,
    UnbrokenError,
    error_class,
)
from unbroken.wire.error_words import CLASS_OF, NO_MONEY, STATUS_OF, TOO_LONG

# All that decoding JSON from a stranger can raise: bad JSON or another shape than expected, bytes
# that are no UTF-8, and brackets nested too deep to follow.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_ERROR_STATUSES = frozenset(map(str, range(400, 600)))

_CLASSES: dict[str, type[ProviderError]] = {
    "too_long": ContextTooLong,
    "filtered": ContentFiltered,
    "no_money": QuotaExhausted,
}


def parse_error(
    body: bytes, status: int | None = None, headers: Mapping[str, str] | None = None
) -> ProviderError:
    """The error that a body stands for; `status` is None for an error event after a 200."""
    found = _error_object(body)
    message, words = _read(found, body)
    number = status or _status_of(words)
    waits = [retry_after(headers or {}), _retry_info(found)]
    error = _class_of(words, message, number)(
        message,
        status=number,
        code=next((word for word in words if not word.isdecimal()), ""),
        body=body,
        retry_after=max((wait for wait in waits if wait is not None), default=None),
    )
    error.should_retry = _SHOULD_RETRY.get((headers or {}).get("x-should-retry", "").lower())
    return error


_SHOULD_RETRY = {"true": True, "false": False}


def not_an_answer(body: bytes) -> UnbrokenError:
    """The error for a body that came with a 200 and is no answer: the provider's own sentence."""
    found = _error_object(body)
    message, _words = ("", []) if isinstance(found, list) else _read(found, body)
    if message and isinstance(found, dict):
        return parse_error(body)
    reason = message or "it holds neither an answer nor an error"
    return RemoteProtocolError(f"the answer can't be read: {reason}")


def _error_object(body: bytes) -> Any:
    """The innermost object of an error, or None. Gemini's compatible API wraps it in a list."""
    try:
        found: Any = msgspec.json.decode(body)
    except UNREADABLE:
        return None
    if isinstance(found, list) and found:
        found = found[0]
    if not isinstance(found, dict):
        return found
    inner = found.get("error") or found.get("base_resp") or found
    if isinstance(inner, list) and inner:
        inner = inner[0]
    return inner if isinstance(inner, dict) else {**found, "message": str(inner)}


_MESSAGES = ("message", "detail", "error", "msg", "status_msg", "error_message", "Message")
_WORDS = ("code", "type", "status", "status_code", "raw_status_code", "http_code", "error_code")


def _read(found: Any, body: bytes) -> tuple[str, list[str]]:
    """The message and the telling words (code before type), from the shapes that are sent."""
    if found is None:
        return _first_line(body), []
    if not isinstance(found, dict):
        return str(found), []
    message = next((found[name] for name in _MESSAGES if found.get(name)), "")
    words = [str(found[key]) for key in _WORDS if isinstance(found.get(key), str | int)]
    words = [word for word in words if word not in ("", "0", "error", "False", "True")]
    return (message if isinstance(message, str) else _sentence(message)), words


def _sentence(message: Any) -> str:
    """Validation errors are lists of objects (FastAPI); the sentence stands in each."""
    items = message if isinstance(message, list) else [message]
    return "; ".join(_one_sentence(item) for item in items)


def _one_sentence(item: Any) -> str:
    sentence = item.get("msg") or item.get("message") if isinstance(item, dict) else None
    return str(sentence or item)


def _first_line(body: bytes) -> str:
    """What to show of a body that is no JSON: proxies answer with pages of HTML."""
    text = body[:2000].decode("utf-8", "replace").strip()
    if text.startswith("<"):
        return "a page of HTML instead of an answer"
    return text.splitlines()[0][:300] if text else ""


def _retry_info(found: Any) -> float | None:
    """Seconds to wait by google.rpc.RetryInfo, which stands in the details (AIP-193)."""
    details = found.get("details") if isinstance(found, dict) else None
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict) and str(detail.get("@type", "")).endswith("RetryInfo"):
            return _span(str(detail.get("retryDelay", "")))
    return None


def _span(delay: str) -> float | None:
    try:
        return _seconds(delay.removesuffix("s"))
    except ValueError:
        return None


def _status_of(words: list[str]) -> int:
    """A number is the best word for a status."""
    numbers = (int(word) for word in words if word in _ERROR_STATUSES)
    named = (STATUS_OF[word] for word in words if word in STATUS_OF)
    return next(numbers, next(named, 500))


def _class_of(words: list[str], message: str, status: int) -> type[ProviderError]:
    for word in words:
        if word in CLASS_OF:
            return _CLASSES[CLASS_OF[word]]
    sentence = message.lower()
    if status == 402 or any(phrase in sentence for phrase in NO_MONEY):
        return QuotaExhausted
    if status in (400, 413, 422, 500) and any(phrase in sentence for phrase in TOO_LONG):
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
        return None  # a header that cannot be parsed is ignored; backoff decides


def _seconds(value: str, per_second: int = 1) -> float | None:
    """A wait that ends: "inf" and "nan" are numbers to `float`, but no time to come back."""
    seconds = float(value) / per_second
    return max(0.0, seconds) if isfinite(seconds) else None
