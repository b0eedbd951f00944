"""The engine over the virtual clock: retries, deadlines, and the truth about an end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import unbroken
from unbroken import Client, RecoveryPolicy, Timeouts
from unbroken.errors import (
    AuthenticationFailed,
    BadRequest,
    ConnectionLost,
    NotFound,
    Overloaded,
    PermissionDenied,
    QuotaExhausted,
    RateLimited,
    ServerError,
    StreamInterrupted,
    StreamTruncated,
    TimedOut,
    UnbrokenError,
)
from unbroken.events import CONTENT, MessageEnd, Retrying
from unbroken.simulator.scenario import Fault, Scenario, parse
from unbroken.simulator.transport import SimulatorTransport


def ask(scenario, prompt="Tell me about cats.", model="openai/gpt-4o", **given):
    """One answer over a virtual clock: the stream, its events, and the error if there was one."""
    scenario = parse(scenario) if isinstance(scenario, str) else scenario
    transport = SimulatorTransport(scenario)
    stream = Client(api_key="k", transport=transport).stream(model, prompt, **given)
    events, error = [], None
    try:
        with stream:
            for event in stream:
                events.append(event)
    except UnbrokenError as caught:
        error = caught
    return stream, events, error, transport


def test_an_answer_is_whole_and_says_what_it_took():
    stream, events, error, _ = ask("ttft=0.5&tps=10&tokens=21")

    assert error is None
    assert stream.response.end == "complete"
    assert stream.response.finish_reason == "stop"
    assert stream.response.usage.output_tokens == 21
    assert stream.metrics.time_to_first_token == pytest.approx(0.5)
    assert stream.metrics.time_per_output_token == pytest.approx(0.1, rel=0.06)
    assert type(events[-1]) is MessageEnd


ERRORS = [
    (400, BadRequest, 1),
    (401, AuthenticationFailed, 1),
    (403, PermissionDenied, 1),
    (404, NotFound, 1),
    (422, BadRequest, 1),
    (429, RateLimited, 3),
    (500, ServerError, 3),
    (503, Overloaded, 3),
    (529, Overloaded, 3),
]


@pytest.mark.parametrize(("status", "kind", "tries"), ERRORS)
@pytest.mark.parametrize("model", ["openai/gpt-4o", "anthropic/claude-haiku-5-5"])
def test_each_status_has_its_class_and_its_patience(status, kind, tries, model):
    _, _, error, transport = ask(f"fault=status:status={status}", model=model)

    assert type(error) is kind
    assert error.status == status
    assert len(transport.log) == tries == len(error.attempts)
    assert "simulated failure" in str(error)


def test_retry_after_is_obeyed_and_told():
    stream, events, error, transport = ask("fault=status:status=429,retry_after=2,times=1")

    assert error is None
    assert [e.delay for e in events if isinstance(e, Retrying)] == [2.0]
    assert stream.response.attempts[1].delay == 2.0
    assert isinstance(stream.response.attempts[0].error, RateLimited)
    assert len(transport.log) == 2


def test_a_very_long_retry_after_is_not_waited_for():
    _, _, error, transport = ask("fault=status:status=429,retry_after=3600")

    assert error.retry_after == 3600
    assert len(transport.log) == 1


def test_an_empty_account_is_not_asked_again():
    _, _, error, transport = ask("fault=status:status=429,type=insufficient_quota")

    assert type(error) is QuotaExhausted
    assert len(transport.log) == 1


def test_a_reset_before_the_headers_is_tried_again():
    stream, _, error, _ = ask("fault=refuse:times=2")

    assert error is None
    assert [type(a.error) for a in stream.response.attempts[:2]] == [ConnectionLost] * 2


def test_nothing_of_a_failed_beginning_is_delivered():
    _, events, error, _ = ask("fault=cut:bytes=260,times=1")

    assert error is None
    assert [type(e).__name__ for e in events].count("MessageStart") == 1


@pytest.mark.parametrize("how", ["reset", "close"])
def test_a_cut_answer_is_interrupted_and_carries_what_came(how):
    raising = RecoveryPolicy(on_cut="raise")
    _, events, error, transport = ask(f"tokens=40&fault=cut:events=9,how={how}", recovery=raising)
    said = "".join(e.text for e in events if type(e) in CONTENT)

    assert type(error) is StreamInterrupted
    assert isinstance(error.__cause__, ConnectionLost)
    assert error.response.text == said != ""
    assert error.response.end == "failed"
    assert len(transport.log) == 1


def test_a_clean_end_without_the_terminal_is_a_truncation():
    _, _, error, _ = ask("tokens=40&fault=cut:events=9,how=eof")

    assert isinstance(error.__cause__, StreamTruncated)
    assert error.response.end == "truncated"
    assert error.response.finish_reason is None


def test_done_without_a_finish_reason_proves_nothing():
    _, _, error, _ = ask("fault=no_finish")

    assert error.response.end == "truncated"


def test_a_finish_reason_without_done_is_complete():
    stream, _, error, _ = ask("fault=no_done")

    assert error is None
    assert stream.response.end == "complete"


def test_a_missing_end_frame_of_anthropic_is_complete_and_marked():
    stream, events, error, _ = ask("fault=no_done", model="anthropic/claude-haiku-5-5")

    assert error is None
    assert stream.response.end == "complete"
    assert events[-1].early


def test_a_second_finish_reason_changes_nothing():
    stream, events, _, _ = ask("fault=duplicate_finish")

    assert [type(e).__name__ for e in events].count("ChoiceEnd") == 1
    assert stream.response.finish_reason == "stop"


def test_one_malformed_event_is_skipped_and_counted():
    clean, _, _, _ = ask("tokens=20&seed=3")
    stream, _, error, _ = ask("tokens=20&seed=3&fault=garble:events=4")

    assert error is None
    assert stream.response.skipped_events == 1
    assert stream.response.text == clean.response.text


@pytest.mark.parametrize("keepalive", [0, 1])
def test_a_stall_is_a_stall_whatever_keeps_it_alive(keepalive):
    fault = f"fault=stall:events=4,seconds=300,keepalive={keepalive}"
    _, _, error, transport = ask(fault, timeouts=Timeouts(idle=5))

    assert isinstance(error.__cause__, TimedOut)
    assert error.__cause__.phase == "idle"
    assert transport.log[0].ended == "client left"


def test_silence_is_bounded_by_the_first_event():
    _, _, error, transport = ask("fault=silent", timeouts=Timeouts(first_event=5))

    assert type(error) is TimedOut
    assert (error.phase, error.seconds) == ("first_event", 5)
    assert [entry.ended for entry in transport.log] == ["client left"] * 3


def test_keepalives_before_the_first_event_do_not_help():
    scenario = "fault=stall:seconds=300,keepalive=1"
    _, _, error, _ = ask(scenario, timeouts=Timeouts(first_event=7))

    assert (type(error), error.phase) == (TimedOut, "first_event")


def test_the_whole_call_is_bounded_by_total():
    _, _, error, transport = ask("tps=1&tokens=500", timeouts=Timeouts(total=20))

    assert error.__cause__.phase == "total"
    assert transport.now() - 1000 <= 21


def test_no_clock_kills_a_long_answer_that_is_still_coming():
    stream, _, error, transport = ask("ttft=30&tps=0.05&tokens=120")

    assert error is None
    assert transport.now() - 1000 > 2000
    assert stream.response.end == "complete"


def test_an_error_after_the_200_has_its_class_and_status():
    _, _, error, _ = ask("fault=error:events=3", model="anthropic/claude-haiku-5-5")

    assert isinstance(error.__cause__, Overloaded)
    assert error.__cause__.status == 529


def test_an_error_event_before_content_is_tried_again():
    stream, _, error, _ = ask("fault=error:times=1")

    assert error is None
    assert isinstance(stream.response.attempts[0].error, Overloaded)


def test_max_tokens_is_visible_as_length():
    stream, _, _, _ = ask("tokens=90", max_tokens=5)

    assert stream.response.finish_reason == "length"
    assert stream.response.end == "complete"
    assert stream.response.usage.output_tokens == 5


def test_leaving_early_is_a_cancelled_answer_and_closes():
    transport = SimulatorTransport(Scenario())
    with Client(api_key="k", transport=transport).stream("openai/gpt-4o", "cats") as stream:
        for _ in stream.text:
            break

    assert stream.response.end == "cancelled"
    assert transport.log[0].ended == "client left"


WEATHER = {
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


def test_a_cut_tool_call_cannot_be_executed():
    _, _, error, _ = ask("fault=cut:events=2", prompt="the weather?", tools=[WEATHER])

    assert error.response.tool_calls == ()
    assert error.response.partial_tool_calls[0].name == "get_weather"


def test_a_whole_tool_call_has_parsed_arguments():
    stream, _, _, _ = ask("", prompt="the weather?", tools=[WEATHER])

    assert stream.response.tool_calls[0].arguments == {"city": "example city"}
    assert stream.response.partial_tool_calls == ()


def test_several_choices_stay_apart():
    stream, _, _, _ = ask("tokens=30", n=3)
    texts = [choice.text for choice in stream.response.choices]

    assert len(set(texts)) == 3
    assert all(choice.finish_reason == "stop" for choice in stream.response.choices)


FAULTS = st.builds(
    Fault,
    kind=st.sampled_from(
        [
            "status",
            "refuse",
            "silent",
            "cut",
            "stall",
            "error",
            "garble",
            "split",
            "no_finish",
            "no_done",
        ]
    ),
    times=st.integers(0, 3),
    events=st.none() | st.integers(1, 30),
    how=st.sampled_from(["reset", "close", "eof"]),
    status=st.sampled_from([400, 401, 403, 404, 408, 429, 500, 503, 529]),
    retry_after=st.none() | st.floats(0, 100),
    seconds=st.floats(1, 200),
    keepalive=st.booleans(),
)


@given(
    faults=st.lists(FAULTS, max_size=3),
    attempts=st.integers(1, 5),
    model=st.sampled_from(["openai/gpt-4o", "anthropic/claude-haiku-5-5"]),
)
def test_whatever_goes_wrong_the_answer_is_whole_or_the_error_carries_it(faults, attempts, model):
    clean, _, _, _ = ask(Scenario(tokens=25), model=model)
    policy = RecoveryPolicy(attempts=attempts)

    stream, events, error, transport = ask(
        Scenario(tokens=25, faults=tuple(faults)), model=model, recovery=policy
    )
    said = "".join(getattr(e, "text", "") for e in events)

    assert len(transport.log) <= attempts
    assert clean.response.text.startswith(said)
    assert stream.response.text == said
    if error is None:
        assert said == clean.response.text
    else:
        assert error.response.text == said
        assert error.response.end in ("failed", "truncated")


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"on_cut": "hope"}])
def test_a_policy_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RecoveryPolicy(**wrong)


def test_a_timeout_of_nothing_is_refused():
    with pytest.raises(ValueError, match="idle"):
        Timeouts(idle=0)


def test_every_error_is_an_unbroken_error():
    kinds = [getattr(unbroken, name) for name in unbroken.__all__]
    errors = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Exception)]

    assert len(errors) > 15
    assert all(issubclass(kind, UnbrokenError) for kind in errors)
