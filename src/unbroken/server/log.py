"""The log of a gateway: a line for each request and one for each answer.

    2026-11-21T06:30:00.123Z info answer id=... stream=ans_... model=openai/gpt-6-luna ...

Lines go to the logger `unbroken.server` of the standard library; `unbroken serve` writes them to
standard error as text or as JSON. Addresses are logged without their query, which may hold a
prompt; keys by their names; prompts and answers only with `log_content`.
"""

import json
import logging
import re
import time
from collections.abc import Mapping
from typing import Any, Literal

from unbroken.errors import TransportError
from unbroken.metrics.answered import Answered
from unbroken.server.records import AnswerRequest, Outcome

LOGGER = logging.getLogger("unbroken.server")
Style = Literal["text", "json", "off"]


def log_answer(
    request: AnswerRequest, stream: str, ended: Answered, outcome: Outcome, *, content: bool
) -> None:
    """Write the line of an answer that has ended, with the usage and cost that were charged."""
    response, metrics, usage = ended.response, ended.metrics, outcome.usage
    prompt = "".join(message.text for message in request.request.messages[-1:])
    error = next((a.error for a in response.attempts[::-1] if a.error), None)
    failure = type(error).__name__ if error else outcome.error and outcome.error.type
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
        error=failure,
        detail=str(error) if isinstance(error, TransportError) else "",  # no provider's own words
        **words,
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def log_event(event: str, level: int = logging.INFO, /, **fields: Any) -> None:
    """Write a line; empty fields are left out."""
    known = {name: value for name, value in fields.items() if value not in (None, "")}
    LOGGER.log(level, event, extra={"fields": known})


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: Mapping[str, Any] = getattr(record, "fields", {})
        words = " ".join(f"{name}={_quote(value)}" for name, value in fields.items())
        exception = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        exception = exception.replace("\n", "\n  ")  # no line of it looks like an entry of its own
        level = record.levelname.lower()
        return _escape_controls(
            f"{_when(record)} {level} {record.getMessage()} {words}".rstrip() + exception
        )


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: Mapping[str, Any] = getattr(record, "fields", {})
        head = {"time": _when(record), "level": record.levelname.lower()}
        exception = {"exception": self.formatException(record.exc_info)} if record.exc_info else {}
        return json.dumps({**head, "event": record.getMessage(), **fields, **exception})


def _when(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03}Z"


def _quote(value: Any) -> str:
    text = str(value)
    return json.dumps(text) if re.search(r'[\s"=]', text) or not text.isprintable() else text


def _escape_controls(text: str) -> str:
    """Escape what a terminal would obey: addresses and errors may hold text of strangers."""
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
