"""What the gateway offers, as OpenAPI 3.1 (spec.openapis.org/oas/v3.1.0).

The operations are data below; a test holds them against the routes that there are. Bodies of the
providers' own dialects are named, not copied: their descriptions are the providers'.
"""

import re
from typing import Any

import msgspec
from msgspec import Struct, field

from unbroken.events import Event
from unbroken.server.records import Outcome

Json = dict[str, Any]

CHAT = "https://platform.openai.com/docs/api-reference/chat/create"
RESPONSES = "https://platform.openai.com/docs/api-reference/responses/create"
MESSAGES = "https://docs.claude.com/en/api/messages"
GEMINI = "https://ai.google.dev/api/generate-content"


class Operation(Struct, frozen=True):
    """One thing to ask for. `query` is name: meaning; `answers` is media type: schema or prose."""

    method: str
    path: str
    summary: str
    tag: str
    body: str = ""
    schema: str = "Question"  # of the body
    query: dict[str, str] = {}
    answers: dict[str, str] = field(default_factory=lambda: {"application/json": ""})
    status: int = 200
    open: bool = False  # asked without a key


_OPTIONS = {
    "on_disconnect": "keep, cancel or grace: what becomes of the answer without readers",
    "grace": "seconds that it waits for one",
}
_SSE = "text/event-stream"
_BOTH = {"application/json": "", _SSE: "the dialect's own stream, if `stream` is true"}

OPERATIONS = (
    Operation("post", "/v1/chat/completions", "Ask as OpenAI's chat completions", "Dialects",
              f"Question ({CHAT})", answers=_BOTH),
    Operation("post", "/v1/messages", "Ask as Anthropic's messages", "Dialects",
              f"Question ({MESSAGES})", answers=_BOTH),
    Operation("post", "/v1/messages/count_tokens", "Estimate the tokens of a question", "Dialects",
              f"Question ({MESSAGES})"),
    Operation("post", "/v1/responses", "Ask as OpenAI's responses, also in the background",
              "Dialects", f"Question ({RESPONSES})", answers=_BOTH),
    Operation("get", "/v1/responses/{id}", "The response as far as it has come, or its stream",
              "Dialects", query={"stream": "true: as a stream",
                                 "starting_after": "the sequence number that was read last"},
              answers=_BOTH),
    Operation("delete", "/v1/responses/{id}", "Stop a response and delete it", "Dialects"),
    Operation("post", "/v1/responses/{id}/cancel", "Stop a response", "Dialects"),
    Operation("post", "/{version}/models/{model:path}:generateContent",
              "Ask as Google's Gemini API", "Dialects", f"Question ({GEMINI})"),
    Operation("post", "/{version}/models/{model:path}:streamGenerateContent",
              "The same, as a stream with `alt=sse`, else as a list", "Dialects",
              f"Question ({GEMINI})", query={"alt": "sse: as a stream"},
              answers={"application/json": "", _SSE: "with `alt=sse`"}),
    Operation("post", "/{version}/models/{model:path}:countTokens",
              "An estimate of a prompt's tokens", "Dialects", f"Question ({GEMINI})"),
    Operation("get", "/v1beta/models", "The names that `model` may have, as Gemini", "Dialects"),
    Operation("get", "/v1beta/models/{name:path}", "One of them; 404 for others", "Dialects"),
    Operation("get", "/v1/models", "The names that `model` may have", "Dialects"),
    Operation("get", "/v1/models/{name:path}", "One of these names; 404 for others", "Dialects"),
    Operation("get", "/stream", "One question, one answer, for EventSource and curl", "Browsers",
              query={"prompt": "the question", "model": "who is asked", "system": "system prompt",
                     "fallback": "who stands in; may be repeated", **_OPTIONS,
                     "last_event_id": "ID.OFFSET, for a page that was loaded anew"},
              answers={_SSE: "the text; ids are offsets for Last-Event-ID; [DONE] at the end"}),
    Operation("post", "/v1/streams", "Start an answer; the same Idempotency-Key, the same answer",
              "Answers", f"Question ({CHAT})", status=201, answers={"application/json": "Stream"}),
    Operation("get", "/v1/streams", "One's own answers, the youngest first", "Answers",
              query={"text": "what model or question hold", "closed": "true or false",
                     "limit": "50, at most 500", "before": "`next` of the page before"}),
    Operation("get", "/v1/streams/{id}", "An answer: whole, as a long poll, or followed",
              "Answers", query={"after": "an offset", "wait": "seconds of a long poll",
                                "token": "of a shared answer"},
              answers={"application/json": "Whole", _SSE: "Events"}),
    Operation("delete", "/v1/streams/{id}", "Stop an answer; delete one that has ended",
              "Answers", answers={"application/json": "Stream"}),
    Operation("post", "/v1/streams/{id}/share", "A token with which anybody may read this answer",
              "Answers", status=201),
    Operation("get", "/v1/shares", "One's own share links, the youngest first", "Answers",
              query={"before": "`next` of the page before"}),
    Operation("delete", "/v1/shares/{id}", "Revoke a share link", "Answers", status=204,
              answers={}),
    Operation("post", "/v1/keys", "Create an API key (administrators)", "Keys",
              "The key's name, limits and expiry", "NewKey", status=201),
    Operation("get", "/v1/keys", "Every key, its limits and its usage (administrators)", "Keys"),
    Operation("delete", "/v1/keys/{name}", "Revoke an API key (administrators)", "Keys",
              status=204, answers={}),
    Operation("get", "/healthz", "The process lives", "Watching", open=True),
    Operation("get", "/readyz", "It takes questions", "Watching", open=True),
    Operation("get", "/metrics", "Figures for Prometheus", "Watching", open=True,
              answers={"text/plain": ""}),
)  # fmt: skip


