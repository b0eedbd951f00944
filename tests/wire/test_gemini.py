"""Gemini's own API: bytes written by hand from its reference.

Sources: ai.google.dev/api/generate-content, ai.google.dev/gemini-api/docs/thought-signatures.
"""

import json

import msgspec
import pytest

from unbroken.errors import AuthenticationFailed, LocalProtocolError, RateLimited, ServerError
from unbroken.events import (
    BlockEnd,
    BlockStart,
    ChoiceEnd,
    Citation,
    MessageEnd,
    MessageStart,
    OtherEvent,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
    UsageReport,
)
from unbroken.messages import (
    Audio,
    Document,
    Image,
    Message,
    Native,
    Request,
    Text,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
)
from unbroken.wire.fields.gemini import TABLE
from unbroken.wire.gemini import CODEC
from unbroken.wire.gemini.parts import SKIP_SIGNATURE
from unbroken.wire.losses import omitted

DIALECT = CODEC.dialect


def chunk(*parts, finish=None, usage=None, **more):
    """One frame, as the API sends it."""
    candidate = {"content": {"parts": list(parts), "role": "model"}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    body = {
        "candidates": [{**candidate, **more}],
        "modelVersion": "gemini-3.8-flash",
        "responseId": "r1",
    }
    return body | ({"usageMetadata": usage} if usage else {})


def sse(*chunks):
    return b"".join(b"data: %b\r\n\r\n" % json.dumps(one).encode() for one in chunks)


def read(*chunks):
    """The events of a stream, and its error."""
    decoder = CODEC.decoder(Request(model="m", messages=()))
    events = decoder.feed(sse(*chunks))
    return events + decoder.eof(), decoder.error


def content(events):
    return [event for event in events if not isinstance(event, BlockStart | BlockEnd | UsageReport)]


USAGE = {
    "promptTokenCount": 10,
    "cachedContentTokenCount": 4,
    "toolUsePromptTokenCount": 3,
    "candidatesTokenCount": 5,
    "thoughtsTokenCount": 7,
    "totalTokenCount": 25,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 10}],
}


def test_thoughts_text_and_usage():
    events, error = read(
        chunk({"text": "Let me ", "thought": True}, usage={"promptTokenCount": 10}),
        chunk({"text": "see.", "thought": True}),
        chunk({"text": "Hel"}),
        chunk({"text": "lo"}, finish="STOP", usage=USAGE),
    )
    usage = Usage(input_tokens=13, output_tokens=12, cached_input_tokens=4, reasoning_tokens=7)

    assert error is None
    assert content(events) == [
        MessageStart("r1", "gemini-3.8-flash"),
        ReasoningDelta("Let me "),
        ReasoningDelta("see."),
        TextDelta("Hel"),
        TextDelta("lo"),
        ChoiceEnd("stop", "STOP"),
        MessageEnd("stop", usage, "STOP"),
    ]
    natives = [json.loads(event.native) for event in events if isinstance(event, BlockEnd)]
    assert natives == [{"text": "\0text", "thought": True}, {"text": "\0text"}]


def test_signatures_stay_where_they_were():
    call = {"functionCall": {"name": "weather", "args": {"city": "Rome"}}}
    events, _ = read(
        chunk({"text": "Looking."}),
        chunk({**call, "thoughtSignature": "c2ln"}),
        chunk({"functionCall": {"id": "f2", "name": "time", "args": {}}}),
        chunk({"text": "", "thoughtSignature": "ZW5k"}, finish="STOP"),
    )
    natives = [json.loads(event.native) for event in events if isinstance(event, BlockEnd)]

    assert natives == [
        {"text": "\0text"},
        {"functionCall": {"name": "weather", "args": "\0input0"}, "thoughtSignature": "c2ln"},
        {"functionCall": {"id": "f2", "name": "time", "args": "\0input1"}},
        {"text": "\0text", "thoughtSignature": "ZW5k"},
    ]
    calls = [event for event in events if isinstance(event, ToolCallStart | ToolCallDelta)]
    assert calls == [
        ToolCallStart(0, "gcall_r1_0", "weather"),
        ToolCallDelta(0, '{"city":"Rome"}'),
        ToolCallStart(1, "f2", "time"),
        ToolCallDelta(1, "{}"),
    ]
    assert ChoiceEnd("tool_calls", "STOP") in events


