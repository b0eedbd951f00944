"""What is remembered and what is forgotten: values in, values out."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.client.history import History, estimate
from unbroken.errors import ContextTooLong, LocalProtocolError
from unbroken.events import Usage
from unbroken.messages import Image, Message, Reasoning, Refusal, Text, ToolResult, ToolUse
from unbroken.response import Attempt, Choice, PartialToolCall, Response, ToolCall


def said(role, text):
    return Message(role, (Text(text),))


def answer(text="", calls=(), usage=None, end="complete", **choice):
    attempts = (Attempt("sim", "m", usage=usage),)
    first = Choice(text=text, tool_calls=tuple(calls), **choice)
    return Response(end=end, choices=(first,), usage=usage, attempts=attempts)


def spent(prompt, output, **more):
    return Usage(input_tokens=prompt, output_tokens=output, **more)


# Conversations as they come: each turn is a question, perhaps rounds of tools, and an answer.
QUESTION = st.text("ab世 ", min_size=1, max_size=60)
ROUND = st.tuples(st.integers(1, 3), st.text("xy", max_size=40))
TURN = st.tuples(QUESTION, st.lists(ROUND, max_size=2), st.text("cd", min_size=1, max_size=60))
TURNS = st.lists(TURN, max_size=6)


def grown(turns, **settings):
    history = History(**settings).instructed("be brief")
    for place, (question, rounds, last) in enumerate(turns):
        history = history.plus(said("user", question))
        for step, (calls, result) in enumerate(rounds):
            ids = [f"{place}-{step}-{at}" for at in range(calls)]
            history = history.answered(answer(calls=[ToolCall(id, "f", {"n": 1}) for id in ids]))
            for id in ids:
                history = history.plus(ToolResult(id, result))
        history = history.answered(answer(last))
    return history


def parts(messages, kind):
    return [part.id for m in messages for part in m.parts if isinstance(part, kind)]


@given(TURNS, QUESTION, st.integers(1, 300))
def test_what_is_sent_fits_and_is_the_longest_end_that_does(turns, question, budget):
    whole = grown(turns, budget=budget).plus(said("user", question))
    try:
        sent = whole.asking()
    except ContextTooLong:
        assert msgspec.structs.replace(whole, turns=whole.turns[-1:]).tokens > budget
        return

    assert sent.messages[0] == said("system", "be brief")
    assert sent.turns == whole.turns[-len(sent.turns) :]
    assert sent.tokens <= budget
    assert sent.forgotten == len(whole.messages) - len(sent.messages)
    if len(sent.turns) < len(whole.turns):
        assert sent.tokens + whole.turns[-len(sent.turns) - 1].tokens > budget


@given(TURNS, QUESTION, st.integers(1, 300))
def test_a_call_and_its_result_are_kept_or_forgotten_together(turns, question, budget):
    whole = grown(turns, budget=budget).plus(said("user", question))
    try:
        kept = whole.asking().messages
    except ContextTooLong:
        return

    assert sorted(parts(kept, ToolUse)) == sorted(parts(kept, ToolResult))
    assert kept[1].role == "user"


@given(
    st.lists(st.tuples(QUESTION, QUESTION, st.integers(1, 500), st.integers(1, 300)), max_size=6)
)
def test_after_a_report_the_sum_is_the_reported_one(rounds):
    history = History(budget=700).instructed("be brief")
    for question, text, took, output in rounds:
        try:
            sent = history.plus(said("user", question)).asking()
        except ContextTooLong:
            return
        history = sent.answered(answer("x" + text, usage=spent(took, output, reasoning_tokens=1)))

        assert history.tokens == took + output - 1
        assert all(turn.tokens >= 0 for turn in history.turns)


def test_without_a_report_a_token_is_four_bytes():
    assert [estimate(text) for text in ("", "a", "abcd", "abcde", "世界")] == [0, 1, 1, 2, 2]
    assert History().plus(said("user", "12345678")).tokens == 4 + 2


def test_a_tokenizer_counts_words_calls_and_results():
    history = History(count=lambda text: len(text.split())).plus(said("user", "one two three"))
    history = history.answered(answer(calls=[ToolCall("1", "look up", {})]))

    assert history.plus(ToolResult("1", "a b")).tokens == (4 + 3) + (4 + 2 + 1) + (4 + 2)


def test_an_image_counts_too():
    assert History().plus(Message("user", (Image("https://a/b.png"),))).tokens > 500


def test_what_a_report_counts_besides_the_messages_stays_when_turns_go():
    history = History(budget=1100).plus(said("user", "a" * 400))
    history = history.answered(answer("b", usage=spent(1104, 1)))
    history = history.plus(said("user", "c" * 40)).asking()

    assert history.messages == (said("user", "c" * 40),)
    assert history.tokens == 1000 + 4 + 10


def test_a_newest_turn_that_is_more_than_the_budget_is_an_error_that_says_so():
    history = History(budget=10).plus(said("user", "a" * 400))

    with pytest.raises(ContextTooLong, match=r"needs about 104 tokens, the budget is 10.*Shorten"):
        history.asking()


def test_without_a_budget_nothing_is_forgotten():
    history = grown([("a" * 9000, [], "b" * 9000)] * 9).plus(said("user", "c"))

    assert history.asking() == history


def test_an_answer_is_kept_with_its_calls_and_its_signed_thoughts():
    first = {"reasoning": "hm", "reasoning_signature": "s"}
    history = History().plus(said("user", "q"))
    history = history.answered(answer("so", [ToolCall("1", "f", {"a": [1]})], **first))

    kept = (Reasoning("hm", "s"), Text("so"), ToolUse("1", "f", '{"a":[1]}'))
    assert history.messages[-1] == Message("assistant", kept)


def test_thoughts_without_a_signature_are_kept_with_the_calls_that_they_led_to_and_only_so():
    asked = History().plus(said("user", "q"))
    history = asked.answered(answer("so", reasoning="hm"))
    calling = asked.answered(answer("", [ToolCall("1", "f", {})], reasoning="hm"))

    assert history.messages[-1] == said("assistant", "so")
    assert calling.messages[-1] == Message("assistant", (Reasoning("hm"), ToolUse("1", "f", "{}")))


def test_a_refusal_is_what_was_said():
    history = History().plus(said("user", "q")).answered(answer(refusal="no"))

    assert history.messages[-1] == Message("assistant", (Refusal("no"),))


@pytest.mark.parametrize("end", ["truncated", "cancelled", "failed", None])
def test_an_answer_that_is_not_whole_leaves_nothing_unless_its_text_is_wanted(end):
    calls = {"partial_tool_calls": (PartialToolCall("1", "f", "{"),)}
    asked = History().plus(said("user", "q"))

    assert asked.answered(answer("half", end=end, **calls)) is None
    kept = asked.answered(answer("half", end=end, **calls), keep_partial=True)
    assert kept.messages == (said("user", "q"), said("assistant", "half"))


@pytest.mark.parametrize("response", [answer(), answer(" \n"), answer(reasoning="hm")])
def test_an_answer_that_says_nothing_leaves_nothing(response):
    assert History().plus(said("user", "q")).answered(response, keep_partial=True) is None


def test_what_several_attempts_used_together_is_not_what_the_prompt_took():
    asked = History().plus(said("user", "q"))
    twice = msgspec.structs.replace(
        answer("so", usage=spent(900, 900)), attempts=(Attempt("sim", "m"),) * 2
    )

    assert asked.answered(twice).tokens == asked.tokens + 4 + 1


def test_a_call_without_a_result_is_told_before_a_provider_refuses_it():
    history = History().plus(said("user", "q")).answered(answer(calls=[ToolCall("7", "f", {})]))

    assert history.missing == {"7": "f"}
    for ask in (history.asking, lambda: history.plus(said("user", "and?"))):
        with pytest.raises(LocalProtocolError, match=r"call '7' of 'f' has no result: add"):
            ask()


def test_a_result_that_nobody_asked_for_is_told():
    with pytest.raises(LocalProtocolError, match=r"no call '7' waits for a result; waiting: none"):
        History().plus(said("user", "q")).plus(ToolResult("7", "x"))


@pytest.mark.parametrize("history", [History(), grown([("a", [], "b")])])
def test_there_must_be_something_to_answer(history):
    with pytest.raises(LocalProtocolError, match="nothing to answer"):
        history.asking()


def test_a_saved_conversation_can_be_said_again():
    old = grown([("a", [(2, "x")], "b"), ("c", [], "d")])
    new = History()
    for message in old.messages:
        new = new.plus(message)

    assert new == old


def test_messages_may_be_dicts():
    history = History().plus({"role": "user", "content": "q"})

    (turn,) = history.turns
    assert (turn.messages[0].parts, turn.tokens) == (said("user", "q").parts, 5)


def test_forgetting_leaves_the_system_message():
    assert grown([("a", [], "b")]).forgetting().messages == (said("system", "be brief"),)
