"""Answers that are data: from a type to the request's `response_format`, and back to an object.

    wanted = output_format(Weather)      # a pydantic model, a msgspec Struct, a dataclass,
                                         # a TypedDict, a JSON schema or a response_format
    wanted.response_format               # what goes into the request
    wanted.parse(response)               # a Weather, or OutputMismatch

A provider that enforces the schema can still be cut off, refuse, or run into its limit of tokens,
and many do not enforce it: the finished text is checked here in any case.
"""

import re
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from unbroken.errors import LocalProtocolError, OutputMismatch
from unbroken.ready import ready
from unbroken.response import Response
from unbroken.schema import rooted, strict, validator

_FORMATS = frozenset({"json_schema", "json_object", "text"})
_SCHEMA_WORDS = frozenset({"properties", "anyOf", "oneOf", "allOf", "$ref", "$defs", "enum"})
_KINDS = frozenset({"object", "array", "string", "number", "integer", "boolean", "null"})


class OutputFormat(Struct, frozen=True):
    """What an answer should be: `response_format` says it to the provider, `read` checks it.

    `read` takes the bytes of the text and raises ValueError or msgspec.MsgspecError.
    """

    response_format: dict[str, Any]
    read: Callable[[bytes], Any]

    def parse(self, response: Response) -> Any:
        """The object in a finished answer; OutputMismatch holds the answer if there is none."""
        if reason := _unfinished(response):
            raise _mismatch(response, reason)
        try:
            return self.read(response.text.encode())
        except (ValueError, msgspec.MsgspecError, RecursionError) as error:
            raise _mismatch(response, str(error)) from error


def output_format(wanted: Any) -> OutputFormat:
    """Read what is wanted. LocalProtocolError if no JSON schema can be made of it."""
    if isinstance(wanted, dict):
        return _of_dict(wanted)
    if hasattr(wanted, "model_json_schema") and hasattr(wanted, "model_validate_json"):
        schema = wanted.model_json_schema()
        return OutputFormat(_named(wanted.__name__, schema), wanted.model_validate_json)
    try:
        schema = msgspec.json.schema(ready(wanted))
        read = _Typed(wanted)
        msgspec.json.Decoder(wanted)
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise LocalProtocolError(
            f"response_format: no JSON schema can be made of {wanted!r} ({error}): give a pydantic "
            f"model, a msgspec Struct, a dataclass, a TypedDict or a JSON schema"
        ) from error
    return OutputFormat(_named(getattr(wanted, "__name__", ""), schema), read)


def _of_dict(wanted: dict[str, Any]) -> OutputFormat:
    """A JSON schema, or the parameter itself, which is sent as it is."""
    kind = wanted.get("type")
    if kind not in _FORMATS and (kind in _KINDS or _SCHEMA_WORDS & wanted.keys()):
        return OutputFormat(_named(wanted.get("title", ""), wanted), _checked(wanted))
    if kind == "text":
        return OutputFormat(wanted, bytes.decode)
    inner = wanted.get("json_schema")
    schema = inner.get("schema") if isinstance(inner, dict) else None
    return OutputFormat(wanted, _checked(schema if isinstance(schema, dict) else {}))


def _named(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """The parameter; names are 64 letters, digits, `_` and `-` (OpenAI API reference)."""
    known = re.sub(r"[^a-zA-Z0-9_-]+", "_", name).strip("_")[:64] or "output"
    enforced = strict(schema)
    sent = rooted(schema) if enforced is None else enforced
    said = {"name": known, "schema": sent, "strict": enforced is not None}
    return {"type": "json_schema", "json_schema": said}


def _checked(schema: dict[str, Any]) -> "_Checked":
    try:
        validator(schema)
    except ValueError as error:
        raise LocalProtocolError(f"response_format: {error}") from error
    return _Checked(schema)


class _Typed(Struct, frozen=True):
    """Reads a text as a type. A value, so that answers can be pickled."""

    kind: Any

    def __call__(self, text: bytes) -> Any:
        return msgspec.json.decode(text, type=self.kind)


class _Checked(Struct, frozen=True):
    """Reads a text as plain data that fits a schema."""

    schema: dict[str, Any]

    def __call__(self, text: bytes) -> Any:
        value = msgspec.json.decode(text)
        if mismatch := validator(self.schema)(value):
            raise ValueError(mismatch)
        return value


def _unfinished(response: Response) -> str:
    """Why an answer can't be what was wanted, whatever it says."""
    if response.refusal:
        return f"the model refused: {response.refusal}"
    if response.end != "complete":
        return f"the answer is not complete ({response.end or 'still coming'})"
    if response.finish_reason in ("length", "content_filter"):
        return f"the answer was cut short ({response.finish_reason})"
    return ""


def _mismatch(response: Response, reason: str) -> OutputMismatch:
    mismatch = OutputMismatch(reason)
    mismatch.response, mismatch.attempts = response, response.attempts
    mismatch.provider, mismatch.model = response.provider, response.model
    mismatch.request_id = response.request_id
    return mismatch
