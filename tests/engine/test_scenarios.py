"""What must come of each named scenario of the simulator, over the virtual clock.

The primary plays the scenario, the fallback is well unless said otherwise. Seconds are simulated.
"""

from types import SimpleNamespace

import pytest

from unbroken import Client, RecoveryPolicy, Timeouts
from unbroken.errors import (
    ContentFiltered,
    ContextTooLong,
    Overloaded,
    RateLimited,
    ResumeMismatch,
    ServerError,
    StreamInterrupted,
    StreamTruncated,
    TimedOut,
    UnbrokenError,
)
from unbroken.events import FellBack, MessageEnd, Restarted, Resumed, Retrying, TextDelta
from unbroken.simulator.scenario import Fault, Scenario, named
from unbroken.simulator.transport import SimulatorTransport

PROMPT = "Explain the TCP handshake."


def ask(models, *, scenarios=None, client=None, **given):
    """One answer: its events, text, error, the seconds it took, and who was asked."""
    transport = client._given if client else SimulatorTransport(scenarios)
    client = client or Client(api_key="k", transport=transport)
    begin, before, events, error = transport.now(), len(transport.log), [], None
    stream = client.stream(models, PROMPT, **given)
    try:
        with stream:
            events.extend(stream)
    except UnbrokenError as caught:
        error = caught
    return SimpleNamespace(
        events=events,
        text="".join(e.text for e in events if isinstance(e, TextDelta)),
        error=error,
        response=stream.response,
        seconds=transport.now() - begin,
        asked=[entry.model for entry in transport.log[before:]],
        log=transport.log[before:],
        notices=[type(e) for e in events if type(e) in (Retrying, Resumed, Restarted, FellBack)],
    )


def uncut(model, name):
    """The answer that an undisturbed scenario gives."""
    calm = Scenario(tokens=named()[name].tokens)
    return ask(model, scenarios={name: calm}).text


BOTH = ["openai/{}", "anthropic/well"]


def route(name):
    return [f"openai/{name}", "anthropic/well"]


def test_a_rate_limit_with_a_time_is_waited_out_without_hammering():
    told = ask("openai/rate-limited")

    assert told.error is None
    assert told.asked == ["rate-limited"] * 2
    assert [a.delay for a in told.response.attempts] == [0, 2.0]
    assert 2.0 <= told.seconds < 12


def test_a_rate_limit_for_ever_is_tried_a_few_times_then_somebody_else_answers():
    told = ask(route("rate-limited-for-ever"))
    tried = [a for a in told.response.attempts if isinstance(a.error, RateLimited)]

    assert told.error is None
    assert len(tried) <= 4
    assert sum(a.delay + a.duration for a in tried) <= 3
    assert len({a.delay for a in tried[1:]}) == len(tried) - 1  # jittered
    assert told.asked[-1] == "well"
    assert told.response.provider == "anthropic"


def test_a_longer_wait_than_our_patience_goes_to_the_fallback_at_once():
    scenarios = {"limited": Scenario(faults=(Fault(kind="status", status=429, retry_after=30),))}
    told = ask(route("limited"), scenarios=scenarios)

    assert told.asked == ["limited", "well"]
    assert told.seconds < 10


def test_an_empty_account_is_left_for_the_fallback():
    assert ask(route("out-of-quota")).asked == ["out-of-quota", "well"]


def test_a_broken_request_is_tried_once_more():
    told = ask("openai/broken-once")

    assert told.error is None
    assert told.asked == ["broken-once"] * 2
    assert isinstance(told.response.attempts[0].error, ServerError)
    assert told.notices == [Retrying]


def test_who_is_down_for_ever_is_replaced():
    told = ask(route("down"))

    assert told.error is None
    assert told.asked == ["down"] * 3 + ["well"]
    assert told.notices == [Retrying, Retrying, FellBack]
    assert (told.response.provider, told.response.model) == ("anthropic", "well")
    assert told.response.usage == told.response.attempts[-1].usage != None  # noqa: E711


def test_without_a_fallback_the_error_is_raised_within_the_bounds():
    told = ask("openai/down")

    assert isinstance(told.error, Overloaded)
    assert told.asked == ["down"] * 3


