"""What an answer used that no provider has told the usage of, or not all.

An answer that is stopped or breaks off comes without its usage, which stands at its end: but its
tokens were made, and are paid for. So they are counted as one for every four bytes, the usual rule
for English; what was reported is never made less. What a model thought without showing it is
unknown and not in it.
"""

import msgspec

from unbroken.client.history import estimate
from unbroken.events import Usage
from unbroken.messages import Message, Part, Reasoning, Request, Text, ToolResult, ToolUse
from unbroken.response import Choice, Response

_PER_IMAGE = 1000  # tokens, as `client/history.py` has it


def usage_of(request: Request, response: Response) -> Usage | None:
    """What the answer to `request` used; its `source` is `estimated` where something had to be.

    None for an answer that failed before anything came: it was refused, or nobody was there.
    """
    told = response.usage
    if told is not None and told.source == "reported":
        return told
    said = sum(map(_said, response.choices))
    if told is None and not said and response.end == "failed":
        return None
    told = told or Usage()
    return msgspec.structs.replace(
        told,
        input_tokens=max(told.input_tokens, _asked(request)),
        output_tokens=max(told.output_tokens, said),
        source="estimated",
    )


def cost_of(response: Response, usage: Usage | None) -> float | None:
    """What that usage costs in USD, or None where no price is known.

    An estimate is priced as if the last attempt had made all of it; what is known is never less.
    """
    tried = [attempt for attempt in (*response.attempts, response.running) if attempt is not None]
    if usage is None or usage is response.usage or not tried:
        return response.cost
    priced = tried[-1].quote(tried[-1].provider, tried[-1].model, usage)
    known = [cost for cost in (response.cost, priced) if cost is not None]
    return max(known, default=None)


def _asked(request: Request) -> int:
    tools = msgspec.json.encode(request.tools).decode() if request.tools else ""
    return estimate(tools) + sum(map(_message, request.messages))


def _message(message: Message) -> int:
    return sum(map(_part, message.parts))


def _part(part: Part) -> int:
    """An image's bytes say nothing of its tokens; the tags around a text stand for the turn's."""
    text = isinstance(part, Text | ToolUse | ToolResult | Reasoning)
    return estimate(msgspec.json.encode(part).decode()) if text else _PER_IMAGE


def _said(choice: Choice) -> int:
    shown = choice.text + choice.reasoning + choice.refusal
    whole = [call.name + msgspec.json.encode(call.arguments).decode() for call in choice.tool_calls]
    begun = [call.name + call.arguments for call in choice.partial_tool_calls]
    return estimate("".join((shown, *whole, *begun)))
