"""What a call and a client are given, looked at before anything is done with it.

Callers without a type checker learn here which argument is wrong and what it should be, instead of
from an AttributeError far below.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from unbroken.engine.limits import Limits
from unbroken.engine.policy import RecoveryPolicy, Timeouts
from unbroken.errors import ConfigurationError, LocalProtocolError

_OWN = {"timeouts": Timeouts, "recovery": RecoveryPolicy}


def check_call(parameters: Mapping[str, Any]) -> None:
    """The parameters that are not part of the question. LocalProtocolError names the wrong one."""
    for name in _OWN:
        if fault := _own(name, parameters.get(name)):
            raise LocalProtocolError(fault)
    hedge = parameters.get("hedge_after")
    if hedge is not None and not (type(hedge) in (int, float) and hedge >= 0):
        raise LocalProtocolError(f"hedge_after is a number of seconds from 0 up, not {hedge!r}")


def check_client(**given: Any) -> None:
    """The arguments of a client. ConfigurationError names the wrong one."""
    fault = next(filter(None, (_own(name, given[name]) for name in _OWN)), "")
    for name in ("api_key", "base_url"):
        fault = fault or _one_or_each(name, given[name])
    if fault := fault or _routes(given["routes"]) or _limits(given["limits"]):
        raise ConfigurationError(fault)


def _own(name: str, value: Any) -> str:
    kind = _OWN[name]
    fits = value is None or isinstance(value, kind)
    return "" if fits else f"{name} is an unbroken.{kind.__name__}(...), not {value!r}"


def _one_or_each(name: str, value: Any) -> str:
    """Without the value: it may be a key."""
    if value is None or isinstance(value, str):
        return ""
    each = isinstance(value, Mapping) and all(isinstance(one, str) for one in value.values())
    return "" if each else f"{name} is a string, or a mapping of strings by provider name"


def _routes(routes: Any) -> str:
    if routes is not None and not isinstance(routes, Mapping):
        return f"routes is a mapping of names to lists of models, not {routes!r}"
    for name, models in (routes or {}).items():
        lists = isinstance(models, Sequence) and not isinstance(models, str | bytes)
        if not (lists and models and all(isinstance(model, str) for model in models)):
            return f"routes: {name!r} is a list of models, not {models!r}"
    return ""


def _limits(limits: Any) -> str:
    fits = limits is None or isinstance(limits, Mapping)
    if not (fits and all(isinstance(one, Limits) for one in (limits or {}).values())):
        return f"limits is a mapping of provider names to unbroken.Limits(...), not {limits!r}"
    return ""
