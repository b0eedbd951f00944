"""The behaviour that every provider shows, as checks to be run on any of them.

    contract.run(PROVIDER)

or one by one: each of `CHECKS` is a function that takes a provider and raises Broken if it does
otherwise. Nothing is sent: the simulator's player answers in the provider's own dialect. So what
is checked is the value, and that both directions of its dialect agree; whether the real server
speaks that dialect, only the real server can tell. No key and no test framework is needed.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from unbroken.errors import (
    ConfigurationError,
    LocalProtocolError,
    Overloaded,
    StreamTruncated,
    error_class,
)
from unbroken.events import (
    Event,
    MessageEnd,
    MessageStart,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    UsageReport,
)
from unbroken.messages import Message, Request, Text, Tool, ToolChoice
from unbroken.providers.base import Provider
from unbroken.simulator.player import play
from unbroken.simulator.scenario import Scenario
from unbroken.simulator.steps import Send
from unbroken.transport.base import HttpRequest

Check = Callable[[Provider], None]

KEY = "the-key-of-the-contract"
ELSEWHERE = "https://elsewhere.example/base"
TEXT = 'Seven colours: é, 漢, 🌈.\n"Red" is the first, and\tviolet the last.'


class Broken(AssertionError):
    """The provider does not keep the contract."""


def run(provider: Provider) -> None:
    """All checks, one after the other; the first that fails says what it found."""
    for check in CHECKS:
        try:
            check(provider)
        except Broken as error:
            raise Broken(f"{provider.name}: {check.__name__}: {error}") from error


def _equal(found: object, expected: object) -> None:
    if found != expected:
        raise Broken(f"found {found!r}, expected {expected!r}")


def _true(held: object, fault: str) -> None:
    if not held:
        raise Broken(fault)


# Asking


def _asked(text: str = "What is a rainbow?", **more: Any) -> Request:
    return Request(model="a-model", messages=(Message("user", (Text(text),)),), **more)


def _http(provider: Provider, request: Request, key: str = KEY) -> HttpRequest:
    return provider.http_request(request, key, ELSEWHERE)


def _read_back(provider: Provider, request: Request) -> Request:
    """The request as the other side understands it; some are told the model by the path."""
    read = provider.codec.dialect.decode_request(_http(provider, request).body)
    return msgspec.structs.replace(read, model=request.model, stream=request.stream)


def check_it_says_where_it_is(provider: Provider) -> None:
    """Its address is a URL once the environment has said what it must; else that is named."""
    places = re.findall(r"\{(.+?)\}", provider.base_url)
    variables = [name for place in places for name in place.split("|")]
    said = "https://place.example/" if provider.base_url.startswith("{") else "place"
    found = provider.located(dict.fromkeys(variables, said))
    _true(found.startswith(("https://", "http://")) or provider.base_url_env, f"it is at {found!r}")
    _true("//" not in found.partition("://")[2], f"there is a slash too many in {found!r}")
    for path in filter(None, (provider.path, provider.whole_path, provider.models_path)):
        _true(path.startswith("/"), f"the path {path!r} does not begin with a slash")
    if variables:
        _missing_is_named(provider, variables)


def _missing_is_named(provider: Provider, variables: list[str]) -> None:
    try:
        found = provider.located({})
    except ConfigurationError as error:
        _true(any(name in str(error) for name in variables), f"{error} names no variable")
    else:
        raise Broken(f"without {variables} it is at {found!r}")


def check_it_can_be_asked_elsewhere(provider: Provider) -> None:
    """A base URL moves every request, with or without a slash at its end."""
    request = _asked()
    http = provider.http_request(request, KEY, f"{ELSEWHERE}/")
    _equal(http.url, _http(provider, request).url)
    _true(http.url.startswith(f"{ELSEWHERE}/"), f"asked at {http.url}")
    _equal(http.method, "POST")
    _equal(http.headers.get("content-type"), "application/json")
    _equal(http.headers.get("accept"), provider.codec.content_type)
    _true("{" not in http.url, f"something is not filled in: {http.url}")


def check_the_key_is_in_headers_only(provider: Provider) -> None:
    """Where a key is needed it makes a difference, and in the headers alone."""
    if not provider.auth.required:
        return
    one, other = (_http(provider, _asked(), key) for key in (KEY, "another-key"))
    _true(one.headers != other.headers, "the key makes no difference")
    _equal((one.url, one.body), (other.url, other.body))
    _true(KEY not in one.url and KEY.encode() not in one.body, "the key is in the URL or the body")
    _true(KEY not in repr(one), "the key is in the repr of the request")
    _true(provider.auth.env.isupper(), f"the key's variable is {provider.auth.env!r}")


def check_the_models_are_asked_for(provider: Provider) -> None:
    """The list of models is a GET at the same place, with the same key."""
    if not provider.models_path:
        return
    http = provider.models_request(KEY, ELSEWHERE)
    _equal((http.method, http.body), ("GET", b""))
    _true(http.url.startswith(ELSEWHERE), f"asked at {http.url}")
    shown = {name: value for name, value in http.headers.items() if KEY in value}
    _equal(shown, {n: v for n, v in _http(provider, _asked()).headers.items() if KEY in v})


_TOOL = Tool("weather", "The weather in a city", {"type": "object", "properties": {}})


def check_a_question_is_understood(provider: Provider) -> None:
    """Messages, tools and the stream are read back as they were meant."""
    told = (Message("system", (Text("Be brief."),)), *_asked().messages)
    request = msgspec.structs.replace(
        _asked(max_tokens=777, temperature=0.5, tools=(_TOOL,)), messages=told
    )
    read = _read_back(provider, request)
    _equal([(m.role, m.parts) for m in read.messages], [(m.role, m.parts) for m in told])
    for name in ("max_tokens", "temperature"):
        _equal((name, getattr(read, name)), (name, getattr(request, name)))
    _equal([tool.name for tool in read.tools or ()], ["weather"])
    for stream in (True, False):
        http = _http(provider, _asked(stream=stream))
        there = "a-model" in http.url or b'"a-model"' in http.body
        _true(there, "the model is neither in the URL nor in the body")


_PARAMETERS: Mapping[str, Any] = {
    "max_tokens": 777,
    "temperature": 0.375,
    "top_p": 0.625,
    "top_k": 41,
    "stop": ("FIN",),
    "seed": 90210,
    "n": 3,
    "frequency_penalty": 0.875,
    "presence_penalty": 0.125,
    "top_logprobs": 4,
    "reasoning_effort": "medium",
    "user": "customer-seven",
    "extra": {"their_own_field": 1},
}


def check_no_parameter_is_lost(provider: Provider) -> None:
    """What is asked for is in the body, is reported as omitted, or raises LocalProtocolError."""
    for name, value in _PARAMETERS.items():
        try:
            http = _http(provider, _asked(**{name: value}))
        except LocalProtocolError:
            continue
        if name in http.omitted:
            continue
        body = http.body
        said = next(iter(value)) if isinstance(value, dict | tuple) else value
        _true(str(said).encode() in body, f"{name}={value!r} is not in {body!r}")


# Answering


def _bytes(provider: Provider, request: Request, scenario: Scenario) -> bytes:
    """What the simulator answers, in the provider's own dialect."""
    steps = play(_read_back(provider, request), provider.codec, scenario, 1)
    return b"".join(step.data for step in steps if isinstance(step, Send))


