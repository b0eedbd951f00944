"""The assistant's turn as chat completions take it back, fields included that are not modelled.

Gemini refuses a turn whose calls lack their `extra_content`, OpenRouter's models want their
`reasoning_details`; audio is sent back by its id alone (OpenAI API reference).
"""

from typing import Any

import msgspec

from unbroken import native
from unbroken.events import TurnNative
from unbroken.wire.openai_chat.calls import Call, Calls
from unbroken.wire.openai_chat.passthrough import DIALECT, Fields, grown


class TurnFields:
    """The fields of one choice's message that are not modelled, grown delta by delta."""

    def __init__(self) -> None:
        self._fields: dict[str, Any] = {}

    def add(self, fields: Fields) -> None:
        """More of them."""
        self._fields = grown(self._fields, msgspec.to_builtins(_values(fields)))

    def native(self, choice: int, calls: Calls | None) -> TurnNative | None:
        """The message; None where it holds nothing but what its parts say."""
        made = calls.started if calls is not None else []
        if not self._fields and not any(call.unknown for call in made):
            return None
        message: dict[str, Any] = {"role": "assistant", "content": native.TEXT, **self._sendable()}
        if made:
            message["tool_calls"] = [_call(call) for call in made]
        return TurnNative(native.template(message), DIALECT, choice)

    def _sendable(self) -> dict[str, Any]:
        fields = dict(self._fields)
        audio = fields.get("audio")
        if isinstance(audio, dict) and "id" in audio:
            fields["audio"] = {"id": audio["id"]}
        return fields


def _call(call: Call) -> dict[str, Any]:
    kind, field = ("custom", "input") if call.custom else ("function", "arguments")
    inner = {"name": call.name, field: native.arguments(call.number or 0)}
    return {"id": call.id, "type": kind, kind: inner, **msgspec.to_builtins(_values(call.unknown))}


def _values(fields: Fields) -> dict[str, Any]:
    """What raw JSON stands for."""
    values: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(fields))
    return values
