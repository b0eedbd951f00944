"""What both drivers share: from a call's arguments to a delivery, without any waiting."""

import difflib
import os
import random
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from unbroken.client._check import check_call, check_client
from unbroken.client._config import load
from unbroken.engine.delivery import Delivery
from unbroken.engine.guards import GuardRegistry
from unbroken.engine.limits import Limits
from unbroken.engine.policy import RecoveryPolicy, Timeouts
from unbroken.engine.recovery import Target
from unbroken.errors import AuthenticationFailed, ConfigurationError, LocalProtocolError
from unbroken.events import Usage
from unbroken.messages import (
    Prompt,
    Request,
    ToolChoice,
    ToolLike,
    format_error,
    messages_from,
    stop_from,
    tool_choice_from,
    tools_from,
    validate,
)
from unbroken.metrics.answered import Observer, Watch
from unbroken.metrics.prices import context_window, quote
from unbroken.providers import registry
from unbroken.providers.base import Provider
from unbroken.response import Response, unpriced
from unbroken.structured import output_format


class Parameters(TypedDict, total=False):
    """Keyword arguments of `stream` and `complete`; see docs/reference/parameters.md."""

    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    stop: str | Sequence[str]
    seed: int
    n: int
    system: str
    tools: Sequence[ToolLike]
    tool_choice: ToolChoice | str | Mapping[str, Any]
    parallel_tool_calls: bool
    response_format: dict[str, Any] | type
    reasoning_effort: str
    frequency_penalty: float
    presence_penalty: float
    logprobs: bool
    top_logprobs: int
    user: str
    metadata: dict[str, Any]
    extra: dict[str, Any]
    headers: dict[str, str]
    timeouts: Timeouts
    recovery: RecoveryPolicy
    hedge_after: float


Models = str | Sequence[str] | None
"""`provider/model`, the name of a route, or a list of both: each stands in for the one before."""

OneOrEach = str | Mapping[str, str] | None
"""A value for whatever provider is used, or one for each by the provider's name."""


class Settings(Struct, frozen=True, kw_only=True):
    """What a client was given; `env` is the environment with `.env` below it."""

    api_key: OneOrEach = None
    base_url: OneOrEach = None
    timeouts: Timeouts
    recovery: RecoveryPolicy
    routes: Mapping[str, Sequence[str]] = {}
    env: Mapping[str, str]
    guards: GuardRegistry
    observers: Sequence[Observer] = ()
    implied_finish: bool | Collection[str] = False


def environment(directory: str = ".") -> dict[str, str]:
    """The process's environment over what a `.env` file in `directory` says."""
    path = Path(directory, ".env")
    if not path.is_file():
        return dict(os.environ)
    from dotenv import dotenv_values

    try:
        found = {name: value for name, value in dotenv_values(path).items() if value is not None}
    except UnicodeDecodeError as error:
        why = f"{path} is not UTF-8: {error.reason} at byte {error.start}"
        raise ConfigurationError(why) from error
    return found | dict(os.environ)


def settings(  # noqa: PLR0913  # by keyword
    *,
    api_key: OneOrEach,
    base_url: OneOrEach,
    timeouts: Timeouts | None,
    recovery: RecoveryPolicy | None,
    routes: Mapping[str, Sequence[str]] | None,
    limits: Mapping[str, Limits] | None,
    observers: Sequence[Observer],
    implied_finish: bool | Collection[str],
) -> Settings:
    """What was given, over what the environment and the configuration file say."""
    check_client(
        api_key=api_key,
        base_url=base_url,
        timeouts=timeouts,
        recovery=recovery,
        routes=routes,
        limits=limits,
    )
    env = environment()
    config = load(env)
    return Settings(
        api_key=api_key,
        base_url=base_url,
        timeouts=timeouts or Timeouts(),
        recovery=recovery or RecoveryPolicy(),
        routes={**config.routes, **(routes or {})},
        env=env,
        guards=GuardRegistry({**config.limits, **(limits or {})}),
        observers=observers,
        implied_finish=implied_finish,
    )