def _heard(provider: Provider, request: Request, body: bytes, size: int = 0) -> list[Event]:
    """The events of a body that comes in pieces of that size."""
    decoder = provider.codec.decoder(request)
    pieces = [body[at : at + size] for at in range(0, len(body), size)] if size else [body]
    events = [event for piece in pieces for event in decoder.feed(piece)]
    if not decoder.done:
        events += decoder.eof()
    _true(decoder.error is None, f"the answer is an error: {decoder.error}")
    return events


def _text(events: Iterable[Event]) -> str:
    return "".join(event.text for event in events if type(event) is TextDelta)


def _scenario(text: str | None = TEXT) -> Scenario:
    return Scenario(ttft=0, tps=0, text=text)


def check_an_answer_streams(provider: Provider) -> None:
    """Start, text, usage and end arrive, and the same ones however the bytes are cut."""
    request = _asked(stream=True)
    body = _bytes(provider, request, _scenario())
    events = _heard(provider, request, body)
    _whole_answer(events)
    _true(sum(type(event) is TextDelta for event in events) > 1, "the text came in one piece")
    for size in (1, 7):
        _equal(_heard(provider, request, body, size), events)


def check_an_answer_comes_whole(provider: Provider) -> None:
    """An answer that does not stream says the same."""
    request = _asked(stream=False)
    _whole_answer(_heard(provider, request, _bytes(provider, request, _scenario())))


