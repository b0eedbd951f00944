"""A second reading of JSON whose fields have another type than usual, or that is not quite JSON.

Servers send numbers as strings or floats, ids as numbers, `false`, `[]` or `{}` for nothing, `NaN`,
control characters within strings, and halves of surrogate pairs. The idea: the document is changed
until the fields that are read have their types, and is then read as always. A field that can't be
changed is left out, and an entry of a list that lacks what it needs is dropped.

Sources: `"id": 123` (diegosouzapw/OmniRoute#3426), NaN (sgl-project/sglang#5984), PHP's empty array
for an empty object; halves of pairs come from servers that cut texts by UTF-16 units (ECMA-262,
JSON.stringify).
"""

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

T = TypeVar("T")

_NONE = object()
"""What a value becomes that can't be changed into its type."""


def mend(data: bytes, kind: type) -> list[bytes]:
    """The documents in `data`, each with the fields of `kind` in their types; none if it is neither
    a JSON object nor a list of them.
    """
    try:
        found = json.loads(data.decode("utf-8", "replace"), strict=False, parse_constant=_nothing)
    except (ValueError, RecursionError):
        return []
    objects = found if isinstance(found, list) else [found]
    return [_encode(_struct(item, _info(kind))) for item in objects if isinstance(item, dict)]


def convert(value: dict[str, Any], kind: type[T]) -> T:
    """The struct that an object stands for, by the fields that can be changed into their types."""
    named: Any = kind
    return msgspec.json.decode(_encode(_struct(value, _info(named))), type=kind)


def _nothing(_constant: str) -> None:
    """NaN and the infinities are no JSON, and tell nothing."""


def _encode(value: Any) -> bytes:
    """JSON, with U+FFFD for each half of a surrogate pair that stands alone."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


@lru_cache(maxsize=32)
def _info(kind: Any) -> Any:
    return inspect.type_info(kind)


def _fit(value: Any, info: Any) -> Any:
    fit = _FIT.get(type(info))
    return value if fit is None else fit(value, info)


def _struct(value: Any, info: Any) -> Any:
    if not isinstance(value, dict):
        return _NONE
    fitted = dict(value)
    for field in info.fields:
        name = field.encode_name
        if name in fitted:
            fitted[name] = _fit(fitted[name], field.type)
            if fitted[name] is _NONE:
                del fitted[name]
        if field.required and name not in fitted:
            return _NONE
    return fitted


def _union(value: Any, info: Any) -> Any:
    """Whatever already has one of the types stays; else the first type that it can be made to."""
    if value is None:
        return None
    kinds = [kind for kind in info.types if not isinstance(kind, inspect.NoneType)]
    own = [kind for kind in kinds if isinstance(value, _PYTHON.get(type(kind), ()))]
    fits = (_fit(value, kind) for kind in own or kinds)
    return next((fit for fit in fits if fit is not _NONE), _NONE)


def _str(value: Any, _info: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return _NONE
    return str(value)


def _int(value: Any, _info: Any) -> Any:
    try:
        return int(float(value)) if isinstance(value, str | float) else _whole(value)
    except (ValueError, OverflowError):
        return _NONE


def _whole(value: Any) -> Any:
    return value if type(value) is int else _NONE


def _float(value: Any, _info: Any) -> Any:
    try:
        return _NONE if isinstance(value, bool | None | list | dict) else float(value)
    except ValueError:
        return _NONE


def _bool(value: Any, _info: Any) -> Any:
    return value if isinstance(value, bool) else _NONE


def _list(value: Any, info: Any) -> Any:
    """A single entry may stand where a list is usual."""
    items = [value] if isinstance(value, dict) and value else value
    if not isinstance(items, list):
        return _NONE
    fits = (_fit(item, info.item_type) for item in items)
    return [fit for fit in fits if fit is not _NONE]


def _dict(value: Any, _info: Any) -> Any:
    return value if isinstance(value, dict) else _NONE


_FIT: dict[type, Callable[[Any, Any], Any]] = {
    inspect.StructType: _struct,
    inspect.UnionType: _union,
    inspect.StrType: _str,
    inspect.IntType: _int,
    inspect.FloatType: _float,
    inspect.BoolType: _bool,
    inspect.ListType: _list,
    inspect.VarTupleType: _list,
    inspect.DictType: _dict,
}
_PYTHON: dict[type, type | tuple[type, ...]] = {
    inspect.StructType: dict,
    inspect.DictType: dict,
    inspect.StrType: str,
    inspect.ListType: list,
    inspect.VarTupleType: list,
}