def description(version: str) -> Json:
    """The whole document."""
    paths: dict[str, Json] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path.replace(":path", ""), {})[operation.method] = _operation(
            operation
        )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "unbroken",
            "version": version,
            "summary": "LLM streams that survive: every answer is a durable log.",
            "description": "A WebSocket at `/ws` starts, follows and cancels answers as well.",
        },
        "servers": [{"url": "."}],
        "security": [{"bearer": []}, {"x-api-key": []}, {"x-goog-api-key": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "x-goog-api-key": {"type": "apiKey", "in": "header", "name": "x-goog-api-key"},
            },
            "schemas": _schemas(),
        },
    }


def _operation(operation: Operation) -> Json:
    described: Json = {
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": _parameters(operation),
        "responses": {
            str(operation.status): {
                "description": operation.summary,
                "content": {kind: _content(kind, said) for kind, said in operation.answers.items()},
            },
            "default": {"description": "Refused", "content": {"application/json": _ref("Refusal")}},
        },
    }
    if operation.body:
        described["requestBody"] = {
            "required": True,
            "description": operation.body,
            "content": {"application/json": _ref(operation.schema)},
        }
    return described | ({"security": []} if operation.open else {})


def _parameters(operation: Operation) -> list[Json]:
    described = {
        "id": "its id",
        "name": "its name",
        "model": "the model that is asked",
        "version": "v1beta, v1 or v1alpha",
    }
    names = re.findall(r"{(\w+)", operation.path)
    places = [(name, "path", described[name]) for name in names]
    places += [(name, "query", said) for name, said in operation.query.items()]
    return [
        {
            "name": name,
            "in": place,
            "required": place == "path" or name == "prompt",
            "description": said,
            "schema": {"type": "string"},
        }
        for name, place, said in places
    ]


def _content(kind: str, said: str) -> Json:
    if said in _OURS or said == "Events":
        return _ref(said)
    shape = "object" if kind == "application/json" else "string"
    return {"schema": {"type": shape, **({"description": said} if said else {})}}


def _ref(name: str) -> Json:
    return {"schema": {"$ref": f"#/components/schemas/{name}"}}


def _schemas() -> Json:
    """Our own words; events and ends are described from their types."""
    (events, _), found = msgspec.json.schema_components(
        [list[Event], Outcome], ref_template="#/components/schemas/{name}"
    )
    events["description"] = "One frame of the stream; the last one, `event: end`, holds a Outcome."
    return {**_OURS, "Events": events, **found}


_TEXT = {"type": "string"}
_OURS: dict[str, Json] = {
    "Question": {
        "type": "object",
        "required": ["model"],
        "additionalProperties": True,
        "properties": {
            "model": {"type": "string", "description": "provider/model, or the name of a route"},
            "stream": {"type": "boolean"},
            "fallbacks": {"type": "array", "items": _TEXT, "description": "who stands in"},
            "on_disconnect": {"enum": ["keep", "cancel", "grace"]},
            "grace": {"type": "number", "description": "seconds"},
        },
    },
    "NewKey": {
        "type": "object",
        "required": ["name"],
        "additionalProperties": False,
        "properties": {
            "name": _TEXT,
            "limits": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "requests": {"type": "integer", "description": "per day (UTC)"},
                    "tokens": {"type": "integer", "description": "per day"},
                    "usd": {"type": "number", "description": "USD per day"},
                    "requests_per_minute": {"type": "integer"},
                    "tokens_per_minute": {"type": "integer"},
                },
            },
            "admin": {"type": "boolean", "description": "may manage keys"},
            "expires_in": {"type": "number", "description": "seconds"},
        },
    },
    "Stream": {
        "type": "object",
        "required": ["id", "state"],
        "properties": {
            "id": _TEXT,
            "object": {"const": "stream"},
            "state": {"enum": ["open", "complete", "cancelled", "failed"]},
            "model": _TEXT,
            "question": _TEXT,
            "created": {"type": "integer", "description": "Unix seconds"},
        },
    },
    "Whole": {
        "allOf": [{"$ref": "#/components/schemas/Stream"}],
        "properties": {
            "offset": {"type": "integer"},
            "text": _TEXT,
            "reasoning": _TEXT,
            "choices": {"type": "array", "description": "all of them, if `n` is above 1"},
            "usage": {"type": ["object", "null"]},
            "final": {"anyOf": [{"$ref": "#/components/schemas/Outcome"}, {"type": "null"}]},
        },
    },
    "Refusal": {
        "type": "object",
        "description": "OpenAI's shape; `/v1/messages` answers in Anthropic's",
        "properties": {
            "error": {
                "type": "object",
                "properties": {
                    "message": _TEXT,
                    "type": _TEXT,
                    "code": {"type": ["string", "null"]},
                },
            }
        },
    },
}
