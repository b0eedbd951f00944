"""The simulator: deterministic, plausible, and continued where an answer was cut."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken import Client
from unbroken.errors import BadRequest
from unbroken.simulator import fake_text
from unbroken.simulator.rng import Rng
from unbroken.simulator.scenario import PACES, Fault, Scenario, load, pace_of, parse
from unbroken.simulator.server import YOUNGEST
from unbroken.simulator.steps import End, Reset
from unbroken.simulator.transport import SimulatorTransport


def ask(prompt="Tell me about cats.", model="demo", **given):
    client = Client(api_key="k", transport=SimulatorTransport())
    return client.complete(f"sim/{model}", prompt, **given)


@given(st.text(max_size=60), st.integers(0, 300))
def test_pieces_joined_are_the_text_again(prompt, tokens):
    text = "".join(fake_text.answer(prompt, "seed", tokens))

    assert "".join(fake_text.pieces(text)) == text
    assert len(fake_text.pieces(text)) <= max(tokens, 1)


def test_the_same_question_has_the_same_answer_and_another_has_another():
    assert ask().text == ask().text
    assert ask().text != ask("Tell me about dogs.").text
    assert ask().text != ask(seed=4).text


def test_the_answer_is_about_the_question():
    assert "SYN" in ask("Explain the TCP handshake in 3 sentences.").text
    assert "zebra" in ask("What of the zebra?").text.lower()


def test_sentences_come_in_pieces():
    answer = ask("Describe zebras in 2 sentences.")

    assert answer.usage.output_tokens == len(fake_text.pieces(answer.text)) > 20


def test_a_number_of_sentences_is_kept_to():
    assert ask("Describe zebras in 2 sentences.").text.count(".") == 2


@given(st.integers(0, 400), st.sampled_from(["sim/demo", "anthropic/claude-haiku-5-5"]))
def test_a_cut_answer_goes_on_exactly_where_it_was(at, model):
    client = Client(api_key="k", transport=SimulatorTransport())
    question = {"role": "user", "content": "Tell me about cats."}
    whole = client.complete(model, [question]).text
    begun = whole[:at]

    turns = [question, {"role": "assistant", "content": begun}] if begun else [question]

    assert begun + client.complete(model, turns).text == whole if begun != whole else True


def test_stop_sequences_and_limits_are_honoured():
    whole = ask().text
    word = whole.split()[9]

    assert word not in ask(stop=word).text
    assert ask(max_tokens=4).finish_reason == "length"
    assert len(fake_text.pieces(ask(max_tokens=4).text)) == 4


PARK = {
    "name": "find_park",
    "parameters": {
        "type": "object",
        "properties": {
            "kind": {"enum": ["small", "large"]},
            "near": {"type": "array", "items": {"type": "string"}},
            "size": {"type": "number"},
            "open": {"type": "boolean"},
        },
    },
}


def test_a_tool_is_called_with_arguments_that_fit_its_schema():
    call = ask("Where is a park?", tools=[PARK]).tool_calls[0]

    assert call.arguments["kind"] in ("small", "large")
    assert isinstance(call.arguments["near"][0], str)
    assert isinstance(call.arguments["size"], float)
    assert isinstance(call.arguments["open"], bool)


@pytest.mark.parametrize(
    ("choice", "calls"), [("none", 0), ("auto", 0), ("required", 1), ("find_park", 1)]
)
def test_the_tool_choice_is_honoured(choice, calls):
    assert len(ask("Hello there.", tools=[PARK], tool_choice=choice).tool_calls) == calls


def test_after_the_result_comes_an_answer():
    turns = [
        {"role": "user", "content": "Where is a park?"},
        {
            "role": "assistant",
            "tool_calls": [{"id": "c", "function": {"name": "find_park", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "Borghese"},
    ]

    assert "borghese" in ask(turns, tools=[PARK]).text.lower()


def test_the_paces_are_those_of_the_published_table():
    rng = [PACES["gpt-4o"].first(Rng(str(n))) for n in range(4000)]

    assert sorted(rng)[2000] == pytest.approx(0.38, rel=0.05)
    assert sorted(rng)[3800] == pytest.approx(0.90, rel=0.08)
    assert pace_of("gpt-4o-mini-2024").tps == 110


def test_a_scenario_is_read_from_a_query():
    scenario = parse("ttft=0.2&tps=80&fault=cut:events=20,how=eof&fault=status:status=429,times=1")

    assert scenario.ttft == 0.2
    assert scenario.faults == (
        Fault(kind="cut", events=20, how="eof"),
        Fault(kind="status", status=429, times=1),
    )


@pytest.mark.parametrize(
    ("query", "named"),
    [("speed=3", "speed"), ("ttft=soon", "ttft"), ("fault=melt", "melt"), ("fault=cut:at=3", "at")],
)
def test_a_wrong_scenario_is_refused_by_name(query, named):
    with pytest.raises(BadRequest, match=named):
        parse(query)


def test_a_scenario_file_is_toml_by_model():
    scenarios = load('[demo]\nttft = 0.5\n[[demo.faults]]\nkind = "cut"\nwords = 3\n')

    assert scenarios["demo"].faults == (Fault(kind="cut", words=3),)


def test_a_header_chooses_the_scenario():
    transport = SimulatorTransport()
    request = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    headers = {"x-unbroken-scenario": "fault=status:status=418"}

    _, entry = transport.server.answer(
        "/v1/chat/completions", headers, msgspec.json.encode(request)
    )
    steps, _ = transport.server.answer("/v1/nowhere", {}, b"")

    assert entry.model == "m"
    assert next(steps).status == 404


def test_every_answer_is_labelled_as_simulated():
    transport = SimulatorTransport()
    body = msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": "x"}]})

    steps, _ = transport.server.answer("/v1/chat/completions", {}, body)

    assert all(s.headers["x-simulated"] == "unbroken" for s in steps if hasattr(s, "headers"))


def test_the_log_holds_the_youngest_requests_and_short_names():
    transport = SimulatorTransport()
    for _ in range(YOUNGEST + 10):
        transport.server.answer("/v1/models", {}, b"")
    with Client(transport=transport) as client:
        client.complete(f"sim/{'z' * 5000}?tokens=3", "Hi")

    assert len(transport.log) == YOUNGEST
    assert [entry.ended for entry in transport.log[-2:]] == ["open", "whole"]
    assert set(transport.log[-1].model) == {"z"}
    assert len(transport.log[-1].model) < 500


def test_names_are_counted_for_faults_but_not_without_end():
    transport = SimulatorTransport(Scenario(tokens=1, faults=(Fault(kind="cut", times=1),)))
    ask = [{"role": "user", "content": "x"}]

    def ends(model):
        body = msgspec.json.encode({"model": model, "messages": ask, "max_tokens": 1})
        return list(transport.server.answer("/v1/chat/completions", {}, body)[0])[-1]

    first = [type(ends("m")) for _ in range(2)]
    for n in range(YOUNGEST):
        ends(f"m{n}")

    assert first == [Reset, End]
    assert len(transport.server._counts) <= YOUNGEST


@pytest.mark.parametrize("model", ["openai/demo", "anthropic/demo"])
def test_only_a_dialect_that_keeps_answers_keeps_one(model):
    with Client(api_key="k", transport=SimulatorTransport()) as client:
        assert client.complete(model, "Hi", extra={"background": True}).end == "complete"
