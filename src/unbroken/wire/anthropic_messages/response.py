"""Anthropic's answer in one piece, both ways."""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw

from unbroken.errors import ProviderError
from unbroken.events import Event, Usage
from unbroken.parts import (
    MESSAGES,
    Native,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolUse,
)
from unbroken.response import Choice, Response
from unbroken.wire.anthropic_messages.passthrough import blocks_of
from unbroken.wire.anthropic_messages.reader import Completion, MessagesReader
from unbroken.wire.anthropic_messages.vocabulary import message_body, usage_to, word_for
from unbroken.wire.error_body import not_an_answer, parse_error
from unbroken.wire.lenient import mend

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Completion).decode


def decode_body(body: bytes) -> list[Event]:
    """The events of a whole answer. Raises RemoteProtocolError or ProviderError if it is none."""
    documents = mend(body, Completion)
    message = _decode(documents[0]) if documents else Completion()
    if message.error:
        raise parse_error(body)
    if message.content is None and not message.stop_reason:
        raise not_an_answer(body)
    out: list[Event] = []
    reader = MessagesReader()
    reader.add_message(message, out)
    if isinstance(reader.error, ProviderError):
        raise reader.error
    return out


def encode_body(response: Response) -> bytes:
    """The body of a whole answer."""
    choice = response.choices[0]
    finish = choice.finish_reason
    usage = usage_to(response.usage or Usage())  # the SDKs' type has no answer without
    body = message_body(response.id, response.model, usage)
    body["content"] = _content(choice)
    body["stop_reason"] = finish and word_for(finish, choice.raw_finish_reason)
    return _encode(body)


def _content(choice: Choice) -> list[Any]:
    """The blocks as they came from this dialect, else written from the parts of the turn."""
    native = choice.turn.native_of(MESSAGES)
    if native is not None:
        return list(native["content"])
    if choice.others:
        return _blocks_of(choice)
    blocks = [block for part in choice.turn.parts for block in _block(part)]
    return _cite(blocks, choice.citations)


def _block(part: Part) -> list[dict[str, Any]]:
    match part:
        case Reasoning(encrypted=data, dialect="anthropic_messages") if data:
            return [{"type": "redacted_thinking", "data": data}]
        case Reasoning(text=text, signature=signature) if text or signature:
            return [{"type": "thinking", "thinking": text, "signature": signature}]
        case Text(text=text) | Refusal(text=text):
            return [{"type": "text", "text": text}]
        case ToolUse(id=id, name=name, arguments=arguments, custom=custom):
            made = {"input": arguments} if custom else msgspec.json.decode(arguments)
            return [{"type": "tool_use", "id": id, "name": name, "input": made}]
        case Native(dialect="anthropic_messages", data=data):
            return [data]
    return []


def _cite(blocks: list[dict[str, Any]], citations: Sequence[str]) -> list[dict[str, Any]]:
    """The citations go with the last text."""
    named = [Raw(citation.encode()) for citation in citations]
    last = next((block for block in reversed(blocks) if block["type"] == "text"), None)
    if named and last is not None:
        last["citations"] = named
    return blocks


def _blocks_of(choice: Choice) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if choice.reasoning:
        signature = choice.reasoning_signature
        thought = {"type": "thinking", "thinking": choice.reasoning, "signature": signature}
        blocks.append(thought)
    blocks += _texts(choice)
    for call in choice.tool_calls:
        made = {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}
        blocks.append(made)
    return blocks


def _texts(choice: Choice) -> list[dict[str, Any]]:
    """The text, and between its parts the blocks that were kept. The citations go with its end."""
    text, begin = choice.text + choice.refusal, 0
    blocks: list[dict[str, Any]] = []
    for at, block in [*blocks_of(choice.others), (len(text), {})]:
        if text[begin:at]:
            blocks.append({"type": "text", "text": text[begin:at]})
        begin = max(begin, at)
        blocks += [block] if block else []
    return _cite(blocks, choice.citations)
