"""Every provider keeps the contract, the contract notices who does not, and what each is told."""

import json

import msgspec
import pytest

from unbroken import Client
from unbroken.engine.policy import RecoveryPolicy
from unbroken.errors import AuthenticationFailed, NotFound
from unbroken.messages import Message, Request, Text, messages_from
from unbroken.providers import contract, registry
from unbroken.providers.base import BearerKey, Prefill, Provider
from unbroken.simulator.scenario import Fault, Scenario
from unbroken.simulator.transport import SimulatorTransport
from unbroken.wire.codec import Codec
from unbroken.wire.openai_chat.dialect import OpenAIChat, chat_codec
from unbroken.wire.openai_chat.writer import ChatWriter


@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", registry.names())
def test_a_provider_keeps_the_contract(name, check):
    check(registry.provider(name))


# Whoever does not keep it


class Keyless:
    env, required = "SOME_API_KEY", True

    def headers(self, _key, _request):
        return {}


class OnlyForQuestions(Keyless):
    def headers(self, key, request):
        return {"authorization": key} if request.method == "POST" else {}


class Forgetful(OpenAIChat, frozen=True):
    def encode_request(self, request):
        return super().encode_request(msgspec.structs.replace(request, seed=None))


class Deaf(OpenAIChat, frozen=True):
    def encode_request(self, request):
        return super().encode_request(
            msgspec.structs.replace(request, messages=request.messages[:1])
        )


class Mute(OpenAIChat, frozen=True):
    def encode_response(self, response, created=0):
        return super().encode_response(msgspec.structs.replace(response, usage=None), created)


class Calm(OpenAIChat, frozen=True):
    def decode_error(self, _status, _headers, _body):
        return NotFound("never mind", status=404)


class SilentWriter(ChatWriter):
    def fail(self, _error):
        return []


class Unfailing(OpenAIChat, frozen=True):
    def writer(self, request, created=0):
        return SilentWriter(request.n or 1, created, include_usage=True)


class Toolless(OpenAIChat, frozen=True):
    def encode_request(self, request):
        return super().encode_request(msgspec.structs.replace(request, tool_choice=None))


class Lumps:
    """A framing that gives nothing before the end."""

    def __init__(self):
        self.held = b""

    def feed(self, data):
        self.held += data
        return []

    def eof(self):
        self.held = b""
        return []


GOOD = Provider(
    name="good",
    base_url="https://api.good.example/v1",
    path="/chat/completions",
    auth=BearerKey("GOOD_API_KEY"),
    codec=chat_codec(),
    prefill=Prefill(),
)

BROKEN = {
    "check_it_says_where_it_is": {"base_url": "api.good.example/v1"},
    "check_it_can_be_asked_elsewhere": {"path": "/{nothing}/chat/completions"},
    "check_the_key_is_in_headers_only": {"auth": Keyless()},
    "check_the_models_are_asked_for": {"auth": OnlyForQuestions()},
    "check_a_question_is_understood": {"codec": chat_codec(Deaf())},
    "check_no_parameter_is_lost": {"codec": chat_codec(Forgetful())},
    "check_an_answer_streams": {"codec": Codec(Lumps, GOOD.codec.encode_frame, OpenAIChat())},
    "check_an_answer_comes_whole": {"codec": chat_codec(Mute())},
    "check_a_tool_is_called": {"codec": chat_codec(Toolless())},
    "check_a_cut_is_no_end": {"codec": chat_codec(OpenAIChat(implied_finish=True))},
    "check_a_status_is_an_error": {"codec": chat_codec(Calm())},
    "check_an_error_in_mid_stream_is_one": {"codec": chat_codec(Unfailing())},
    "check_a_begun_answer_goes_on": {"codec": chat_codec(Deaf())},
}


def test_a_good_provider_passes():
    contract.run(GOOD)


def test_every_check_has_a_provider_that_fails_it():
    assert set(BROKEN) == {check.__name__ for check in contract.CHECKS}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_provider_is_noticed(name):
    provider = msgspec.structs.replace(GOOD, **BROKEN[name])

    with pytest.raises(contract.Broken):
        getattr(contract, name)(provider)


def test_the_report_says_who_and_what():
    provider = msgspec.structs.replace(GOOD, auth=Keyless())

    with pytest.raises(contract.Broken, match=r"good: check_the_key.*makes no difference"):
        contract.run(provider)


# What each is told