def test_grounding_code_and_pictures_are_kept():
    picture = {"inlineData": {"mimeType": "image/png", "data": "aGk="}}
    grounding = {"webSearchQueries": ["q"], "groundingChunks": [{"web": {"uri": "https://x"}}]}
    ratings = [{"category": "HARM_CATEGORY_HARASSMENT", "probability": "LOW"}]
    events, _ = read(
        chunk({"executableCode": {"language": "PYTHON", "code": "1+1"}}),
        chunk(picture),
        chunk({"text": "ok"}, finish="STOP", groundingMetadata=grounding, safetyRatings=ratings),
        {"usageMetadata": USAGE, "modelStatus": {"modelStage": "STABLE"}},
    )
    others = [
        (event.name, json.loads(event.data)) for event in events if isinstance(event, OtherEvent)
    ]

    assert others == [
        ("part", {"executableCode": {"language": "PYTHON", "code": "1+1"}}),
        ("part", picture),
        ("candidate", {"safetyRatings": ratings}),
        ("response", {"modelStatus": {"modelStage": "STABLE"}}),
    ]
    cited = [json.loads(event.data) for event in events if isinstance(event, Citation)]
    assert cited == [{"groundingMetadata": grounding}]
    assert events[-1].usage.output_tokens == 12


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("MODEL_ARMOR", "content_filter"),
    ],
)
def test_a_finish_reason_has_its_meaning(raw, reason):
    events, error = read(chunk({"text": "Hel"}, finish=raw))

    assert error is None
    assert events[-1] == MessageEnd(reason, None, raw)


@pytest.mark.parametrize(
    "raw", ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "MALFORMED_RESPONSE", "OTHER"]
)
def test_a_failure_is_no_answer_and_may_be_retried(raw):
    events, error = read(chunk({"text": "Hel"}, finish=raw))

    assert isinstance(error, ServerError)
    assert error.retryable
    assert MessageEnd not in map(type, events)


def test_a_word_that_nobody_knows_is_no_stop():
    events, _ = read(chunk({"text": "Hel"}, finish="SOMETHING_NEW"))

    assert events[-1] == MessageEnd("error", None, "SOMETHING_NEW", known=False)


def test_a_refused_prompt_ends_with_its_reason():
    events, _ = read(
        {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": USAGE}
    )

    assert [event for event in events if isinstance(event, ChoiceEnd)] == [
        ChoiceEnd("content_filter", "PROHIBITED_CONTENT")
    ]
    assert type(events[-1]) is MessageEnd


def test_a_body_that_ends_without_a_finish_reason_is_cut():
    events, error = read(chunk({"text": "Hel"}, usage=USAGE))

    assert error is None
    assert MessageEnd not in map(type, events)


def test_odd_types_cost_no_event():
    odd = chunk({"text": "Hel", "thought": None}, index="0", usage={"promptTokenCount": "10"})
    events, error = read(odd, chunk({"text": "lo"}, finish="STOP"))

    assert error is None
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "Hello"


ERROR = {
    "error": {
        "code": 429,
        "message": "Quota exceeded",
        "status": "RESOURCE_EXHAUSTED",
        "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7.5s"}],
    }
}


@pytest.mark.parametrize("body", [ERROR, [ERROR]])
def test_an_error_says_when_to_come_back(body):
    error = DIALECT.decode_error(429, {}, json.dumps(body).encode())

    assert isinstance(error, RateLimited)
    assert (error.retry_after, error.code) == (7.5, "RESOURCE_EXHAUSTED")
    again = DIALECT.decode_error(429, {}, DIALECT.encode_error(error))
    assert (again.retry_after, again.message) == (7.5, "Quota exceeded")


def test_a_wrong_key_is_one():
    body = b'{"error":{"code":400,"message":"API key not valid.","status":"INVALID_ARGUMENT","details":[{"reason":"API_KEY_INVALID"}]}}'

    assert isinstance(DIALECT.decode_error(400, {}, body), AuthenticationFailed)