def test_a_reset_before_the_headers_is_nobodys_business():
    told = ask("openai/reset-before-headers")

    assert told.error is None
    assert told.notices == [Retrying]


def test_silence_costs_one_timeout_and_is_not_asked_again():
    transport = SimulatorTransport()
    client = Client(api_key="k", transport=transport)
    first = ask(route("accepted-and-silent"), client=client)
    second = ask(route("accepted-and-silent"), client=client)

    assert first.asked == ["accepted-and-silent", "well"]
    assert isinstance(first.response.attempts[0].error, TimedOut)
    assert second.asked == ["well"]  # its circuit is open
    assert second.notices == [FellBack]


def test_a_late_first_token_is_answered_within_15_seconds_by_the_fallback():
    told = ask(route("slow-first-token"))
    first = [a.delay + a.duration for a in told.response.attempts][0]

    assert told.response.provider == "anthropic"
    assert first < 15
    assert ask("openai/slow-first-token").error is None  # alone it is waited for


CUTS = [
    "cut-after-40-words",
    "cut-cleanly-after-40-words",
    "overloaded-after-40-words",
    "cut-and-no-prefill",
    "cut-and-says-it-again",
    "cut-and-begins-again",
    "cut-and-says-another",
]


@pytest.mark.parametrize("name", CUTS)
@pytest.mark.parametrize("provider", ["sim", "openai", "anthropic"])
def test_a_cut_answer_comes_whole(name, provider):
    told = ask(f"{provider}/{name}")

    assert told.error is None
    assert told.text == uncut(f"{provider}/{name}", name) == told.response.text
    assert Resumed in told.notices
    assert isinstance(told.events[-1], MessageEnd)
    assert len(told.response.attempts) <= 3


def test_a_refused_continuation_never_reaches_the_caller():
    told = ask(
        "sim/cut-and-no-prefill",
        recovery=RecoveryPolicy(on_cut="continue", continue_by_prompt=False),
    )

    assert isinstance(told.error, StreamInterrupted)
    assert "does not support" not in str(told.error)
    assert told.error.response.text == told.text != ""
    assert [a.status for a in told.error.attempts] == [200, 400]


@pytest.mark.parametrize("name", ["cut-after-40-words", "cut-and-no-prefill"])
def test_the_fallback_goes_on_where_the_first_was_cut(name):
    """The text of one answer whose end is another model's; a 400 of its stays inside."""
    scenarios = {
        "first": Scenario(text="one two three four", faults=(Fault(kind="cut", words=2),)),
        "second": Scenario(text="one two three four", prefill=_prefill(name)),
    }
    told = ask(["openai/first", "sim/second"], scenarios=scenarios)
    ways = [(a.model, a.how) for a in told.response.attempts]

    assert told.error is None
    assert told.text == "one two three four"
    if name == "cut-after-40-words":
        assert ways == [("first", "start"), ("second", "continue")]
    else:  # the first is cut each time, whatever it is asked
        assert ways == [("first", "start"), ("second", "continue"), ("second", "prompt")]


def _prefill(name):
    return "refuse" if name == "cut-and-no-prefill" else "exact"


def test_a_refused_fallback_leaves_the_first_to_say_it_again():
    cut = Fault(kind="cut", words=2, times=1)
    scenarios = {
        "first": Scenario(text="one two three four", faults=(cut,)),
        "second": Scenario(text="one two three four", prefill="refuse"),
    }
    policy = RecoveryPolicy(continue_by_prompt=False)
    told = ask(["openai/first", "sim/second"], scenarios=scenarios, recovery=policy)

    assert told.error is None
    assert told.text == "one two three four"
    assert [(a.model, a.how) for a in told.response.attempts][1:] == [
        ("second", "continue"),
        ("first", "replay"),
    ]


def test_each_way_on_is_told_once_and_only_if_it_brought_something():
    told = ask(["sim/cut-and-no-prefill", "sim/well"])
    resumed = [event for event in told.events if isinstance(event, Resumed)]

    assert told.error is None
    assert [(a.model, a.how) for a in told.response.attempts] == [
        ("cut-and-no-prefill", "start"),
        ("cut-and-no-prefill", "continue"),
        ("well", "continue"),
    ]
    assert [(event.attempt, event.how) for event in resumed] == [(3, "continue")]