def reloaded(running: Settings, fresh: Settings) -> Settings:
    """Return `fresh` with the running rate limiters and circuit breakers, under the new limits."""
    running.guards.set_limits(fresh.guards.limits)
    return msgspec.structs.replace(fresh, guards=running.guards)


def default_model(env: Mapping[str, str]) -> str:
    """The model when none is named: UNBROKEN_MODEL, a provider with a key, or the simulator."""
    return env.get("UNBROKEN_MODEL") or next(iter(configured(env)), "sim/demo")


def configured(env: Mapping[str, str]) -> list[str]:
    """`provider/model` of every provider whose key is in the environment and has a default."""
    found = []
    for name in registry.defaults():
        variable = registry.provider(name).auth.env
        if variable and env.get(variable):
            found.append(f"{name}/{registry.default_model(name)}")
    return found


def plan(
    settings: Settings, models: Models, prompt: Prompt, parameters: Parameters, *, stream: bool
) -> tuple[list[Provider], Delivery, Watch]:
    """Return the providers, the delivery, and what informs the observers.

    Raises ConfigurationError, LocalProtocolError or AuthenticationFailed before anything is sent.
    """
    check_call(parameters)
    asked = _asked(settings, models)
    names = _route(settings, asked)
    route = [_target(settings, name, prompt, parameters, stream=stream) for name in names]
    route[0] = _with_first_request(route[0], alone=len(route) == 1)
    providers = [target.provider for target in route]
    timeouts = parameters.get("timeouts") or settings.timeouts
    recovery = parameters.get("recovery") or settings.recovery
    if (hedge := parameters.get("hedge_after")) is not None:
        recovery = msgspec.structs.replace(recovery, hedge_after=hedge)
    form = None if (wanted := parameters.get("response_format")) is None else output_format(wanted)
    reads = None if form is None else form.parse
    watch = Watch(settings.observers, asked[0], route[0].request)
    return providers, Delivery(route, timeouts, recovery, random.random, price, reads), watch


def _with_first_request(target: Target, *, alone: bool) -> Target:
    """Build the first request, so that what is wrong with it is raised before anything is sent.

    Requests of fallbacks are built when they are sent: signing one may fetch credentials. Where
    there is a fallback, a request that this model can't express is left to that one.
    """
    try:
        return msgspec.structs.replace(target, first=target.again())
    except LocalProtocolError:
        if alone:
            raise
        return target


def _asked(settings: Settings, models: Models) -> Sequence[str]:
    """What was asked for, as a list."""
    if models is None or isinstance(models, str):
        return [models or default_model(settings.env)]
    if isinstance(models, bytes) or not isinstance(models, Sequence):
        raise LocalProtocolError(_MODEL)
    return models


_MODEL = "model is a name, or a list of names to fall back on in order"


def _route(settings: Settings, asked: Sequence[str]) -> list[str]:
    """The names of the models in the order they are asked, routes written out."""
    if not all(isinstance(name, str) for name in asked):
        raise LocalProtocolError(_MODEL)
    names = [one for name in asked for one in settings.routes.get(name, (name,))]
    if not names:
        raise LocalProtocolError("the list of models is empty")
    return list(dict.fromkeys(names))


def price(name: str, model: str, usage: Usage) -> float | None:
    """What an answer cost; a simulated one nothing, whatever model it plays."""
    return (
        unpriced(name, model, usage)
        if registry.provider(name).in_process
        else quote(name, model, usage)
    )


def closed(response: Response) -> LocalProtocolError:
    """Return the error of a call to a client that is closed, before or during the answer."""
    error = LocalProtocolError("the client is closed", hint="Ask while it is open.")
    error.response = response
    return error


def host(provider: Provider) -> str:
    """The host name under which a provider is asked."""
    return urlsplit(provider.base_url).hostname or ""