def test_an_error_in_mid_stream_ends_it():
    _, error = read(
        chunk({"text": "Hel"}),
        {"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}},
    )

    assert error.status == 503
    assert error.retryable


# Requests


def body_of(request):
    return json.loads(DIALECT.encode_request(request))


WEATHER = Tool(
    "weather", "The weather", {"type": "object", "properties": {"city": {"type": "string"}}}
)


def test_a_request_is_written_in_its_words():
    request = Request(
        model="gemini-3.8-flash",
        messages=(
            Message("system", (Text("Be brief."),)),
            Message("user", (Text("Look:"), Image("data:image/png;base64,aGk="), Document("data:application/pdf;base64,aGk=", "a.pdf"), Audio("data:audio/wav;base64,aGk="), Image("https://x.example/a.jpg"))),
        ),
        max_tokens=5,
        temperature=0.5,
        top_k=3,
        stop=("END",),
        n=2,
        reasoning_effort="low",
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
        tools=(WEATHER, Tool("googleSearch", kind="hosted", native=Native("gemini", {"googleSearch": {}}))),
        tool_choice=ToolChoice("tool", "weather"),
    )  # fmt: skip

    assert body_of(request) == {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [
            {
                "role": "user",
                "parts": [
                    {"text": "Look:"},
                    {"inlineData": {"mimeType": "image/png", "data": "aGk="}},
                    {"inlineData": {"mimeType": "application/pdf", "data": "aGk=", "displayName": "a.pdf"}},
                    {"inlineData": {"mimeType": "audio/wav", "data": "aGk="}},
                    {"fileData": {"fileUri": "https://x.example/a.jpg", "mimeType": "image/jpeg"}},
                ],
            }
        ],
        "generationConfig": {
            "maxOutputTokens": 5,
            "temperature": 0.5,
            "topK": 3,
            "stopSequences": ["END"],
            "candidateCount": 2,
            "thinkingConfig": {"thinkingLevel": "low", "includeThoughts": True},
            "responseMimeType": "application/json",
            "responseJsonSchema": {"type": "object"},
        },
        "tools": [
            {"functionDeclarations": [{"name": "weather", "description": "The weather", "parametersJsonSchema": WEATHER.parameters}]},
            {"googleSearch": {}},
        ],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["weather"]}},
    }  # fmt: skip


HISTORY = (
    Message("user", (Text("And?"),)),
    Message("assistant", (ToolUse("c1", "weather", '{"city":"Rome"}'), ToolUse("gcall_r_1", "time", ""))),
    Message("tool", (ToolResult("c1", (Text("18 C"), Image("data:image/png;base64,aGk="))),)),
    Message("tool", (ToolResult("gcall_r_1", "noon", is_error=True),)),
)  # fmt: skip


def test_results_go_back_together_with_their_names_and_pictures():
    _, called, results = body_of(Request(model="gemini-3.8-flash", messages=HISTORY))["contents"]
    picture = {"inlineData": {"mimeType": "image/png", "data": "aGk="}}

    assert called == {
        "role": "model",
        "parts": [
            {
                "functionCall": {"id": "c1", "name": "weather", "args": {"city": "Rome"}},
                "thoughtSignature": SKIP_SIGNATURE,  # another model made the call
            },
            {"functionCall": {"name": "time", "args": {}}},
        ],
    }
    assert results == {
        "role": "user",
        "parts": [
            {"functionResponse": {"id": "c1", "name": "weather", "response": {"output": "18 C"}, "parts": [picture]}},
            {"functionResponse": {"name": "time", "response": {"error": "noon"}}},
        ],
    }  # fmt: skip


def test_older_models_get_no_signature_and_see_pictures_beside_the_result():
    _, called, results = body_of(Request(model="gemini-2.5-flash", messages=HISTORY))["contents"]

    assert not any("thoughtSignature" in part for part in called["parts"])
    assert [next(iter(part)) for part in results["parts"]] == [
        "functionResponse",
        "inlineData",
        "functionResponse",
    ]


def test_a_result_without_its_call_is_refused():
    with pytest.raises(LocalProtocolError, match="belongs to no call"):
        body_of(Request(model="m", messages=(Message("tool", (ToolResult("x", "y"),)),)))


def test_thought_has_tokens_in_older_models():
    made = body_of(Request(model="gemini-2.5-pro", messages=HISTORY[:1], reasoning_effort="none"))

    assert made["generationConfig"]["thinkingConfig"] == {
        "thinkingBudget": 0,
        "includeThoughts": False,
    }


BODY = {
    "systemInstruction": {"parts": [{"text": "Be brief."}], "role": "user"},
    "contents": [
        {"role": "user", "parts": [{"text": "Hi"}, {"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/a", "mimeType": "application/pdf"}}]},
        {"role": "model", "parts": [{"text": "hm", "thought": True}, {"functionCall": {"name": "weather", "args": {"city": "Rome"}}, "thoughtSignature": "c2ln"}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "weather", "response": {"result": "18 C"}}}]},
        {"role": "user", "parts": [{"text": "Go on.", "videoMetadata": {"fps": 1}}]},
    ],
    "generationConfig": {"maxOutputTokens": 9, "topK": 3, "thinkingConfig": {"thinkingLevel": "LOW"}, "responseMimeType": "application/json", "responseSchema": {"type": "OBJECT", "properties": {"a": {"type": "STRING", "nullable": True}}}},
    "tools": [{"functionDeclarations": [{"name": "weather", "parameters": {"type": "OBJECT"}}], "googleSearch": {}}],
    "toolConfig": {"functionCallingConfig": {"mode": "AUTO"}},
    "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
    "aFieldOfTomorrow": {"x": 1},
}  # fmt: skip


