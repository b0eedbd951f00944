"""Validation errors with the place as people write it."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec

Item = TypeVar("Item")
Value = TypeVar("Value")


def format_error(error: msgspec.ValidationError) -> str:
    """Return the message of msgspec with its place written as `n`, not as `$.n`."""
    return str(error).replace("`$.", "`").replace("`$[", "`[")


def read_each(read: Callable[[Item], Value], items: Iterable[Item], name: str) -> tuple[Value, ...]:
    """Read every item of the list `name`; a ValidationError names the place of the wrong one."""
    return tuple(_read_at(read, item, f"{name}[{at}]") for at, item in enumerate(items))


def _read_at(read: Callable[[Item], Value], item: Item, place: str) -> Value:
    try:
        return read(item)
    except msgspec.ValidationError as error:
        raise msgspec.ValidationError(_located(str(error), place)) from error


def _located(message: str, place: str) -> str:
    dot = "" if place.startswith("[") else "."
    if " - at `$" in message:
        return message.replace(" - at `$", f" - at `${dot}{place}", 1)
    return f"{message} - at `${dot}{place}`"
