"""Cache breakpoints for callers whose dialect has no word for them.

Anthropic keeps a prefix of a prompt only where it is asked to
(platform.claude.com/docs/en/build-with-claude/prompt-caching: at most four breakpoints, and no
prefix of less than 1,024 tokens).
"""

from collections.abc import Iterator
from typing import Any

import msgspec

WORTH_CACHING = 4096
"""Bytes of a prompt, about four a token, below which no model of Anthropic's caches anything."""

_BREAKPOINT = {"cache_control": {"type": "ephemeral"}}
_UNCACHEABLE = frozenset({"thinking", "redacted_thinking"})


def place_breakpoints(body: dict[str, Any]) -> bool:
    """Mark the last tool, the end of the system prompt, and the last two turns of the user.

    Nothing is marked where the caller placed breakpoints, or where the prompt is short.
    """
    raw = msgspec.json.encode([body.get(name) for name in ("tools", "system", "messages")])
    if len(raw) < WORTH_CACHING or b'"cache_control"' in raw:
        return False
    if isinstance(body.get("system"), str):
        body["system"] = [{"type": "text", "text": body["system"]}]
    for blocks in _places(body):
        if blocks and blocks[-1].get("type") not in _UNCACHEABLE:
            blocks[-1] = blocks[-1] | _BREAKPOINT
    return True


def _places(body: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    yield body.get("tools") or []
    yield body.get("system") or []
    asked = [turn for turn in body["messages"] if turn["role"] == "user"]
    yield from (turn["content"] for turn in asked[-2:] if isinstance(turn["content"], list))
