"""The answer of Gemini in one piece, both ways: one GenerateContentResponse."""

from typing import Any

import msgspec

from unbroken.errors import ProviderError
from unbroken.events import Event, Usage
from unbroken.response import Choice, Response
from unbroken.wire.codec import Frame
from unbroken.wire.error_body import not_an_answer
from unbroken.wire.gemini.reader import GeminiReader
from unbroken.wire.gemini.vocabulary import DIALECT, NAMELESS, encode, usage_to, word_for

_fields = msgspec.json.Decoder(dict[str, Any]).decode


def decode_body(body: bytes) -> list[Event]:
    """The events of a whole answer. Raises RemoteProtocolError or ProviderError if it is none."""
    reader, out = GeminiReader(), list[Event]()
    reader.read([Frame(body)], out)
    reader.eof(out)
    if isinstance(reader.error, ProviderError):
        raise reader.error
    if reader.error is not None or reader.skipped or not (b'"candidates"' in body or reader.done):
        raise not_an_answer(body)
    return out


def encode_body(response: Response) -> bytes:
    """The body of a whole answer."""
    beside: dict[str, Any] = {}
    for choice in response.choices:
        for other in choice.others:
            if other.event.dialect == DIALECT and other.event.name == "response":
                beside |= _fields(other.event.data)
    return encode(
        {
            "candidates": [_candidate(choice) for choice in response.choices],
            **beside,
            "usageMetadata": usage_to(response.usage or Usage()),
            "modelVersion": response.model,
            "responseId": response.id,
        }
    )


def _candidate(choice: Choice) -> dict[str, Any]:
    reason = choice.finish_reason or "stop"
    beside: dict[str, Any] = {}
    for other in choice.others:
        if other.event.dialect == DIALECT and other.event.name == "candidate":
            beside |= _fields(other.event.data)
    for citation in choice.citations:
        fields = _fields(citation)
        beside |= {k: v for k, v in fields.items() if k.endswith("Metadata")}
    return {
        "content": {"parts": _parts(choice), "role": "model"},
        "finishReason": word_for(reason, choice.raw_finish_reason),
        "index": choice.index,
        **beside,
    }


def _parts(choice: Choice) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    if choice.reasoning:
        signature = choice.reasoning_signature
        proof = {"thoughtSignature": signature} if signature else {}
        parts.append({"text": choice.reasoning, "thought": True, **proof})
    parts += _texts(choice)
    for call in choice.tool_calls:
        named = {} if call.id.startswith(NAMELESS) else {"id": call.id}
        parts.append({"functionCall": {**named, "name": call.name, "args": call.arguments}})
    return parts


def _texts(choice: Choice) -> list[dict[str, Any]]:
    """The text, and between its pieces the parts that are not modelled."""
    text, begin = choice.text + choice.refusal, 0
    parts: list[dict[str, Any]] = []
    kept = [
        (other.at, _fields(other.event.data))
        for other in choice.others
        if other.event.dialect == DIALECT and other.event.name == "part"
    ]
    for at, part in [*kept, (len(text), {})]:
        parts += [{"text": text[begin:at]}] if text[begin:at] else []
        parts += [part] if part else []
        begin = max(begin, at)
    return parts
