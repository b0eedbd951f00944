"""The strict form of a schema, and whether a value fits one."""

import time

import msgspec
import pytest

from unbroken.schema import closed, find_mismatch, resolved, strict, validator

POINT = {"type": "object", "properties": {"x": {"type": "number"}}}


def test_every_object_of_a_strict_schema_is_closed_and_asks_for_everything():
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "array", "items": POINT},
            "b": {"oneOf": [POINT, {"type": "null"}], "default": None, "discriminator": {}},
            "c": {"$ref": "#/$defs/P"},
        },
        "required": ["a"],
        "$defs": {"P": POINT},
    }
    point = {**POINT, "additionalProperties": False, "required": ["x"]}

    assert strict(schema) == {
        "type": "object",
        "properties": {
            "a": {"type": "array", "items": point},
            "b": {"anyOf": [point, {"type": "null"}]},
            "c": {"$ref": "#/$defs/P"},
        },
        "required": ["a", "b", "c"],
        "additionalProperties": False,
        "$defs": {"P": point},
    }
    assert "additionalProperties" not in POINT


def test_a_reference_at_the_root_is_written_out():
    found = strict({"$ref": "#/$defs/P", "$defs": {"P": POINT}})

    assert found["type"] == "object"
    assert "$ref" not in found


def test_a_reference_with_something_beside_it_is_written_out_once():
    node = {
        "type": "object",
        "properties": {"next": {"$ref": "#/$defs/N", "description": "what follows"}},
    }
    found = strict(
        {"type": "object", "properties": {"n": {"$ref": "#/$defs/N"}}, "$defs": {"N": node}}
    )
    inner = found["$defs"]["N"]["properties"]["next"]

    assert inner["description"] == "what follows"
    assert inner["properties"]["next"] == {"$ref": "#/$defs/N"}


@pytest.mark.parametrize(
    "free",
    [
        {"type": "object"},
        {"type": "object", "properties": {}, "additionalProperties": {"type": "string"}},
        {"type": "object", "properties": {}, "patternProperties": {"a": {}}},
        {"type": "object", "properties": {"a": {"type": "object"}}},
        {"type": "array", "items": POINT},
    ],
)
def test_there_is_no_strict_form_for_free_keys_or_another_root(free):
    assert strict(free) is None


def test_references_are_paths():
    root = {"a/b": {"~c": {"type": "null"}}}

    assert resolved({"$ref": "#/a~1b/~0c"}, root) == {"type": "null"}
    assert resolved({"$ref": "#"}, root) == root
    assert resolved({"$ref": "#/nowhere/else"}, root) == {}
    assert resolved({"type": "null"}, root) == {"type": "null"}


class Box(msgspec.Struct):
    corner: tuple[int, int]


NODE = {"$ref": "#/$defs/n", "$defs": {"n": {"type": "array", "items": {"$ref": "#/$defs/n"}}}}


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        ("a", {"type": "string"}),
        (2.0, {"type": "integer"}),
        (None, {"type": ["string", "null"]}),
        ({"b": 1}, {}),
        (1, True),
        ({"x_a": 1}, {"patternProperties": {"^x_": {"type": "integer"}}, "additionalProperties": False}),
        (["a", 1], {"prefixItems": [{"type": "string"}], "items": {"type": "integer"}}),
        ({"corner": [1, 2]}, msgspec.json.schema(Box)),
        ([[[]]], NODE),
        (10**30 + 1, {"minimum": 10**30}),
        ("é", {"pattern": r"^\p{L}$"}),
        (1, {"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 0, "exclusiveMinimum": True}),
    ],
)  # fmt: skip
def test_a_value_that_fits_has_no_mismatch(value, schema):
    assert find_mismatch(value, schema) == ""


@pytest.mark.parametrize(
    ("value", "schema", "wrong"),
    [
        (1, {"type": "string"}, '$: 1 is not of type "string"'),
        (True, {"type": "integer"}, '$: true is not of type "integer"'),
        (True, {"enum": [1]}, "$: true is not one of 1"),
        ("abc", {"pattern": "^[0-9]+$"}, '$: "abc" does not match "^[0-9]+$"'),
        (1, {"oneOf": [{"type": "integer"}, {"type": "number"}]}, "$: 1 is valid under more than one"),
        (7, {"multipleOf": 5}, "$: 7 is not a multiple of 5"),
        ([1, 1], {"uniqueItems": True}, "$: [1,1] has non-unique elements"),
        ("a", {"not": {"type": "string"}}, '$: {"type":"string"} is not allowed for "a"'),
        ({}, {"minProperties": 1}, "$: {} has less than 1 property"),
        ("a", {"$defs": {"s": {"type": "string"}}, "$ref": "#/$defs/s", "minLength": 3}, '$: "a" is shorter than 3'),
        ({"a": 1}, {"dependentRequired": {"a": ["b"]}}, '$: "b" is a required property'),
        ([[], [1]], NODE, '$[1][0]: 1 is not of type "array"'),
        ({"b": 1}, {"properties": {"a": {}}, "additionalProperties": False}, "$: Additional properties"),
    ],
)  # fmt: skip
def test_the_first_mismatch_is_described_with_its_place(value, schema, wrong):
    assert find_mismatch(value, schema).startswith(wrong)


def test_a_mismatch_repeats_a_long_value_in_part():
    found = find_mismatch({"a": "x" * 10_000}, {"properties": {"a": {"type": "integer"}}})

    assert found.startswith('$.a: "xxx')
    assert found.endswith('is not of type "integer"')
    assert len(found) < 500


@pytest.mark.parametrize(
    ("schema", "what"),
    [
        ({"type": "strin"}, "the schema.type"),
        ({"properties": {"a": {"type": 3}}}, "the schema.properties.a.type"),
        ({"$ref": "http://127.0.0.1:9/x.json"}, "cannot fetch"),
        ({"$ref": "file:///etc/passwd"}, "cannot fetch"),
        ({"$ref": "#/nowhere"}, "does not exist"),
        ({"pattern": "("}, "regex"),
        ({"pattern": "(a{1000}){1000}"}, "regex"),  # megabytes once compiled
        ({"const": object()}, "object"),
        (3, "3 is not of types"),
    ],
)
def test_a_schema_that_can_not_be_used_is_refused(schema, what):
    with pytest.raises(ValueError, match=what):
        validator(schema)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"$ref": "#"}, 1),
        ({"allOf": [{"$ref": "#"}]}, 1),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, 1),
        ({"pattern": "^(a+)+$"}, "a" * 60 + "!"),
        ({"pattern": r"^(a+)+\1$"}, "a" * 60 + "!"),
        ({"pattern": "^(?=(a+)+$)b"}, "a" * 60 + "!"),
    ],
)  # fmt: skip
def test_a_hostile_schema_ends_soon(schema, value):
    begin = time.process_time()
    find_mismatch(value, schema)

    assert time.process_time() - begin < 5  # Python's own `re` needs years for the last three


def test_closed_looks_into_everything():
    assert closed({"anyOf": [POINT]})
    assert not closed({"anyOf": [{"type": "object"}]})
    assert not closed({"$defs": {"a": {"type": "object"}}})