def _whole_answer(events: list[Event]) -> None:
    _equal(_text(events), TEXT)
    kinds = [type(event) for event in events]
    _equal((kinds.count(MessageStart), kinds.count(MessageEnd)), (1, 1))
    end = next(event for event in events if isinstance(event, MessageEnd))
    _equal(end.finish_reason, "stop")
    reports = [event.usage for event in events if isinstance(event, UsageReport)]
    _true(reports and reports[-1].output_tokens > 0, "no usage is reported")


def check_a_tool_is_called(provider: Provider) -> None:
    """Name, id and arguments of a call arrive, streamed and whole."""
    for stream in (True, False):
        request = _asked(stream=stream, tools=(_TOOL,), tool_choice=ToolChoice("required"))
        events = _heard(provider, request, _bytes(provider, request, _scenario(None)))
        opened = [event for event in events if isinstance(event, ToolCallStart)]
        _equal([event.name for event in opened], ["weather"])
        _true(opened[0].id, "the call has no id")
        said = "".join(e.arguments for e in events if isinstance(e, ToolCallDelta))
        _true(isinstance(msgspec.json.decode(said or "{}"), dict), f"arguments {said!r}")
        ends = [event.finish_reason for event in events if isinstance(event, MessageEnd)]
        _equal(ends, ["tool_calls"])


def check_a_cut_is_no_end(provider: Provider) -> None:
    """A body that stops in mid-answer is never taken for a whole one."""
    request = _asked(stream=True)
    body = _bytes(provider, request, _scenario())
    for cut in range(0, len(body) // 2, 97):
        try:
            events = _heard(provider, request, body[:cut])
        except StreamTruncated:
            continue
        _true(MessageEnd not in map(type, events), f"an end after {cut} of {len(body)} bytes")
        _true(TEXT.startswith(_text(events)), f"other text after {cut} bytes")


def check_a_status_is_an_error(provider: Provider) -> None:
    """Each status has its class, with the message and the wait that the provider asks for."""
    dialect = provider.codec.dialect
    for status in (400, 401, 403, 404, 429, 500, 503, 529):
        kind = error_class(status)
        body = dialect.encode_error(kind("no, because of rain", status=status))
        error = dialect.decode_error(status, {"retry-after": "7"}, body)
        _equal((status, type(error), error.status), (status, kind, status))
        _true("because of rain" in str(error), f"the message is not in {error}")
        _equal(error.retry_after, 7.0)
    page = dialect.decode_error(502, {}, b"<html>Bad gateway</html>")
    _true(page.retryable, "a proxy's page for a 502 is not retried")


def check_an_error_in_mid_stream_is_one(provider: Provider) -> None:
    """What a stream says of its own failure is found, and may be retried."""
    request = _asked(stream=True)
    codec = provider.codec
    frames = codec.dialect.writer(request).fail(Overloaded("too much rain", status=529))
    decoder = codec.decoder(request)
    events = decoder.feed(b"".join(map(codec.encode_frame, frames)))
    _true(decoder.error is not None and decoder.error.retryable, f"heard {events}")


def check_a_begun_answer_goes_on(provider: Provider) -> None:
    """A provider that says so is given the beginning as it wants it, and says the rest."""
    if provider.prefill is None:
        return
    begun, rest = TEXT[:30], TEXT[30:]
    for pattern in provider.prefill.models:
        model = pattern.replace("*", "1")
        _true(provider.prefill.takes(model), f"{pattern!r} does not fit {model!r}")
        asked = msgspec.structs.replace(_asked(stream=True), model=model)
        turn = Message("assistant", (Text(begun),))
        request = msgspec.structs.replace(asked, messages=(*asked.messages, turn))
        path = provider.prefill.path or provider.path
        _equal(_http(provider, request).url, ELSEWHERE + path.replace("{model}", model))
        _equal(_read_back(provider, request).partial_turn, begun)
        _equal(_text(_heard(provider, request, _bytes(provider, request, _scenario()))), rest)


CHECKS: tuple[Check, ...] = tuple(
    check for name, check in list(globals().items()) if name.startswith("check_")
)
