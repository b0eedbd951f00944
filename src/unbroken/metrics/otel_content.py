"""Prompt and answer as span attributes, in the shape that the conventions have for them
(opentelemetry.io/docs/specs/semconv/gen-ai: the JSON schemas gen-ai-input-messages,
gen-ai-output-messages and gen-ai-system-instructions).

Spans can't hold nested values, so they are JSON texts, which the conventions allow.
"""

from typing import Any

import msgspec

from unbroken.messages import (
    Audio,
    Document,
    Image,
    Message,
    Native,
    Part,
    Reasoning,
    Refusal,
    Request,
    Text,
    ToolResult,
    ToolUse,
)
from unbroken.response import Choice, Response

_FINISH = {"tool_calls": "tool_call"}
"""Finish reasons whose name in the schema differs from ours."""


def content_of(request: Request, response: Response) -> dict[str, str]:
    """Return the attributes, with the partial content of a failed answer."""
    system = [_part(p) for m in request.messages if m.role == "system" for p in m.parts]
    messages = [_message(m) for m in request.messages if m.role != "system"]
    answers = [_choice(choice) for choice in response.choices]
    facts = {
        "gen_ai.system_instructions": system,
        "gen_ai.input.messages": messages,
        "gen_ai.output.messages": answers,
    }
    return {name: msgspec.json.encode(fact).decode() for name, fact in facts.items() if fact}


def _message(message: Message) -> dict[str, Any]:
    return {"role": message.role, "parts": [_part(part) for part in message.parts]}


def _part(part: Part) -> dict[str, Any]:
    match part:
        case Text(text=text):
            return {"type": "text", "content": text}
        case Reasoning(text=text):
            return {"type": "reasoning", "content": text}
        case ToolUse(id=id, name=name, arguments=arguments):
            return {"type": "tool_call", "id": id, "name": name, "arguments": arguments}
        case ToolResult(id=id, content=content):
            answer = content if isinstance(content, str) else [_part(one) for one in content]
            return {"type": "tool_call_response", "id": id, "response": answer}
        case Image(url=url) | Document(url=url) | Audio(url=url):
            return _media(url, _MODALITIES[type(part)])
        case Refusal(text=text):
            return {"type": "text", "content": text}
        case Native():
            return {"type": part.kind, "omitted": True}


_MODALITIES = {Image: "image", Document: "document", Audio: "audio"}


def _media(url: str, modality: str) -> dict[str, Any]:
    """Describe an image, a document or a recording without its bytes."""
    if not url.startswith("data:"):
        return {"type": "uri", "modality": modality, "uri": url}
    return {"type": modality, "mime_type": url[5:].partition(";")[0], "omitted": True}


def _choice(choice: Choice) -> dict[str, Any]:
    parts: list[dict[str, Any]] = []
    if choice.reasoning:
        parts.append({"type": "reasoning", "content": choice.reasoning})
    if choice.text or choice.refusal:
        parts.append({"type": "text", "content": choice.text or choice.refusal})
    parts += [_call(call.id, call.name, call.arguments) for call in choice.tool_calls]
    parts += [_call(call.id, call.name, call.arguments) for call in choice.partial_tool_calls]
    reason = choice.finish_reason or "error"
    return {"role": "assistant", "parts": parts, "finish_reason": _FINISH.get(reason, reason)}


def _call(id: str, name: str, arguments: Any) -> dict[str, Any]:
    return {"type": "tool_call", "id": id, "name": name, "arguments": arguments}