WIRE = {
    "azure": (
        "https://r.openai.azure.com/openai/v1/chat/completions",
        "api-key",
        "max_completion_tokens",
    ),
    "gemini": (
        "https://generativelanguage.googleapis.com/v1beta/models/m:streamGenerateContent?alt=sse",
        "x-goog-api-key",
        "maxOutputTokens",
    ),
    "gemini-openai": (
        "https://generativelanguage.googleapis.com/v1beta/openai/chat/completions",
        "authorization",
        "max_tokens",
    ),
    "mistral": ("https://api.mistral.ai/v1/chat/completions", "authorization", "max_tokens"),
    "deepseek": ("https://api.deepseek.com/chat/completions", "authorization", "max_tokens"),
    "groq": (
        "https://api.groq.com/openai/v1/chat/completions",
        "authorization",
        "max_completion_tokens",
    ),
    "xai": ("https://api.x.ai/v1/chat/completions", "authorization", "max_completion_tokens"),
    "openrouter": (
        "https://openrouter.ai/api/v1/chat/completions",
        "authorization",
        "max_completion_tokens",
    ),
    "together": ("https://api.together.ai/v1/chat/completions", "authorization", "max_tokens"),
    "fireworks": (
        "https://api.fireworks.ai/inference/v1/chat/completions",
        "authorization",
        "max_tokens",
    ),
    "atlascloud": ("https://api.atlascloud.ai/v1/chat/completions", "authorization", "max_tokens"),
    "ollama": ("http://127.0.0.1:11434/v1/chat/completions", "authorization", "max_tokens"),
    "vllm": ("http://127.0.0.1:8000/v1/chat/completions", "authorization", "max_tokens"),
    "llamacpp": ("http://127.0.0.1:8080/v1/chat/completions", "authorization", "max_tokens"),
    "lmstudio": ("http://127.0.0.1:1234/v1/chat/completions", "authorization", "max_tokens"),
}
ENV = {"AZURE_OPENAI_ENDPOINT": "https://r.openai.azure.com/"}


def told(provider, request, key="secret"):
    http = provider.http_request(request, key, provider.located(ENV))
    return http, json.loads(http.body)


def question(model="m", *, begun="", **more):
    turn = (Message("assistant", (Text(begun),)),) if begun else ()
    return Request(model=model, messages=(Message("user", (Text("hi"),)), *turn), **more)


@pytest.mark.parametrize("name", WIRE)
def test_address_key_and_limit_are_written_as_the_provider_has_them(name):
    url, header, limit = WIRE[name]
    http, body = told(registry.provider(name), question(max_tokens=5))

    assert http.url == url
    assert http.headers[header] in {"secret", "Bearer secret"}
    fields = body | body.get("generationConfig", {})
    assert {key: value for key, value in fields.items() if value == 5} == {limit: 5}


def test_usage_is_asked_for_only_where_it_must_be():
    asked = {n: "stream_options" in told(registry.provider(n), question())[1] for n in WIRE}

    assert {name for name, asks in asked.items() if not asks} == {"gemini", "mistral", "openrouter"}


def test_mistral_has_another_name_for_the_seed():
    _, body = told(registry.provider("mistral"), question(seed=3))

    assert (body.get("random_seed"), body.get("seed")) == (3, None)


def test_deepseek_gets_the_thoughts_behind_tool_calls_back_and_nobody_else_does():
    """Its API refuses a turn that called tools without them, also if there were none
    (api-docs.deepseek.com/guides/thinking_mode, tool calls).
    """
    calling = [
        {"role": "user", "content": "How is Rome?"},
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "A city.",
            "tool_calls": [{"id": "1", "type": "function", "function": CALLED}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "sunny"},
        {"role": "assistant", "content": "Sunny.", "reasoning_content": "Not needed."},
        {"role": "user", "content": "And Oslo?"},
    ]
    turns = tuple(msgspec.structs.replace(m, native=None) for m in messages_from(calling))
    thoughtless = (turns[0], Message("assistant", turns[1].parts[1:]), *turns[2:])

    assert thoughts("deepseek", turns) == [None, "A city.", None, None, None]
    assert thoughts("deepseek", thoughtless) == [None, "", None, None, None]
    assert thoughts("openai", turns) == [None] * 5


CALLED = {"name": "get_weather", "arguments": '{"city":"Rome"}'}


def thoughts(name, turns):
    request = Request(model="m", messages=turns)
    _, body = told(registry.provider(name), request)
    return [message.get("reasoning_content") for message in body["messages"]]


CONTINUED = {"continue_final_message": True, "add_generation_prompt": False}