def _target(
    settings: Settings, name: str, prompt: Prompt, parameters: Parameters, *, stream: bool
) -> Target:
    """Return one model of the route, and what it is asked."""
    provider, model = registry.resolve(name, elsewhere=isinstance(settings.base_url, str))
    if _implies_finish(settings, provider):
        provider = provider.with_implied_finish()
    request = request_from(model, prompt, parameters, stream=stream)
    key, base_url = _key(settings, provider), _base_url(settings, provider)
    limiter, circuit = settings.guards.of(provider.name, base_url, key, model)
    return Target(
        provider=provider,
        request=request,
        build=lambda again: provider.http_request(again, key, base_url),
        resume=lambda cursor: provider.resume_request(cursor, key, base_url),
        limiter=limiter,
        circuit=circuit,
        window=context_window,
    )


def _implies_finish(settings: Settings, provider: Provider) -> bool:
    named = settings.implied_finish
    return named if isinstance(named, bool) else provider.name in named


def request_from(model: str, prompt: Prompt, parameters: Parameters, *, stream: bool) -> Request:
    """The question in a call's arguments. LocalProtocolError says what is wrong with them."""
    given: dict[str, Any] = {k: v for k, v in parameters.items() if v is not None}
    if isinstance(prompt, Request):
        given = msgspec.structs.asdict(prompt) | {"stream": stream}
        return validate(_checked(given, model))
    stop, tools = given.pop("stop", None), given.pop("tools", None)
    choice, system = given.pop("tool_choice", None), given.pop("system", None)
    form = output_format(given.pop("response_format")) if "response_format" in given else None
    for name in OF_THE_CALL:
        given.pop(name, None)
    for name in given.keys() - Parameters.__annotations__.keys():
        raise LocalProtocolError(_unknown(name))
    request = msgspec.structs.replace(
        _checked({**given, "messages": ()}, model),
        messages=messages_from(prompt, system),
        stream=stream,
        stop=stop_from(stop),
        tools=None if tools is None else tools_from(tools),
        tool_choice=tool_choice_from(choice),
        response_format=form and form.response_format,
    )
    return validate(request)


OF_THE_CALL = ("timeouts", "recovery", "hedge_after")
"""Parameters that are not part of the question."""


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, Parameters.__annotations__, n=1)
    meant = f"did you mean {near[0]!r}? " if near else ""
    return (
        f"unknown parameter {name!r}: {meant}What only one provider knows goes into "
        f"extra={{{name!r}: ...}}"
    )


def _checked(given: dict[str, Any], model: str) -> Request:
    """The parameters that go through as they are, with the types that a request has for them."""
    try:
        return msgspec.convert({**given, "model": model}, Request)
    except msgspec.ValidationError as error:
        raise LocalProtocolError(format_error(error)) from error


def _for(value: OneOrEach, provider: Provider) -> str | None:
    return value if isinstance(value, str) or value is None else value.get(provider.name)


def _key(settings: Settings, provider: Provider) -> str:
    auth = provider.auth
    given = _for(settings.api_key, provider) or ""
    key = given.strip() or provider.key_in(settings.env)
    if auth.required and not key:
        missing = AuthenticationFailed(f"no key for {provider.name}")
        missing.advice = f"Set {auth.env} (in the environment or in .env), or pass api_key."
        raise missing
    return key


def _nowhere(provider: Provider) -> str:
    set_it = f"set {provider.base_url_env} or " if provider.base_url_env else ""
    return f"{provider.name} has no base URL: {set_it}give base_url="


def _base_url(settings: Settings, provider: Provider) -> str:
    variable = provider.base_url_env
    url = _for(settings.base_url, provider) or (variable and settings.env.get(variable))
    found = url or provider.located(settings.env)
    if not _is_address(found):
        raise ConfigurationError(
            f"the base URL of {provider.name} is {found!r}" if found else _nowhere(provider),
            hint="It begins with http:// or https://, and a host follows.",
        )
    return found


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        web = url.startswith(("http://", "https://"))
        return web and bool(parts.hostname) and parts.port != 0
    except ValueError:  # half an IPv6 address, or a port that is no number
        return False
