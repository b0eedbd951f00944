"""A conversation that fits, and Markdown that is not finished yet: values in, values out."""

import pytest

from unbroken.cli._history import fitting, tokens
from unbroken.cli._markdown import split
from unbroken.messages import Message, Text


def turn(role, text):
    return Message(role, (Text(text),))


def test_the_oldest_turns_go_first_and_the_system_message_stays():
    system, last = turn("system", "s" * 40), turn("user", "new")
    turns = [system, turn("user", "a" * 400), turn("assistant", "b" * 400), last]

    assert fitting(turns, 10_000) == turns
    assert fitting(turns, 100) == [system, last]
    assert fitting(turns, 1) == [system, last]


def test_a_history_never_begins_with_an_answer():
    turns = [turn("user", "a" * 400), turn("assistant", "b"), turn("user", "c")]

    assert fitting(turns, tokens(turns[1]) + tokens(turns[2]) + 1) == turns[2:]


@pytest.mark.parametrize("limit", range(0, 200, 7))
def test_what_is_kept_is_the_end_of_what_was(limit):
    turns = [turn(("user", "assistant")[at % 2], "x" * (at * 13 % 50)) for at in range(9)]
    kept = fitting(turns, limit)

    assert kept == turns[-len(kept) :]
    assert kept[0].role == "user"
    assert sum(map(tokens, kept)) <= limit or len(kept) == 1


SPLITS = [
    ("one\n\ntwo", "one\n\n", "two"),
    ("one\n\n", "", "one\n\n"),
    ("one\ntwo", "", "one\ntwo"),
    ("```\na\n\nb", "", "```\na\n\nb"),
    ("```\na\n\n```\n\nx", "```\na\n\n```\n\n", "x"),
    ("````\n```\n\nb", "", "````\n```\n\nb"),
    ("~~~\n```\n\nb", "", "~~~\n```\n\nb"),
    ("- a\n\n- b\n\n  more", "", "- a\n\n- b\n\n  more"),
    ("1. a\n\n2. b\n\nend", "1. a\n\n2. b\n\n", "end"),
    ("1. a\n\n2", "", "1. a\n\n2"),
    ("- a\n\n**bold**", "- a\n\n", "**bold**"),
    ("a\n\n# b\n\nc", "a\n\n# b\n\n", "c"),
]


@pytest.mark.parametrize(("text", "done", "rest"), SPLITS)
def test_a_block_is_finished_when_something_new_begins(text, done, rest):
    assert split(text) == (done, rest)
