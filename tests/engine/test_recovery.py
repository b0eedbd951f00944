"""Promise 1 over the virtual clock: any cuts, any policy; the text of one answer, or the truth."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unbroken import AsyncClient, Client, RecoveryPolicy, Timeouts
from unbroken.errors import StreamInterrupted, UnbrokenError
from unbroken.events import (
    MessageEnd,
    MessageStart,
    Restarted,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
)
from unbroken.simulator.scenario import Fault, Scenario
from unbroken.simulator.transport import AsyncSimulatorTransport, SimulatorTransport

PROMPT = "Explain the TCP handshake."
WEATHER = {
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}

faults = st.one_of(
    st.builds(
        Fault,
        kind=st.just("cut"),
        bytes=st.integers(0, 9000),
        how=st.sampled_from(["reset", "close", "eof"]),
        times=st.integers(0, 3),
    ),
    st.builds(
        Fault,
        kind=st.just("status"),
        status=st.sampled_from([400, 401, 408, 429, 500, 503, 529]),
        times=st.integers(0, 3),
    ),
    st.builds(
        Fault,
        kind=st.sampled_from(["stall", "error"]),
        events=st.integers(1, 30),
        seconds=st.sampled_from([3.0, 90.0]),
        keepalive=st.booleans(),
        times=st.integers(0, 3),
    ),
    st.builds(Fault, kind=st.sampled_from(["split", "refuse", "silent"]), times=st.integers(0, 2)),
)
scenarios = st.builds(
    Scenario,
    ttft=st.sampled_from([0.1, 5.0, 30.0]),
    tokens=st.integers(1, 40),
    prefill=st.sampled_from(["exact", "refuse"]),
    faults=st.lists(faults, max_size=3).map(tuple),
)
policies = st.builds(
    RecoveryPolicy,
    on_cut=st.sampled_from(["auto", "continue", "replay", "raise"]),
    attempts=st.integers(1, 5),
    allow_restart=st.booleans(),
)
models = st.sampled_from(["openai/a", "anthropic/claude-sonnet-4-5", "sim/a"])


def delivered(events):
    """The text as a caller has it who minds `Restarted`."""
    text = ""
    for event in events:
        if isinstance(event, Restarted):
            text = ""
        elif isinstance(event, TextDelta):
            text += event.text
    return text


def run(transport, model, **given):
    client = Client(api_key="k", transport=transport)
    stream = client.stream(model, PROMPT, **given)
    events, error = [], None
    try:
        with stream:
            events.extend(stream)
    except UnbrokenError as caught:
        error = caught
    return stream.response, events, error


def uncut(scenario, model):
    calm = Scenario(ttft=0.0, tokens=scenario.tokens)
    return run(SimulatorTransport(calm), model)[0].text


@settings(max_examples=300, deadline=None)
@given(scenarios, policies, models)
def test_the_text_is_that_of_an_uncut_answer_or_the_error_carries_exactly_it(
    scenario, policy, model
):
    transport = SimulatorTransport(scenario)
    response, events, error = run(transport, model, recovery=policy)
    text, whole = delivered(events), uncut(scenario, model)

    assert len(transport.log) == len(response.attempts) <= policy.attempts
    assert response.text == text
    assert whole.startswith(text)
    assert sum(isinstance(event, MessageStart) for event in events) <= 1 + policy.allow_restart * 9
    if error is None:
        assert text == whole
        assert isinstance(events[-1], MessageEnd)
    else:
        assert error.response == response
        assert isinstance(error, StreamInterrupted) == bool(text)


@settings(max_examples=100, deadline=None)
@given(scenarios, policies, models)
def test_both_clients_recover_alike(scenario, policy, model):
    async def gather():
        transport = AsyncSimulatorTransport(scenario)
        client = AsyncClient(api_key="k", transport=transport)
        stream, events = client.stream(model, PROMPT, recovery=policy), []
        try:
            async with stream:
                async for event in stream:
                    events.append(event)
        except UnbrokenError as error:
            return events, type(error)
        return events, None

    _, events, error = run(SimulatorTransport(scenario), model, recovery=policy)
    kinds, failure = asyncio.run(gather())

    assert [type(event) for event in kinds] == [type(event) for event in events]
    assert failure == (None if error is None else type(error))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 6000), min_size=1, max_size=8), models)
def test_every_answer_whose_provider_comes_back_is_recovered(cuts, model):
    """One request after the other is cut somewhere; the last is well."""
    transport = Cutting(cuts)
    policy = RecoveryPolicy(attempts=len(cuts) + 1, max_elapsed=None)
    response, events, error = run(transport, model, recovery=policy)

    assert error is None
    assert delivered(events) == response.text == uncut(Scenario(tokens=40), model)


class Cutting(SimulatorTransport):
    """Each request is cut at its own byte, until they are used up."""

    def __init__(self, cuts):
        super().__init__(Scenario(tokens=40))
        self._cuts = list(cuts)

    def open(self, request, deadlines):
        fault = (Fault(kind="cut", bytes=self._cuts.pop(0)),) if self._cuts else ()
        self.server._scenarios["*"] = Scenario(tokens=40, faults=fault)
        return super().open(request, deadlines)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 30), st.sampled_from(["openai/a", "anthropic/a", "sim/a"]))
def test_the_arguments_of_a_call_come_from_one_attempt(at, model):
    cut = Scenario(faults=(Fault(kind="cut", events=at, times=1),))
    well, _, _ = run(SimulatorTransport(Scenario()), model, tools=[WEATHER], tool_choice="required")
    response, events, error = run(
        SimulatorTransport(cut), model, tools=[WEATHER], tool_choice="required"
    )
    starts = [event for event in events if isinstance(event, ToolCallStart)]
    arguments = "".join(e.arguments for e in events if isinstance(e, ToolCallDelta))

    assert error is None
    assert [call.arguments for call in response.tool_calls] == [
        call.arguments for call in well.tool_calls
    ]
    assert len(starts) == len(well.tool_calls)
    assert arguments.startswith("{")


def test_a_call_that_is_cut_is_never_executable_when_nothing_more_comes():
    cut = Scenario(faults=(Fault(kind="cut", events=3),))
    response, _, error = run(
        SimulatorTransport(cut), "openai/a", tools=[WEATHER], tool_choice="required"
    )

    assert isinstance(error, StreamInterrupted)
    assert response.tool_calls == ()
    assert len(response.partial_tool_calls) == 1


def test_usage_and_cost_are_those_of_all_attempts():
    cut = Scenario(tokens=40, faults=(Fault(kind="cut", events=20, times=1),))
    response, events, _ = run(SimulatorTransport(cut), "anthropic/claude-haiku-4-5")
    first, second = response.attempts

    assert first.usage.source == "partial"  # what message_start said
    assert response.usage.input_tokens == first.usage.input_tokens + second.usage.input_tokens
    assert response.usage.source == "partial"  # nobody knows what the cut one wrote
    assert events[-1].usage == response.usage
    assert response.cost == pytest.approx(first.cost + second.cost)


def test_a_shape_or_two_choices_are_not_continued_but_replayed():
    cut = Scenario(tokens=40, faults=(Fault(kind="cut", events=20, times=1),))
    shaped = {"response_format": {"type": "json_object"}}
    for given_ in (shaped, {"n": 2}):
        response, _, error = run(SimulatorTransport(cut), "sim/a", **given_)
        assert error is None
        assert [a.how for a in response.attempts] == ["start", "replay"]


def test_an_answer_is_continued_by_prompt_unless_that_is_forbidden():
    cut = Scenario(text="one two three four", faults=(Fault(kind="cut", words=2, times=1),))
    response, _, _ = run(
        SimulatorTransport(cut), "openai/a", recovery=RecoveryPolicy(on_cut="continue")
    )
    forbidden = RecoveryPolicy(on_cut="continue", continue_by_prompt=False)
    kept, _, error = run(SimulatorTransport(cut), "openai/a", recovery=forbidden)

    assert [a.how for a in response.attempts] == ["start", "prompt"]
    assert response.text == "one two three four"
    assert isinstance(error, StreamInterrupted)
    assert len(kept.attempts) == 1


@pytest.mark.parametrize("same", [{"temperature": 0}, {"seed": 7}])
def test_what_can_be_expected_again_is_replayed(same):
    cut = Scenario(tokens=40, faults=(Fault(kind="cut", events=20, times=1),))
    response, _, _ = run(SimulatorTransport(cut), "openai/a", **same)

    assert [a.how for a in response.attempts] == ["start", "replay"]


def test_a_thinking_model_is_continued_by_prompt():
    cut = Scenario(tokens=40, faults=(Fault(kind="cut", events=20, times=1),))
    response, _, error = run(SimulatorTransport(cut), "sim/a", reasoning_effort="low")

    assert error is None
    assert [a.how for a in response.attempts] == ["start", "prompt"]


def test_a_limit_of_tokens_holds_over_the_seam():
    cut = Scenario(tokens=100, faults=(Fault(kind="cut", events=20, times=1),))
    response, _, _ = run(SimulatorTransport(cut), "sim/a", max_tokens=50)

    assert (
        response.text
        == run(SimulatorTransport(Scenario(tokens=100)), "sim/a", max_tokens=50)[0].text
    )
    assert response.finish_reason == "length"


def test_reasoning_that_was_cut_is_not_heard_twice():
    cut = Scenario(tokens=20, faults=(Fault(kind="cut", events=2, times=1),))
    response, _, error = run(SimulatorTransport(cut), "openai/reason")
    well, _, _ = run(SimulatorTransport(Scenario(tokens=20)), "openai/reason")

    assert error is None
    assert response.text == well.text
    assert response.reasoning == well.reasoning


def test_the_total_clock_bounds_all_attempts_together():
    cut = Scenario(ttft=4.0, faults=(Fault(kind="cut", events=2),))
    transport = SimulatorTransport(cut)
    policy = RecoveryPolicy(attempts=50, max_elapsed=None)
    begin = transport.now()
    _, _, error = run(transport, "sim/a", recovery=policy, timeouts=Timeouts(total=20))

    assert isinstance(error, StreamInterrupted)
    assert transport.now() - begin <= 20


@given(st.integers(1, 38), st.sampled_from(["openai/a", "anthropic/a", "sim/a"]))
def test_another_process_goes_on_with_what_is_left_of_an_answer(at, model):
    """As after a kill: the events were stored, the process and its connection are gone."""
    transport = SimulatorTransport(Scenario(tokens=40))
    _, before, _ = run(transport, model)
    kept = [event for event in before if not isinstance(event, MessageStart)][:at]
    other = Client(api_key="k", transport=transport)
    with other.resume(kept, model, PROMPT) as stream:
        after = list(stream)

    assert delivered(kept) + delivered(after) == delivered(before) == stream.response.text
    assert isinstance(after[-1], MessageEnd)


def test_an_answer_that_can_not_go_on_is_interrupted_with_what_was_left():
    client = Client(api_key="k", transport=SimulatorTransport())
    kept = [TextDelta("one"), TextDelta(" two")]
    with client.resume(kept, "sim/a", PROMPT, recovery=RecoveryPolicy(on_cut="raise")) as stream:
        with pytest.raises(StreamInterrupted) as caught:
            list(stream)

    assert caught.value.response.text == "one two"


@given(st.lists(st.integers(3, 40), min_size=2, max_size=4))
def test_a_limit_of_tokens_holds_over_many_seams(cuts):
    """Each request is cut after so many pieces; the limit counts what came before all of them."""

    class Again(SimulatorTransport):
        def open(self, request, deadlines):
            at = cuts[len(self.log)] if len(self.log) < len(cuts) else None
            fault = () if at is None else (Fault(kind="cut", events=at),)
            self.server._scenarios["*"] = Scenario(tokens=200, faults=fault)
            return super().open(request, deadlines)

    policy = RecoveryPolicy(attempts=9)
    response, _, error = run(Again(), "sim/a", max_tokens=60, recovery=policy)
    whole, _, _ = run(SimulatorTransport(Scenario(tokens=200)), "sim/a", max_tokens=60)

    assert error is None
    assert whole.text in (response.text, response.text[: len(whole.text)])
    # each cut at the very limit costs one piece more: nobody knows that it was the last one
    assert len(response.text) <= len(whole.text) + 12 * len(cuts)
    assert sum(cuts) >= 60 or response.text == whole.text


def test_nobody_is_asked_after_an_abort_in_the_pause_between_attempts():
    transport = SimulatorTransport(Scenario(faults=(Fault(kind="status", status=503),)))
    client = Client(api_key="k", transport=transport)
    stream = client.stream("openai/a", PROMPT)
    for batch in stream.batches():
        assert batch
        stream.abort()

    assert len(transport.log) == 1
