"""Background answers, as OpenAI's Responses API keeps them: to be followed again, or looked at.

GET /v1/responses/ID?stream=true&starting_after=N serves the events behind number N; without
`stream` the whole object; POST /v1/responses/ID/cancel stops it.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from unbroken.errors import BadRequest, NotFound
from unbroken.simulator.steps import JSON, End, Head, Send, Step
from unbroken.wire.sse import SseDecoder

_decode = msgspec.json.Decoder(dict[str, Any]).decode


MAX_STORED = 100
"""Answers that are kept: a simulator may answer for months."""


class StoredResponses:
    """The answers by id, each as the steps of an undisturbed stream."""

    def __init__(self) -> None:
        self._answers: dict[str, list[Step]] = {}

    def keep(self, steps: list[Step]) -> None:
        """Remember an answer; its first event says its id."""
        first = next(_events(step) for step in steps if isinstance(step, Send))
        self._answers[first[0]["response"]["id"]] = steps
        while len(self._answers) > MAX_STORED:
            del self._answers[next(iter(self._answers))]  # the oldest

    def serve(self, id: str, query: Mapping[str, str]) -> list[Step]:
        """The rest of an answer, or the whole. NotFound (404) for what was never kept."""
        steps = self._answers.get(id)
        if steps is None:
            raise NotFound(f"Response with id {id!r} not found.", status=404)
        if query.get("stream") == "true":
            return _behind(steps, _number(query.get("starting_after", "-1")))
        last = [event for step in steps if isinstance(step, Send) for event in _events(step)][-1]
        return [Head(200, dict(JSON)), Send(msgspec.json.encode(last["response"])), End()]

    def cancel(self, id: str) -> list[Step]:
        """Stop an answer: what is left of it is only that."""
        steps = self.serve(id, {})
        body = _decode(next(step.data for step in steps if isinstance(step, Send)))
        said = msgspec.json.encode({**body, "status": "cancelled", "output": []})
        return [Head(200, dict(JSON)), Send(said), End()]


def _behind(steps: list[Step], seen: int) -> list[Step]:
    """The steps without the events up to that number."""
    return [
        step
        for step in steps
        if not isinstance(step, Send) or all(e["sequence_number"] > seen for e in _events(step))
    ]


def _events(step: Send) -> list[dict[str, Any]]:
    return [_decode(frame.data) for frame in SseDecoder().feed(step.data)]


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise BadRequest(f"starting_after={text!r} is no number", status=400) from None
