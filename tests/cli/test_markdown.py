"""Markdown that is not finished yet: text in, text out."""

import pytest

from unbroken.cli._markdown import split

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
