"""Tools that a model may call, and how they are read from what callers write."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from unbroken.errors import LocalProtocolError
from unbroken.messages.anthropic import ttl
from unbroken.messages.functions import describe
from unbroken.messages.worded import format_error
from unbroken.parts import CHAT, MESSAGES, RESPONSES, Native
from unbroken.ready import ready

Kind = Literal["function", "custom", "namespace", "hosted"]


class Tool(Struct, frozen=True):
    """A tool. `parameters` is the JSON schema of a function.

    `kind` is `function`; `custom`, which takes free text (`format` is its grammar, if it has one);
    `namespace`, which holds `tools`; or `hosted`, which the provider runs itself and which is known
    by its `native` alone.
    """

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    strict: bool | None = None
    kind: Kind = "function"
    native: Native | None = None
    tools: "tuple[Tool, ...]" = ()
    cache: str = ""
    format: dict[str, Any] | None = None

    def native_of(self, dialect: str) -> Any:
        """The JSON of this tool in `dialect`, or None if it was read from another."""
        found = self.native
        return found.data if found is not None and found.dialect == dialect else None


class ToolChoice(Struct, frozen=True):
    """`mode` is `auto`, `none`, `required`, or `tool` with the one tool's `name`."""

    mode: Literal["auto", "none", "required", "tool"]
    name: str = ""


@ready
class _Words(Struct):
    """A tool in any of the shapes."""

    name: str = ""
    description: str | None = None
    parameters: dict[str, Any] | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None
    cache_control: Any = None
    format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None


ToolLike = Tool | Mapping[str, Any] | Callable[..., Any]
"""A tool, a dict in one of the providers' shapes, or a Python function."""


def tools_from(items: Iterable[ToolLike], dialect: str = "") -> tuple[Tool, ...]:
    """Read a list of tools; `dialect` is the one that dicts are in, "" to tell by their shape.

    LocalProtocolError names the place and the fault.
    """
    if isinstance(items, str | bytes | Mapping) or not isinstance(items, Iterable):
        raise LocalProtocolError(f"tools is a list of tools, not {type(items).__name__}")
    return tuple(_tool(item, place, dialect) for place, item in enumerate(items))


def _tool(item: ToolLike, place: int, dialect: str) -> Tool:
    if isinstance(item, Tool):
        return item
    try:
        return _read(dict(item), dialect) if isinstance(item, Mapping) else Tool(*describe(item))
    except msgspec.ValidationError as error:
        raise LocalProtocolError(
            f"tools[{place}]: {format_error(error)}: a tool is "
            f"{{'name': ..., 'parameters': {{...}}}}, or a function with type hints"
        ) from error


def _read(item: dict[str, Any], dialect: str) -> Tool:
    kind = _kind(item, dialect)
    wrapped = item.get(str(item.get("type", "function")))
    inner = wrapped if isinstance(wrapped, dict) and kind in ("function", "custom") else None
    native = _native(item, inner, dialect)
    read = msgspec.convert(item if inner is None else inner, _Words)
    if kind == "hosted":
        return Tool(read.name or item["type"], kind="hosted", native=native)
    if not read.name:
        raise msgspec.ValidationError("Object missing required field `name`")
    return Tool(
        read.name,
        read.description or "",
        read.parameters or read.input_schema or {},
        read.strict,
        kind,
        native,
        tuple(_read(one, dialect or RESPONSES) for one in read.tools or ()),
        ttl(item.get("cache_control") or read.cache_control),
        read.format,
    )


def _kind(item: dict[str, Any], dialect: str) -> Kind:
    """What a tool is. Anthropic calls the caller's own functions `custom`; at OpenAI that word
    means free text.
    """
    kind = item.get("type", "function")
    if kind == "function" or "input_schema" in item or (kind == "custom" and dialect == MESSAGES):
        return "function"
    if kind in ("custom", "namespace"):
        return "custom" if kind == "custom" else "namespace"
    return "hosted" if isinstance(kind, str) else "function"


def _native(item: dict[str, Any], inner: Any, dialect: str) -> Native | None:
    """The JSON of a tool, in the dialect that was named or that its shape shows."""
    flat = inner is None and item.get("type", "function") == "function"
    if dialect == CHAT and flat:
        return None  # as in the Responses API: chat completions would refuse it
    return Native(dialect, item) if dialect else _guessed(item, inner)


def _guessed(item: dict[str, Any], inner: Any) -> Native | None:
    if inner is not None:
        return Native(CHAT, item)
    if "input_schema" in item:
        return Native(MESSAGES, item)
    kind = item.get("type")
    if not isinstance(kind, str):
        return None
    dated = re.search(r"_\d{8}$", kind)  # web_search_20250305
    return Native(MESSAGES if dated else RESPONSES, item)


def tool_choice_from(choice: ToolChoice | str | Mapping[str, Any] | None) -> ToolChoice | None:
    """Read a tool choice: `auto`, `none`, `required`, a tool's name, or the OpenAI dict."""
    if choice is None or isinstance(choice, ToolChoice):
        return choice
    if isinstance(choice, str):
        known = choice in ("auto", "none", "required")
        return ToolChoice(choice) if known else ToolChoice("tool", choice)  # type: ignore[arg-type]
    kind = str(choice.get("type", "function")) if isinstance(choice, Mapping) else ""
    inner = choice.get(kind, choice) if isinstance(choice, Mapping) else None
    if isinstance(inner, Mapping):
        if isinstance(name := inner.get("name"), str):
            return ToolChoice("tool", name)
        if mode := _MODES.get(str(inner.get("mode", kind))):
            return ToolChoice(mode)
    raise LocalProtocolError(
        "tool_choice is 'auto', 'none', 'required', a tool's name, "
        "or {'type': 'function', 'function': {'name': ...}}"
    )


_MODES: dict[Any, Literal["auto", "none", "required"]] = {
    "auto": "auto",
    "none": "none",
    "required": "required",
    "any": "required",
}
