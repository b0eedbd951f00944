"""What a gateway writes down: a line for each request and one for each answer.

    2026-11-21T06:30:00.123Z info answer id=... stream=ans_... model=openai/gpt-6-luna ...

Lines go to the logger `unbroken.server` of the standard library; `unbroken serve` shows them on
standard error as text or as JSON. Addresses are logged without their query, which may hold a
prompt; keys by the name they were made with; prompts and answers only if `log_content` asks for it.
"""

import json
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Mapping
from typing import Any, Literal

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unbroken.errors import TransportError
from unbroken.metrics.answered import Answered
from unbroken.server.records import AnswerRequest, Outcome

LOGGER = logging.getLogger("unbroken.server")
REQUEST_ID = "x-request-id"

MAX_PATH = 512
"""Characters of a path in the log."""

Style = Literal["text", "json", "off"]

_SANE = re.compile(r"[\w.:=+/-]{1,128}")


def request_id(scope: Scope) -> str:
    """The id of a request: the caller's own if it is a plain word, else a new one."""
    given: str = scope.setdefault("state", {}).get(REQUEST_ID, "")
    if not given:
        given = Headers(scope=scope).get(REQUEST_ID, "")
        given = given if _SANE.fullmatch(given) else f"req_{secrets.token_hex(8)}"
        scope["state"][REQUEST_ID] = given
    return given


class AccessLogMiddleware:
    """An ASGI app whose requests are written down, and whose answers carry their id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        begun, id, status = time.monotonic(), request_id(scope), [0]

        def tagged(message: Message) -> Awaitable[None]:
            """Not a coroutine of its own: it stands between every token and the socket."""
            if message["type"] == "http.response.start":
                status[0] = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = id
            return send(message)

        try:
            await self._app(scope, receive, tagged)
        finally:
            _request(scope, id, status[0], time.monotonic() - begun)


def _request(scope: Scope, id: str, status: int, seconds: float) -> None:
    log_event(
        "request",
        id=id,
        client=scope["client"][0] if scope.get("client") else "",
        method=scope.get("method", scope["type"]),
        path=scope["path"][:MAX_PATH],
        status=status,
        duration_ms=round(seconds * 1000, 1),
        key=scope["state"].get("key", ""),
    )


def log_answer(
    request: AnswerRequest, stream: str, ended: Answered, outcome: Outcome, *, content: bool
) -> None:
    """Write the line of an answer that has ended, with the usage and cost that were charged."""
    response, metrics, usage = ended.response, ended.metrics, outcome.usage
    prompt = "".join(message.text for message in request.request.messages[-1:])
    error = next((a.error for a in response.attempts[::-1] if a.error), None)
    words = {"prompt": prompt, "text": response.text} if content else {}
    log_event(
        "answer",
        id=request.request_id,
        stream=stream,
        model=ended.model,
        served_by=f"{response.provider}/{response.model}",
        state=ended.state,
        reason=ended.reason,
        first_token_s=_rounded(metrics.time_to_first_token),
        duration_s=_rounded(metrics.duration),
        input_tokens=usage and usage.input_tokens,
        output_tokens=usage and usage.output_tokens,
        cost_usd=outcome.cost,
        attempts=len(response.attempts),
        omitted=", ".join(response.omitted),
        recovered=sum(one.how != "start" for one in response.attempts),
        error=type(error).__name__ if error else "",
        detail=str(error) if isinstance(error, TransportError) else "",  # no provider's own words
        **words,
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def log_event(event: str, **fields: Any) -> None:
    """Write a line; what is empty is left out."""
    known = {name: fact for name, fact in fields.items() if fact not in (None, "")}
    LOGGER.info(event, extra={"fields": known})


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: Mapping[str, Any] = getattr(record, "fields", {})
        said = " ".join(f"{name}={_quote(fact)}" for name, fact in fields.items())
        exception = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        exception = exception.replace("\n", "\n  ")  # no line of it looks like an entry of its own
        level = record.levelname.lower()
        return _escape_controls(
            f"{_when(record)} {level} {record.getMessage()} {said}".rstrip() + exception
        )


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: Mapping[str, Any] = getattr(record, "fields", {})
        head = {"time": _when(record), "level": record.levelname.lower()}
        exception = {"exception": self.formatException(record.exc_info)} if record.exc_info else {}
        return json.dumps({**head, "event": record.getMessage(), **fields, **exception})


def _when(record: logging.LogRecord) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{whole}.{int(record.msecs):03}Z"


def _quote(fact: Any) -> str:
    said = str(fact)
    return json.dumps(said) if re.search(r'[\s"=]', said) or not said.isprintable() else said


def _escape_controls(text: str) -> str:
    """Lines without what a terminal obeys: addresses and errors may hold a stranger's words."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else f"\\u{ord(c):04x}" for c in text)


def configure_logging(style: Style) -> None:
    """Send the lines of this process, and uvicorn's warnings, to standard error."""
    if style == "off":
        return
    out = logging.StreamHandler()
    out.setFormatter(_Json() if style == "json" else _Text())
    for name, level in (("unbroken.server", logging.INFO), ("uvicorn.error", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [out], False
        logger.setLevel(level)
