"""The simulated provider's side of the network: paths, dialects, counts, and a log.

Transports and the HTTP server ask `SimulatedServer.answer` what to do; neither knows a dialect.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec
from msgspec import Struct

from unbroken.errors import BadRequest, NotFound, ProviderError
from unbroken.messages import Request
from unbroken.simulator.player import play
from unbroken.simulator.scenario import PACES, Scenario, named, parse
from unbroken.simulator.steps import JSON, End, Head, Send, Step, refuse
from unbroken.simulator.stored import StoredResponses
from unbroken.wire import (
    anthropic_messages,
    bedrock_converse,
    gemini,
    openai_chat,
    openai_responses,
)
from unbroken.wire.codec import Codec

HEADER = "x-unbroken-scenario"

YOUNGEST = 10_000
"""Requests that the log holds: a simulator may answer for months."""
_NAME = 200
"""Characters of a model's name that it holds."""

# A dialect by the end of its path. Where the path names the model, and whether the answer is
# streamed, the body does not.
DIALECTS: tuple[tuple[re.Pattern[str], Codec], ...] = (
    (re.compile(r"/chat/completions$"), openai_chat.CODEC),
    (re.compile(r"/messages$"), anthropic_messages.CODEC),
    (re.compile(r"/responses$"), openai_responses.CODEC),
    (
        re.compile(r"/model/(?P<model>[^/]+)/converse(?P<stream>-stream)?$"),
        bedrock_converse.CODEC,
    ),
    (
        re.compile(r"/models/(?P<model>.+):(?:(?P<stream>streamG)|g)enerateContent$"),
        gemini.CODEC,
    ),
)
_KEPT = re.compile(r"/responses/(?P<id>[^/]+)(?P<cancel>/cancel)?$")


class Entry(Struct):
    """One line of the log. `ended` says how: `whole`, `reset`, `closed`, `client left`, ..."""

    path: str
    model: str = ""
    status: int = 0
    sent: int = 0
    ended: str = "open"
    headers: dict[str, str] = {}


class SimulatedServer:
    """The youngest requests that one simulator has seen, and what it answers to the next."""

    def __init__(self, scenarios: Mapping[str, Scenario] | None = None) -> None:
        self.log: list[Entry] = []
        self._scenarios = dict(scenarios or {})
        self._counts: dict[str, int] = {}
        self._kept = StoredResponses()

    def answer(
        self, path: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[Iterator[Step], Entry]:
        """The steps of the answer, and the log's line to fill in. `path` may carry a query."""
        place, _, query = path.partition("?")
        entry = Entry(place, headers=dict(headers))
        self.log.append(entry)
        del self.log[:-YOUNGEST]
        if place.endswith("/models"):
            shape = "anthropic" if "anthropic-version" in headers else "openai"
            return iter(_models("gemini" if place == "/v1beta/models" else shape)), entry
        found = ((codec, pattern.search(place)) for pattern, codec in DIALECTS)
        codec, match = next(((c, m) for c, m in found if m), (openai_chat.CODEC, None))
        try:
            if match is None:
                return iter(self._elsewhere(place, query)), entry
            return self._play(codec, match, headers, body, entry), entry
        except ProviderError as error:
            return iter(refuse(error, codec)), entry

    def _elsewhere(self, path: str, query: str) -> list[Step]:
        """An answer that was kept, or nothing that we know."""
        match = _KEPT.search(path)
        if match is None:
            raise NotFound(f"no such path: {path}; there are {_PATHS}", status=404)
        if match["cancel"]:
            return self._kept.cancel(match["id"])
        return self._kept.serve(match["id"], dict(parse_qsl(query)))

    def _play(
        self,
        codec: Codec,
        match: re.Match[str],
        headers: Mapping[str, str],
        body: bytes,
        entry: Entry,
    ) -> Iterator[Step]:
        asked = _as_the_path_says(codec.dialect.decode_request(body), match)
        if not asked.messages:
            raise BadRequest("messages is empty", status=400, code="invalid_request_error")
        model, _, query = asked.model.removeprefix("sim/").partition("?")
        entry.model = model[:_NAME]
        known = named() | self._scenarios
        scenario = known.get(model, self._scenarios.get("*", Scenario()))
        scenario = parse(query, scenario) if query else scenario
        if header := headers.get(HEADER):
            scenario = parse(header, scenario)
        request: Request = msgspec.structs.replace(asked, model=model[:_NAME])
        if codec is openai_responses.CODEC and asked.option("background"):
            calm = msgspec.structs.replace(scenario, faults=())
            streamed = msgspec.structs.replace(request, stream=True)
            self._kept.keep(list(play(streamed, codec, calm, 1)))
        return play(request, codec, scenario, self._count(f"{asked.model} {header}"))

    def _count(self, key: str) -> int:
        """How often this was asked. After too many names all are forgotten: faults begin anew."""
        if len(self._counts) >= YOUNGEST and key not in self._counts:
            self._counts.clear()
        self._counts[key] = self._counts.get(key, 0) + 1
        return self._counts[key]


_PATHS = (
    "/v1/chat/completions, /v1/messages, /v1/responses, /model/ID/converse-stream, "
    "/v1beta/models/ID:streamGenerateContent, /v1/models"
)


def _as_the_path_says(asked: Request, match: re.Match[str]) -> Request:
    """The model and whether to stream, where the path tells them."""
    told = match.groupdict()
    if "model" not in told:
        return asked
    model, stream = unquote(told["model"]), bool(told["stream"])
    return msgspec.structs.replace(asked, model=model, stream=stream)


def _models(shape: str) -> list[Step]:
    """The list of models, in the shape of the caller's dialect."""
    body = _MODELS[shape]([name or "demo" for name in PACES])
    return [Head(200, dict(JSON)), Send(msgspec.json.encode(body)), End()]


_MODELS: dict[str, Callable[[list[str]], dict[str, Any]]] = {
    "openai": lambda names: {
        "object": "list",
        "data": [{"id": n, "object": "model", "created": 0, "owned_by": "sim"} for n in names],
    },
    "anthropic": lambda names: {
        "data": [{"type": "model", "id": name, "display_name": name} for name in names],
        "has_more": False,
        "first_id": names[0],
        "last_id": names[-1],
    },
    "gemini": lambda names: {
        "models": [{"name": f"models/{name}", "displayName": name} for name in names]
    },
}
