"""Where a second attempt meets the first: nothing twice, nothing lost, nothing glued."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.continuation import last_words
from unbroken.engine.stitch import ContinuationFilter, PromptFilter, ReplayFilter
from unbroken.events import (
    ChoiceEnd,
    Citation,
    MessageEnd,
    MessageStart,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
)

WORDS = "the quick brown fox jumps over a lazy dog while nobody sees it at all today".split()
prose = st.permutations(WORDS).map(" ".join)


def cut(text, places):
    """The text in pieces, as deltas."""
    ends = sorted({min(place, len(text)) for place in places} | {len(text)})
    begins = [0, *ends]
    return [TextDelta(text[a:b]) for a, b in zip(begins, ends, strict=False) if a < b]


def said(events):
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def sifted(seam, events):
    """Event by event, as the worst of networks would bring them, until it is told to stop."""
    return [new for event in events if not seam.diverged for new in seam.filter([event])]


END = [ChoiceEnd("stop"), MessageEnd("stop")]
places = st.lists(st.integers(0, 80), max_size=12)


@given(prose, st.integers(1, 60), places)
def test_a_continuation_is_passed_on_as_it_is(text, at, pieces):
    rest = sifted(ContinuationFilter(text[:at], text[:at], {}, {}), [*cut(text[at:], pieces), *END])

    assert text[:at] + said(rest) == text
    assert rest[-2:] == END


@given(prose, st.integers(1, 60), places)
def test_what_a_provider_refuses_at_the_end_is_not_said_twice(text, at, pieces):
    told = text[:at] + " " * (not text[:at].endswith(" "))
    sent = told.rstrip()
    goes_on = text[at:].lstrip()
    with_space = sifted(ContinuationFilter(told, sent, {}, {}), [*cut(" " + goes_on, pieces), *END])
    without = sifted(ContinuationFilter(told, sent, {}, {}), [*cut(goes_on, pieces), *END])

    assert told + said(with_space) == told + said(without) == told + goes_on


@given(prose, st.integers(8, 60), places)
def test_an_answer_said_again_from_its_beginning_is_heard_once(text, at, pieces):
    rest = sifted(ContinuationFilter(text[:at], text[:at], {}, {}), [*cut(text, pieces), *END])

    assert text[:at] + said(rest) == text


@given(prose, st.integers(1, 60), st.sampled_from(["", " "]), places)
def test_a_provider_known_to_echo_is_heard_once_however_little_came(text, at, space, pieces):
    sent = text[:at].rstrip()
    told = sent + space
    again = sent + " " + text[at:].lstrip()
    rest = sifted(ContinuationFilter(told, sent, {}, {}, echoes=True), [*cut(again, pieces), *END])

    assert told + said(rest) == again


@given(prose, st.integers(30, 60), st.integers(16, 28), places)
def test_words_said_again_at_the_seam_are_heard_once(text, at, again, pieces):
    rest = sifted(
        ContinuationFilter(text[:at], text[:at], {}, {}), [*cut(text[at - again :], pieces), *END]
    )
    overlap = text[at - again : at]
    expected = text if len(overlap.split()) >= 3 else text[:at] + text[at - again :]

    assert text[:at] + said(rest) == expected


@given(st.sampled_from(["ha ", "- - - ", "0, 0, ", "=" * 8]), st.integers(2, 9), st.integers(1, 9))
def test_a_pattern_is_not_taken_for_a_repetition(piece, before, after):
    told, rest = piece * before, piece * after

    assert said(sifted(ContinuationFilter(told, told, {}, {}), [TextDelta(rest), *END])) == rest


def test_a_new_answer_instead_of_the_rest_is_told():
    told = "The handshake has three steps, and each of them matters. First"
    other = "The handshake has three steps, and each of them is cheap. One"
    seam = ContinuationFilter(told, told, {}, {})

    assert sifted(seam, [TextDelta(other), *END]) == []
    assert "another answer" in seam.diverged


def test_code_points_that_were_cut_in_two_meet_again():
    told, rest = "caf e\u0301 and \U0001f469\u200d", "\U0001f4bb done"

    assert (
        told + said(sifted(ContinuationFilter(told, told, {}, {}), [TextDelta(rest), *END]))
        == told + rest
    )


@given(prose, st.integers(0, 60), places)
def test_a_replay_delivers_only_the_rest(text, at, pieces):
    seam = ReplayFilter({("text", 0, 0): text[:at]}, {})
    rest = sifted(seam, [MessageStart("2"), *cut(text, pieces), *END])

    assert text[:at] + said(rest) == text
    assert not any(isinstance(event, MessageStart) for event in rest)
    assert seam.diverged == ""


@given(prose, prose, st.integers(1, 60), places)
def test_a_replay_that_differs_delivers_nothing_wrong(text, other, at, pieces):
    seam = ReplayFilter({("text", 0, 0): text[:at]}, {})
    rest = sifted(seam, [*cut(other, pieces), *END])

    assert bool(seam.diverged) == (not other.startswith(text[:at]))
    assert seam.diverged or text[:at] + said(rest) == other


def test_a_shorter_second_answer_is_told():
    seam = ReplayFilter({("text", 0, 0): "one two"}, {})

    assert sifted(seam, [TextDelta("one"), *END]) == []
    assert "shorter" in seam.diverged


CALL, ARGUMENTS = ("call", 0, 0), '{"city": "Paris", "unit": "C"}'


@pytest.mark.parametrize(
    "make", [ReplayFilter, lambda texts, names: ContinuationFilter("", "", texts, names)]
)
@given(at=st.integers(0, len(ARGUMENTS)), step=st.integers(1, 9))
def test_arguments_come_from_one_attempt_and_are_heard_once(make, at, step):
    seam = make({CALL: ARGUMENTS[:at]}, {CALL: "weather"})
    pieces = [ARGUMENTS[i : i + step] for i in range(0, len(ARGUMENTS), step)]
    again = [ToolCallStart(0, "other-id", "weather"), *(ToolCallDelta(0, p) for p in pieces)]
    rest = sifted(seam, [*again, ChoiceEnd("tool_calls")])

    assert not any(isinstance(event, ToolCallStart) for event in rest)
    heard = "".join(e.arguments for e in rest if isinstance(e, ToolCallDelta))
    assert ARGUMENTS[:at] + heard == ARGUMENTS


@pytest.mark.parametrize(
    ("name", "arguments"), [("weather", '{"city": "Rome"}'), ("time", ARGUMENTS)]
)
def test_another_call_is_never_glued_to_the_first(name, arguments):
    seam = ReplayFilter({CALL: '{"city": "Par'}, {CALL: "weather"})
    rest = sifted(seam, [ToolCallStart(0, "b", name), ToolCallDelta(0, arguments)])

    assert rest == []
    assert seam.diverged


def test_a_second_run_of_reasoning_and_known_citations_are_dropped():
    seam = ReplayFilter({("text", 0, 0): "a"}, {}).skip_asides(1, {})
    events = [ReasoningDelta("hm"), TextDelta("ab"), Citation("1"), Citation("2")]

    assert sifted(seam, events) == [TextDelta("b"), Citation("2")]


@given(prose, st.integers(1, 60), st.integers(0, 30), places)
def test_a_continuation_by_prompt_begins_with_the_last_words(text, at, lead, pieces):
    told = text[:at]
    again = last_words(told)
    if not again:
        return
    for before in ("", text[max(0, at - len(again) - lead) : at - len(again)]):
        rest = sifted(
            PromptFilter(told, told.rstrip()),
            [*cut(before + again + text[len(told.rstrip()) :], pieces), *END],
        )
        if len(again) >= 12 or not before:
            assert told + said(rest) == text


@given(prose, st.integers(20, 60), places)
def test_a_prompted_answer_without_the_last_words_is_another_one(text, at, pieces):
    filter_ = PromptFilter(text[:at], text[:at])
    rest = sifted(
        filter_, [*cut("Of course! Here is what I think about it: " + "x y z " * 60, pieces), *END]
    )

    assert filter_.diverged
    assert rest == []


@pytest.mark.parametrize("again", ["", "quick brown fox jumps"])
def test_an_end_without_a_word_is_left_unread_until_it_is_believed(again):
    told = "the quick brown fox jumps"
    filter_ = ContinuationFilter(told, told, {}, {})
    before = filter_.filter([*cut(again, []), *END])

    assert before == []
    assert filter_.unread == END
    assert filter_.accept_end() == END