def test_what_came_in_this_dialect_leaves_as_it_came():
    request = DIALECT.decode_request(json.dumps(BODY).encode())

    assert body_of(request) == BODY
    assert DIALECT.omitted(request) == ()


def test_a_request_of_this_dialect_is_understood():
    request = DIALECT.decode_request(json.dumps(BODY).encode())
    user, model, result, _ = request.messages[1:]

    assert request.system == "Be brief."
    assert request.max_tokens == 9
    assert request.reasoning_effort == "low"
    assert request.response_format["json_schema"]["schema"]["properties"]["a"] == {
        "type": ["string", "null"]
    }
    assert [tool.name for tool in request.tools] == ["weather", "googleSearch"]
    assert request.tools[0].parameters == {"type": "object"}
    assert user.parts[1] == Document(file_id=BODY["contents"][0]["parts"][1]["fileData"]["fileUri"])
    call = model.parts[1]
    assert (call.name, call.arguments) == ("weather", '{"city":"Rome"}')
    assert result.parts == (ToolResult(call.id, "18 C"),)


def test_names_of_protocol_buffers_are_read_too():
    snake = {
        "contents": [{"parts": [{"text": "Hi"}]}],
        "system_instruction": {"parts": [{"text": "S"}]},
        "generation_config": {"maxOutputTokens": 4},
    }
    request = DIALECT.decode_request(json.dumps(snake).encode())

    assert (request.system, request.max_tokens, request.messages[1].role) == ("S", 4, "user")


def test_the_sdk_mixes_both_kinds_of_names():
    schema = {"type": "object", "properties": {"first_name": {"type": "string"}}}
    declared = {"functionDeclarations": [{"name": "f", "parameters_json_schema": schema}]}
    body = {
        "contents": [{"parts": [{"inline_data": {"mime_type": "image/png", "data": "aGk="}}]}],
        "tools": [declared],
    }
    request = DIALECT.decode_request(json.dumps(body).encode())

    assert request.tools[0].parameters == schema
    assert request.messages[0].parts == (Image("data:image/png;base64,aGk="),)


def test_what_only_this_dialect_has_is_reported_or_refused_elsewhere():
    from unbroken.wire import openai_chat

    request = DIALECT.decode_request(
        json.dumps(
            {"contents": BODY["contents"][:1], "safetySettings": [], "labels": {"a": "b"}}
        ).encode()
    )
    kept = msgspec.structs.replace(request, model="m", messages=(Message("user", (Text("Hi"),)),))
    assert "safetySettings" in openai_chat.CODEC.dialect.omitted(kept)
    hosted = DIALECT.decode_request(
        json.dumps(
            {"contents": [{"parts": [{"text": "Hi"}]}], "cachedContent": "cachedContents/1"}
        ).encode()
    )
    with pytest.raises(LocalProtocolError, match="cachedContent"):
        openai_chat.CODEC.dialect.encode_request(msgspec.structs.replace(hosted, model="m"))
    assert omitted(kept, TABLE) == []


# Writing


def test_an_answer_survives_writing_and_reading():
    chunks = [
        chunk({"text": "Let me see.", "thought": True}),
        chunk({"text": "Hel"}),
        chunk({"functionCall": {"id": "a", "name": "weather", "args": {"city": "Rome"}}, "thoughtSignature": "c2ln"}),
        chunk({"executableCode": {"code": "1"}}),
        chunk({"text": "lo", "thoughtSignature": "ZW5k"}, finish="STOP", usage=USAGE, groundingMetadata={"webSearchQueries": ["q"]}),
    ]  # fmt: skip
    events, _ = read(*chunks)
    writer = DIALECT.writer(Request(model="m", messages=()))
    data = CODEC.encode_all(writer, events)
    decoder = CODEC.decoder(Request(model="m", messages=()))
    again = decoder.feed(data) + decoder.eof()

    def parts(found):
        natives = [json.loads(e.native) for e in found if isinstance(e, BlockEnd)]
        return [native for native in natives if native != {"text": "\0text"}]

    assert [e for e in content(again) if not isinstance(e, MessageEnd)] == [
        e for e in content(events) if not isinstance(e, MessageEnd)
    ]
    assert again[-1].finish_reason == "tool_calls"
    assert {"thoughtSignature": "c2ln"}.items() <= parts(again)[1].items()


def test_a_whole_answer_says_the_same():
    whole = chunk(
        {"text": "hm", "thought": True},
        {"text": "Hello"},
        {"functionCall": {"name": "f", "args": {"a": 1}}},
        finish="STOP",
        usage=USAGE,
    )
    events = DIALECT.decode_response(json.dumps(whole).encode())

    assert content(events) == content(read(whole)[0])
