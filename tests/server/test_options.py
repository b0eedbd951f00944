"""What a request may say to the gateway, and what it may not say past it."""

import msgspec
import pytest

from unbroken.errors import BadRequest
from unbroken.server.admission import Models
from unbroken.server.options import MAX_FALLBACKS, MAX_KEY, check_key, split_options
from unbroken.server.settings import Settings
from unbroken.wire import anthropic_messages, openai_chat, openai_responses

ASK = [{"role": "user", "content": "asked"}]
BODIES = [
    (anthropic_messages.CODEC, {"model": "openai/m", "max_tokens": 10, "messages": ASK}),
    (openai_responses.CODEC, {"model": "openai/m", "max_output_tokens": 10, "input": "asked"}),
    (openai_chat.CODEC, {"model": "openai/m", "max_tokens": 10, "messages": ASK}),
]
SMUGGLED = {
    "stream_options": {"include_usage": False},
    "messages": [{"role": "user", "content": "smuggled"}],
    "input": "smuggled",
    "n": 100,
    "max_completion_tokens": 10**9,
    "inferenceConfig": {"maxTokens": 10**9},
}


@pytest.mark.parametrize(("codec", "body"), BODIES, ids=("messages", "responses", "chat"))
@pytest.mark.parametrize("name", SMUGGLED)
def test_a_field_of_another_dialect_replaces_nothing_that_we_write(codec, body, name):
    if name in body or (codec is openai_chat.CODEC and name in ("n", "max_completion_tokens")):
        pytest.skip("it is a field of this dialect")
    asked = codec.dialect.decode_request(msgspec.json.encode(body | {name: SMUGGLED[name]}))
    _, kept = split_options(msgspec.structs.replace(asked, stream=True, include_usage=True))
    sent = msgspec.json.decode(openai_chat.CODEC.dialect.encode_request(kept))

    assert sent["stream_options"] == {"include_usage": True}
    assert sent["messages"][-1]["content"] == "asked"
    assert sent.get("n", 1) == 1
    limits = {sent.get("max_tokens"), sent.get("max_completion_tokens")}
    assert limits == {None, 10}
    if codec is not openai_chat.CODEC:  # within a dialect, unknown fields travel
        assert not sent.keys() & {"input", "inferenceConfig"}


def test_no_field_chooses_a_model_past_the_list():
    with pytest.raises(BadRequest, match="fallbacks"):
        Models(Settings(models=["openrouter/cheap"]), (), {}).check_fields({"models": ["dear"]})

    Models(Settings(), (), {}).check_fields({"models": ["dear"]})


def test_keys_and_fallbacks_are_bounded():
    body = {"model": "m", "messages": ASK, "fallbacks": ["m"] * (MAX_FALLBACKS + 1)}
    asked = openai_chat.CODEC.dialect.decode_request(msgspec.json.encode(body))

    assert check_key("k" * MAX_KEY)
    with pytest.raises(BadRequest, match="Idempotency-Key"):
        check_key("k" * (MAX_KEY + 1))
    with pytest.raises(BadRequest, match="fallbacks"):
        split_options(asked)
