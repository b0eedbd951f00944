"""When the simulated model calls a tool, and with which arguments."""

import re

import msgspec

from unbroken.messages import Request, Tool, ToolUse
from unbroken.simulator import fake_json
from unbroken.simulator.rng import Rng

_WORD = re.compile(r"[a-z]{3,}")


def calls(request: Request, rng: Rng) -> list[ToolUse]:
    """The calls this request leads to: forced ones, or those whose words the question uses."""
    choice = request.tool_choice
    mode = "auto" if choice is None else choice.mode
    if not request.tools or mode == "none" or _answered(request):
        return []
    chosen = [tool for tool in request.tools if choice is None or choice.name in ("", tool.name)]
    fitting = [tool for tool in chosen if _fits(tool, _question(request))]
    if mode in ("required", "tool"):
        fitting = fitting or chosen[:1]
    if request.parallel_tool_calls is False:
        fitting = fitting[:1]
    return [_call(tool, number, rng) for number, tool in enumerate(fitting)]


def _answered(request: Request) -> bool:
    return bool(request.messages) and request.messages[-1].role == "tool"


def _question(request: Request) -> str:
    asked = [message.text for message in request.messages if message.role == "user"]
    return asked[-1].lower() if asked else ""


def _fits(tool: Tool, question: str) -> bool:
    return any(word in question for word in _WORD.findall(tool.name.lower()) if word != "get")


def _call(tool: Tool, number: int, rng: Rng) -> ToolUse:
    arguments = fake_json.value(tool.parameters or {"type": "object"}, "value", rng)
    id = f"call_{int(rng.random() * 16**8):08x}{number}"
    return ToolUse(id, tool.name, msgspec.json.encode(arguments).decode())
