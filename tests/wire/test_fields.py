"""Every field of every dialect's published schema, to every dialect: equal, translated, omitted and
reported, or refused by name, and nothing else.
"""

import json
import subprocess
import sys
import typing
from pathlib import Path

import botocore.session
import pytest
from anthropic.types import message_create_params as anthropic_messages
from anthropic.types.beta import message_create_params as anthropic_beta
from openai.types.chat import completion_create_params as openai_chat
from openai.types.responses import response_create_params as openai_responses

from unbroken.errors import LocalProtocolError
from unbroken.wire.anthropic_messages.dialect import CODEC as MESSAGES
from unbroken.wire.bedrock_converse.dialect import CODEC as CONVERSE
from unbroken.wire.losses import TABLES
from unbroken.wire.openai_chat.dialect import CODEC as CHAT
from unbroken.wire.openai_responses.dialect import CODEC as RESPONSES

SCHEMA = {"type": "object", "properties": {}, "additionalProperties": False}
FUNCTION = {"name": "f", "parameters": SCHEMA}
CALLER = {"messages": [{"role": "user", "content": "hi"}], "model": "m"}
CODECS = {
    "openai_chat": CHAT,
    "openai-responses": RESPONSES,
    "anthropic_messages": MESSAGES,
    "bedrock": CONVERSE,
}
LEAST = {
    "openai_chat": CALLER,
    "openai-responses": {"input": "hi", "model": "m"},
    "anthropic_messages": {**CALLER, "max_tokens": 9},
    "bedrock": {"messages": [{"role": "user", "content": [{"text": "hi"}]}]},
}
NEED_TOOLS = {"parallel_tool_calls", "tool_choice"}
OF_THE_DIALECT = {"model", "messages", "input", "modelId", "system", "instructions"}
VALUES = {
    "audio": {"voice": "alloy", "format": "wav"},
    "background": True,
    "cache_control": {"type": "ephemeral"},
    "max_tokens": 9,
    "max_completion_tokens": 9,
    "max_output_tokens": 9,
    "messages": CALLER["messages"],
    "metadata": {"user_id": "u"},
    "modalities": ["text", "audio"],
    "n": 2,
    "seed": 1,
    "logprobs": True,
    "top_logprobs": 2,
    "store": False,
    "output_config": {"effort": "low"},
    "parallel_tool_calls": False,
    "reasoning": {"effort": "low"},
    "stop": ["x"],
    "stop_sequences": ["x"],
    "stream_options": {"include_obfuscation": False},
    "text": {"verbosity": "low"},
    "thinking": {"type": "enabled", "budget_tokens": 2000},
    "tool_choice": {
        "openai_chat": "auto",
        "openai-responses": "auto",
        "anthropic_messages": {"type": "auto"},
    },
    "tools": {
        "openai_chat": [{"type": "function", "function": FUNCTION}],
        "openai-responses": [{"type": "function", **FUNCTION}],
        "anthropic_messages": [{"name": "f", "input_schema": SCHEMA}],
    },
    "response_format": {"type": "json_schema", "json_schema": {"name": "o", "schema": SCHEMA}},
    **dict.fromkeys(("temperature", "top_p", "frequency_penalty", "presence_penalty"), 0.5),
    "inferenceConfig": {"maxTokens": 9},
    "toolConfig": {"tools": [{"toolSpec": {"name": "f", "inputSchema": {"json": SCHEMA}}}]},
    "outputConfig": {"effort": "low"},
    "requestMetadata": {"a": "b"},
    "additionalModelRequestFields": {"a": 1},
}


def published():
    """The names of the fields, from the SDKs' types and the service's own model."""
    kinds = {
        "openai_chat": (openai_chat.CompletionCreateParamsBase,),
        "openai-responses": (openai_responses.ResponseCreateParamsBase,),
        "anthropic_messages": (
            anthropic_messages.MessageCreateParamsBase,
            anthropic_beta.MessageCreateParamsBase,
        ),
    }
    for dialect, types in kinds.items():
        names = {name for kind in types for name in typing.get_type_hints(kind)}
        yield from ((dialect, name) for name in sorted(names | {"temperature", "top_p"}))
    service = botocore.session.get_session().get_service_model("bedrock-runtime")
    shape = service.operation_model("ConverseStream").input_shape
    yield from (("bedrock", name) for name in shape.members)


def asked(dialect, field):
    value = VALUES.get(field, "x")
    value = value[dialect] if isinstance(value, dict) and dialect in value else value
    tools = {"tools": VALUES["tools"][dialect]} if field in NEED_TOOLS else {}
    body = LEAST[dialect] | tools | ({} if field in OF_THE_DIALECT else {field: value})
    return CODECS[dialect].dialect.decode_request(json.dumps(body).encode()), body


PUBLISHED = list(published())


@pytest.mark.parametrize(("dialect", "field"), PUBLISHED)
def test_every_published_field_is_in_the_table(dialect, field):
    paths = TABLES[dialect].fields

    assert (
        field in OF_THE_DIALECT
        or any(path == field or path.startswith((f"{field}.", f"{field}[")) for path in paths)
        or field in ("stream_options", "toolConfig", "inferenceConfig", "outputConfig")
    )


@pytest.mark.parametrize("target", CODECS)
@pytest.mark.parametrize(("dialect", "field"), PUBLISHED)
def test_every_published_field_has_one_of_four_outcomes(dialect, field, target):
    request, body = asked(dialect, field)
    to = CODECS[target].dialect
    try:
        sent = json.loads(to.encode_request(request))
    except LocalProtocolError as error:
        assert dialect != target
        assert field in str(error)  # refused by name
        return
    omitted = to.omitted(request)
    if dialect == target:
        assert sent.get(field) == body.get(field)  # equal
        assert not any(path.startswith(field) for path in omitted)
        return
    said = any(path.startswith(field) for path in omitted)
    plain = json.loads(to.encode_request(asked(dialect, "model")[0]))
    limits = field in ("max_tokens", "max_completion_tokens", "max_output_tokens")
    assert said or limits or field in OF_THE_DIALECT or sent != plain  # omitted, or translated


def test_the_page_of_the_reference_is_the_generated_one():
    script = Path(__file__).parents[2] / "scripts" / "generate_fields.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