def test_a_stall_is_waited_out_or_cut_by_the_idle_clock():
    patient = ask("sim/stall-after-20-words")
    impatient = ask("sim/stall-after-20-words", timeouts=Timeouts(idle=5))
    whole = uncut("sim/stall-after-20-words", "stall-after-20-words")

    assert patient.text == impatient.text == whole
    assert patient.seconds > 30 > impatient.seconds
    assert isinstance(impatient.response.attempts[0].error, TimedOut)


def test_a_malformed_event_is_passed_over_and_told():
    told = ask("openai/malformed-event")

    assert told.error is None
    assert told.response.skipped_events == 1


def test_a_missing_done_is_no_fault():
    told = ask("openai/no-done")

    assert told.error is None
    assert len(told.asked) == 1


def test_a_context_too_long_is_not_tried_on_the_same_size():
    same = ask(["openai/context-too-long", "openai/context-too-long?seed=1"])
    alone = ask("openai/context-too-long")

    assert isinstance(alone.error, ContextTooLong)
    assert alone.asked == ["context-too-long"]
    assert isinstance(same.error, ContextTooLong)


def test_a_context_too_long_goes_to_a_larger_model_only():
    small = {"gpt-4": named()["context-too-long"], "gpt-4-0613": Scenario()}

    larger = ask(["openai/gpt-4", "openai/gpt-4.1"], scenarios=small)
    equal = ask(["openai/gpt-4", "openai/gpt-4-0613"], scenarios=small)

    assert larger.asked == ["gpt-4", "gpt-4.1"]
    assert equal.asked == ["gpt-4"]
    assert isinstance(equal.error, ContextTooLong)


def test_filtered_content_is_asked_of_nobody_else():
    told = ask(route("content-filter"))

    assert isinstance(told.error, ContentFiltered)
    assert told.asked == ["content-filter"]


def test_a_flapping_primary_is_left_alone_probed_and_taken_back_within_30_seconds():
    transport = SimulatorTransport()
    client = Client(api_key="k", transport=transport)
    begin, answered = transport.now(), []
    while transport.now() < begin + 60:
        told = ask(route("flapping"), client=client)
        answered.append((transport.now() - begin, told.response.provider, len(told.asked)))
        transport.sleep(1.0)
    asked = [entry.model for entry in transport.log].count("flapping")
    back = next(at for at, provider, _ in answered if provider == "openai")

    assert all(told for told in answered)
    assert back <= 30 + answered[0][0]
    assert [provider for at, provider, _ in answered if at > back] == ["openai"] * sum(
        at > back for at, _, _ in answered
    )
    assert asked < 6 + 2 + sum(provider == "openai" for _, provider, _ in answered)


class Changing(SimulatorTransport):
    """The first request is cut in its answer, all others get another answer."""

    def open(self, request, deadlines):
        if self.log:
            self.server._scenarios["*"] = Scenario(text="Quite another answer.")
        return super().open(request, deadlines)


def changing():
    cut = Fault(kind="cut", words=20, times=1)
    return Client(api_key="k", transport=Changing(Scenario(tokens=40, faults=(cut,))))


def test_a_second_answer_that_differs_is_told_and_what_came_is_kept():
    told = ask("openai/x", client=changing(), recovery=RecoveryPolicy(on_cut="replay"))

    assert isinstance(told.error, ResumeMismatch)
    assert told.error.response.text == told.text != ""
    assert isinstance(told.error.__cause__, UnbrokenError)


def test_who_can_take_back_gets_the_second_answer_from_its_beginning():
    told = ask(
        "openai/x", client=changing(), recovery=RecoveryPolicy(on_cut="replay", allow_restart=True)
    )
    after = told.events[[type(e) for e in told.events].index(Restarted) :]

    assert told.error is None
    assert told.response.text == "".join(e.text for e in after if isinstance(e, TextDelta))
    assert told.response.text == "Quite another answer."


def test_a_clean_end_without_its_word_is_a_truncation_that_is_mended():
    told = ask("openai/cut-cleanly-after-40-words", recovery=RecoveryPolicy(on_cut="raise"))

    assert isinstance(told.error.__cause__, StreamTruncated)
    assert told.error.response.end == "truncated"