@pytest.mark.parametrize(
    ("name", "model", "path", "last", "body"),
    [
        ("mistral", "m", "/chat/completions", {"prefix": True}, {}),
        ("deepseek", "m", "/beta/chat/completions", {"prefix": True}, {}),
        ("groq", "llama-3.3-70b-versatile", "/openai/v1/chat/completions", {}, {}),
        ("ollama", "llama3.1:8b", "/chat/completions", {}, {}),
        ("vllm", "m", "/chat/completions", {}, CONTINUED),
        ("llamacpp", "m", "/chat/completions", {}, CONTINUED),
    ],
)
def test_a_begun_answer_is_marked_as_the_provider_wants_it(name, model, path, last, body):
    provider = registry.provider(name)
    http, sent = told(provider, question(model, begun="The sky"))
    _, plain = told(provider, question(model))

    assert provider.prefill.takes(model)
    assert http.url == provider.located(ENV) + path
    assert sent["messages"][-1] == {"role": "assistant", "content": "The sky"} | last
    assert {key: sent[key] for key in sent.keys() - plain.keys()} == body


@pytest.mark.parametrize(
    ("model", "goes_on"),
    [
        ("claude-3-5-haiku-20241022", True),
        ("claude-sonnet-4-20250514", True),
        ("claude-opus-4-0", True),
        ("claude-opus-4-1-20250805", True),
        ("claude-haiku-4-5", True),
        ("claude-sonnet-4-5-20250929", True),
        ("claude-sonnet-4-6", False),
        ("claude-opus-4-6-20260205", False),
        ("claude-opus-5-5", False),
        ("claude-haiku-5-5", False),
    ],
)
def test_claude_goes_on_up_to_4_5(model, goes_on):
    prefill = registry.provider("anthropic").prefill

    assert (prefill.takes(model), prefill.keeps_space) == (goes_on, False)


@pytest.mark.parametrize(
    "name", ["openai", "azure", "gemini", "xai", "openrouter", "together", "fireworks", "lmstudio"]
)
def test_who_is_not_known_to_go_on_does_not_claim_it(name):
    assert registry.provider(name).prefill is None


# In use, over the simulator's transport

SIMULATED = [
    name
    for name in registry.names()
    if name != "sim" and registry.provider(name).path.endswith("/chat/completions")
]
PLACES = {"azure": "https://r.openai.azure.com/openai/v1", "compatible": "https://c.example/v1"}


def client(scenario):
    transport = SimulatorTransport(scenario)
    return Client(transport=transport, api_key="sk-secret", base_url=PLACES), transport


@pytest.mark.parametrize("name", SIMULATED)
def test_an_answer_comes_streamed_and_whole(name):
    asking, provider = client(Scenario(text="The sky is blue."))

    streamed = "".join(asking.stream(f"{name}/m", "Why?").text)
    whole = asking.complete(f"{name}/m", "Why?")

    assert (streamed, whole.text, whole.provider) == ("The sky is blue.",) * 2 + (name,)
    assert [entry.ended for entry in provider.log] == ["whole", "whole"]


@pytest.mark.parametrize("name", SIMULATED)
def test_a_refused_key_is_not_shown(name):
    asking, _ = client(Scenario(faults=(Fault(kind="status", status=401),)))

    with pytest.raises(AuthenticationFailed) as caught:
        asking.complete(f"{name}/m", "Why?")

    assert f"{name}/m" in str(caught.value)
    assert "sk-secret" not in f"{caught.value} {caught.value!r} {vars(caught.value)}"


@pytest.mark.parametrize("name", [n for n in SIMULATED if registry.provider(n).prefill])
def test_a_cut_answer_is_gone_on_with(name):
    provider = registry.provider(name)
    text = "The sky is blue because the air scatters the short waves of light most of all."
    cut = Fault(kind="cut", events=6, times=1)
    how = "echo" if provider.prefill.echoes else "exact"
    asking, simulator = client(Scenario(text=text, faults=(cut,), prefill=how))
    model = provider.prefill.models[0].replace("*", "-1")

    stream = asking.stream(f"{name}/{model}", "Why?", recovery=RecoveryPolicy(on_cut="continue"))

    assert "".join(stream.text) == text
    assert len(simulator.log) == 2
    assert simulator.log[1].path.endswith(provider.prefill.path or provider.path)


KEYED = [name for name in registry.names() if registry.provider(name).auth.required]


@pytest.mark.parametrize("name", KEYED)
def test_a_missing_key_is_named(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # no .env of the developer's
    monkeypatch.delenv(registry.provider(name).auth.env, raising=False)

    with pytest.raises(AuthenticationFailed, match=registry.provider(name).auth.env):
        Client(base_url=PLACES).stream(f"{name}/m", "Why?")


MOVED = [name for name in SIMULATED if registry.provider(name).base_url_env]


@pytest.mark.parametrize("name", MOVED)
def test_the_variable_of_the_address_is_believed(name, monkeypatch):
    provider, simulator = registry.provider(name), SimulatorTransport()
    monkeypatch.setenv(provider.base_url_env, "http://moved.example/there/")

    Client(transport=simulator, api_key="k").complete(f"{name}/m", "Why?")

    assert [entry.path for entry in simulator.log] == [f"/there{provider.path}"]
