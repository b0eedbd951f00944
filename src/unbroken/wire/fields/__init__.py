"""What becomes of a field of one dialect at a provider of another.

Each dialect has one table of its fields, in a module of this package. A key is the path of a
field, with the type of a block or an item in brackets: `messages[].content[text].cache_control`. A
field that has a counterpart has a `word`, and every dialect whose table has the same word says it
its own way. What becomes of a field is one of four things:

    equal        the provider speaks the dialect: the JSON travels as it came
    translated   the provider's dialect has the word
    omitted      it has not, and the answer does not depend on it: left out, and reported
    refused      it has not, and the answer would be another: LocalProtocolError names the field

A value that asks for nothing (`n: 1`) is omitted where it can't be said. Fields that no table knows
are newer than this version: they travel within their dialect and are omitted elsewhere.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from msgspec import Struct

Outcome = Literal["equal", "translated", "omitted", "refused"]


class Field(Struct, frozen=True):
    """One field: its word, what happens where there is no such word, and the values that ask for
    nothing. None always is one of them.
    """

    word: str = ""
    lost: Literal["omitted", "refused"] = "omitted"
    neutral: tuple[Any, ...] = ()

    def outcome(self, words: frozenset[str], value: Any) -> Outcome:
        """What becomes of `value` at a dialect that has these words."""
        if self.word in words:
            return "translated"
        return "omitted" if value is None or value in self.neutral else self.lost


OMITTED = Field()
REFUSED = Field(lost="refused")
UNKNOWN = OMITTED


def said_as(word: str, *neutral: Any) -> Field:
    """A field with a counterpart, on which an answer depends."""
    return Field(word, "refused", neutral)


def hint(word: str, *neutral: Any) -> Field:
    """A field with a counterpart, on which no answer depends."""
    return Field(word, "omitted", neutral)


def refused(*neutral: Any) -> Field:
    """A field that only this dialect has, on which the answer depends."""
    return Field("", "refused", neutral)


class Table(Struct, frozen=True):
    """The fields of one dialect, and where its messages and blocks stand in a body.

    `also` are words that it has though none of its own fields is named for them.
    """

    dialect: str
    fields: dict[str, Field]
    turns: str = "messages[]"
    blocks: str = "messages[].content"
    also: frozenset[str] = frozenset()

    @property
    def words(self) -> frozenset[str]:
        """The words that this dialect has."""
        return self.also | {field.word for field in self.fields.values() if field.word}

    def find(self, path: str) -> Field | None:
        """The field at a path; of a block that has no entry of its own, the one for `[*]`."""
        found = self.fields.get(path)
        if found is None and path.endswith("]"):
            found = self.fields.get(path[: path.rindex("[")] + "[*]")
        return found


def expand(prefix: str, fields: Mapping[str, Field]) -> dict[str, Field]:
    """The same fields below `prefix`."""
    return {prefix + path: field for path, field in fields.items()}


def same(names: Iterable[str], field: Field) -> dict[str, Field]:
    """Several fields of one kind."""
    return dict.fromkeys(names, field)
