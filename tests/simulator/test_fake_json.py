"""The simulated model answers with data where data is asked for."""

import msgspec
import pytest

from unbroken.messages import Message, Request, Text
from unbroken.schema import find_mismatch
from unbroken.simulator.fake_json import document, value
from unbroken.simulator.rng import Rng

TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                "all": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            },
            "required": ["name", "next", "all"],
        }
    },
    "$ref": "#/$defs/node",
}


@pytest.mark.parametrize(
    "schema",
    [
        {"const": 7},
        {"enum": ["a", None, 3]},
        {"type": "integer", "minimum": 5, "maximum": 6},
        {"type": "integer", "exclusiveMinimum": 5, "exclusiveMaximum": 7},
        {"type": "number", "exclusiveMinimum": 1, "exclusiveMaximum": 1.5},
        {"type": "string", "minLength": 40},
        {"type": "string", "maxLength": 2},
        {"type": ["string", "null"]},
        {"type": "boolean"},
        {"type": "null"},
        {"type": "array", "items": {"type": "integer"}, "minItems": 3},
        {"type": "array", "items": {"type": "integer"}, "maxItems": 0},
        {"oneOf": [{"type": "integer"}, {"type": "string"}]},
        {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
        TREE,
        {},
    ],
)
@pytest.mark.parametrize("seed", range(8))
def test_what_is_made_fits(schema, seed):
    assert find_mismatch(value(schema, "it", Rng(str(seed))), schema) == ""


def asking(wanted):
    prompt = (Message("user", (Text("hi"),)),)
    return Request(model="m", messages=prompt, response_format=wanted)


def test_a_document_is_made_where_one_is_wanted():
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": TREE}}

    assert find_mismatch(msgspec.json.decode(document(asking(wanted), Rng("1"))), TREE) == ""
    assert msgspec.json.decode(document(asking({"type": "json_object"}), Rng("1"))) != {}
    assert document(asking(None), Rng("1")) is None
    assert document(asking({"type": "text"}), Rng("1")) is None
