"""The simulated provider's side of the network: paths, dialects, counts, and a log.

The transports and the server all ask `World.answer` what to do; none of them knows a dialect.
"""

from collections.abc import Mapping

import msgspec
from msgspec import Struct

from unbroken.errors import BadRequest, NotFound, ProviderError
from unbroken.messages import Request
from unbroken.simulator.player import play
from unbroken.simulator.scenario import PACES, Scenario, named, parse
from unbroken.simulator.steps import JSON, End, Head, Send, Step, refuse
from unbroken.wire import anthropic_messages, openai_chat
from unbroken.wire.codec import Codec

HEADER = "x-unbroken-scenario"

DIALECTS: dict[str, Codec] = {
    "/chat/completions": openai_chat.CODEC,
    "/messages": anthropic_messages.CODEC,
}


class Entry(Struct):
    """One line of the log. `ended` says how: `whole`, `reset`, `closed`, `client left`, ..."""

    path: str
    model: str = ""
    status: int = 0
    sent: int = 0
    ended: str = "open"
    headers: dict[str, str] = {}


class World:
    """All requests that one simulator has seen, and what it answers to the next."""

    def __init__(self, scenarios: Mapping[str, Scenario] | None = None) -> None:
        self.log: list[Entry] = []
        self._scenarios = dict(scenarios or {})
        self._counts: dict[str, int] = {}

    def answer(
        self, path: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[list[Step], Entry]:
        """The steps of the answer, and the log's line to fill in."""
        entry = Entry(path, headers=dict(headers))
        self.log.append(entry)
        if path.endswith("/models"):
            return _models(as_anthropic="anthropic-version" in headers), entry
        codec = next((c for end, c in DIALECTS.items() if path.endswith(end)), None)
        if codec is None:
            known = ", ".join(f"/v1{end}" for end in DIALECTS)
            missing = NotFound(f"no such path: {path}; there are {known}, /v1/models", status=404)
            return refuse(missing, openai_chat.CODEC), entry
        try:
            return self._play(codec, headers, body, entry), entry
        except ProviderError as error:
            return refuse(error, codec), entry

    def _play(
        self, codec: Codec, headers: Mapping[str, str], body: bytes, entry: Entry
    ) -> list[Step]:
        asked = codec.dialect.decode_request(body)
        if not asked.messages:
            raise BadRequest("messages is empty", status=400, code="invalid_request_error")
        model, _, query = asked.model.removeprefix("sim/").partition("?")
        entry.model = model
        known = named() | self._scenarios
        scenario = known.get(model, self._scenarios.get("*", Scenario()))
        scenario = parse(query, scenario) if query else scenario
        if header := headers.get(HEADER):
            scenario = parse(header, scenario)
        request: Request = msgspec.structs.replace(asked, model=model)
        return play(request, codec, scenario, self._count(f"{asked.model} {header}"))

    def _count(self, key: str) -> int:
        self._counts[key] = self._counts.get(key, 0) + 1
        return self._counts[key]


def _models(*, as_anthropic: bool) -> list[Step]:
    """The list of models, in the shape of whoever asks."""
    names = [name or "demo" for name in PACES]
    if as_anthropic:
        data = [{"type": "model", "id": name, "display_name": name} for name in names]
        body = {"data": data, "has_more": False, "first_id": names[0], "last_id": names[-1]}
    else:
        shown = [{"id": n, "object": "model", "created": 0, "owned_by": "sim"} for n in names]
        body = {"object": "list", "data": shown}
    return [Head(200, dict(JSON)), Send(msgspec.json.encode(body)), End()]
