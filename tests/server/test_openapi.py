"""The description of the gateway: true, complete, and valid."""

import json
import urllib.request

import jsonschema
import msgspec
import pytest
from openapi_spec_validator import validate
from starlette.routing import Route

from unbroken import AsyncClient
from unbroken.events import TextDelta
from unbroken.server.gateway import Gateway, found_routes
from unbroken.server.openapi import OPERATIONS, description
from unbroken.simulator.transport import AsyncSimulatorTransport
from unbroken.stores.memory import MemoryStore

PAGES = {"/", "/docs", "/openapi.json", "/page/{path:path}"}  # for people, not for programs


def described():
    return json.loads(msgspec.json.encode(description("1")))


def test_every_route_is_described_and_nothing_else():
    routes = [route for route in found_routes() if isinstance(route, Route)]
    real = {(m.lower(), r.path) for r in routes for m in r.methods - {"HEAD"}}
    described = {(operation.method, operation.path) for operation in OPERATIONS}

    assert described == {(m, path) for m, path in real if path not in PAGES}


def test_it_is_openapi():
    validate(described())


def references(node):
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for inner in node.values():
            yield from references(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from references(inner)


def test_every_reference_leads_somewhere():
    document = described()
    schemas = document["components"]["schemas"]
    found = [ref.rpartition("/")[2] for ref in references(document)]

    assert "TextDelta" in found
    assert set(found) <= set(schemas)
    assert len({(o.method, o.path) for o in OPERATIONS}) == len(OPERATIONS)


def schema(name):
    document = described()
    return {"$ref": f"#/components/schemas/{name}", "components": document["components"]}


def test_the_schemas_say_what_is_sent():
    jsonschema.validate(json.loads(msgspec.json.encode(TextDelta("a"))), schema("TextDelta"))
    jsonschema.validate({"model": "sim/demo", "fallbacks": ["x"]}, schema("Question"))
    for wrong in ({"fallbacks": []}, {"model": "x", "on_disconnect": "perhaps"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema("Question"))


def test_real_answers_fit_their_schemas(serve):
    client = AsyncClient(api_key="k", transport=AsyncSimulatorTransport())
    url = serve(Gateway(MemoryStore(), client=client))
    body = {"model": "sim/demo", "messages": [{"role": "user", "content": "Hi"}]}
    asked = urllib.request.Request(f"{url}/v1/streams", json.dumps(body).encode())
    with urllib.request.urlopen(asked) as answer:
        started = json.load(answer)
    with urllib.request.urlopen(f"{url}/v1/streams/{started['id']}") as answer:
        whole = json.load(answer)
    with urllib.request.urlopen(f"{url}/openapi.json") as answer:
        served = json.load(answer)
    with urllib.request.urlopen(f"{url}/docs") as answer:
        page = answer.read().decode()

    jsonschema.validate(started, schema("Stream"))
    jsonschema.validate(whole, schema("Whole"))
    assert served["openapi"] == "3.1.0"
    assert all(operation.path in page for operation in OPERATIONS)
