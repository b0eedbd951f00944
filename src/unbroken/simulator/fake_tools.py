"""Decides when the simulated model calls a tool, and with which arguments."""

import re

import msgspec

from unbroken.errors import BadRequest
from unbroken.messages import Request, Tool, ToolResult, ToolUse
from unbroken.simulator import fake_json
from unbroken.simulator.rng import Rng

_WORD = re.compile(r"[a-z]{3,}")

MAX_CALLS = 8
"""Calls of one answer, however many tools there are."""

MAX_NAME = 128
"""Characters of a tool's name, as at Anthropic."""

_TOOLS, _QUESTION = 256, 4096
"""Tools that are looked at, and characters of the question."""


def calls(request: Request, rng: Rng, room: int) -> list[ToolUse]:
    """Return the calls of the answer: forced ones, or those whose words the question uses.

    Their arguments have about `room` characters in all at most.
    """
    choice = request.tool_choice
    mode = "auto" if choice is None else choice.mode
    if not request.tools or mode == "none" or _answered(request):
        return []
    chosen = [tool for tool in request.tools if choice is None or choice.name in ("", tool.name)]
    question = _question(request)
    fitting = [tool for tool in chosen[:_TOOLS] if _fits(tool, question)]
    if mode in ("required", "tool"):
        fitting = fitting or chosen[:1]
    fitting = fitting[: 1 if request.parallel_tool_calls is False else MAX_CALLS]
    share = room // max(len(fitting), 1)
    return [_call(tool, number, rng, share) for number, tool in enumerate(fitting)]


def _answered(request: Request) -> bool:
    last = request.messages[-1].parts if request.messages else ()
    return any(isinstance(part, ToolResult) for part in last)


def _question(request: Request) -> str:
    asked = (message.text for message in reversed(request.messages) if message.role == "user")
    return next(asked, "")[:_QUESTION].lower()


def _fits(tool: Tool, question: str) -> bool:
    words = _WORD.findall(tool.name[:MAX_NAME].lower())
    return any(word in question for word in words if word != "get")


def _call(tool: Tool, number: int, rng: Rng, room: int) -> ToolUse:
    if len(tool.name) > MAX_NAME:
        said = f"the name of a tool has at most {MAX_NAME} characters"
        raise BadRequest(said, status=400, code="invalid_request_error")
    schema = tool.parameters or {"type": "object"}
    arguments = fake_json.value(schema, "value", rng, room)
    id = f"call_{int(rng.random() * 16**8):08x}{number}"
    return ToolUse(id, tool.name, msgspec.json.encode(arguments).decode())
