"""The strict form of a schema, and whether a value fits one."""

import pytest

from unbroken.schema import closed, fault, resolved, strict

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


@pytest.mark.parametrize(
    ("value", "schema", "wrong"),
    [
        ("a", {"type": "string"}, ""),
        (1, {"type": "string"}, "$: not of type string"),
        (True, {"type": "integer"}, "$: not of type integer"),
        (True, {"type": "number"}, "$: not of type number"),
        (2.0, {"type": "integer"}, ""),
        (None, {"type": ["string", "null"]}, ""),
        (3, {"enum": [1, 2]}, "$: not one of 1, 2"),
        (3, {"const": 1}, "$: not 1"),
        (3, {"minimum": 4}, "$: minimum is 4"),
        (3, {"maximum": 2}, "$: maximum is 2"),
        (3, {"exclusiveMinimum": 3}, "$: exclusiveMinimum is 3"),
        (3, {"exclusiveMaximum": 3}, "$: exclusiveMaximum is 3"),
        ("abc", {"minLength": 4}, "$: minLength is 4"),
        ("abc", {"maxLength": 2, "minimum": 9}, "$: maxLength is 2"),
        ([1], {"minItems": 2}, "$: minItems is 2"),
        ([1], {"maxItems": 0}, "$: maxItems is 0"),
        ([1, "a"], {"items": {"type": "integer"}}, "$[1]: not of type integer"),
        ({}, {"required": ["a"]}, "$: 'a' is missing"),
        ({"b": 1}, {"properties": {}, "additionalProperties": False}, "$.b: nothing may stand here"),
        ({"b": 1}, {"additionalProperties": {"type": "null"}}, "$.b: not of type null"),
        ({"b": 1}, {}, ""),
        (1, {"anyOf": [{"type": "null"}, {"type": "integer"}]}, ""),
        ("a", {"anyOf": [{"type": "null"}, {"type": "integer"}]}, "$: not of type null"),
        (1, {"allOf": [{"minimum": 0}, {"maximum": 0}]}, "$: maximum is 0"),
        ([[1]], {"$ref": "#/$defs/L", "$defs": {"L": {"type": "array", "items": {"$ref": "#/$defs/L"}}}}, "$[0][0]: not of type array"),
        (1, True, ""),
        (1, False, "$: nothing may stand here"),
    ],
)  # fmt: skip
def test_the_first_fault_is_told_with_its_place(value, schema, wrong):
    assert fault(value, schema) == wrong


def test_closed_looks_into_everything():
    assert closed({"anyOf": [POINT]})
    assert not closed({"anyOf": [{"type": "object"}]})
    assert not closed({"$defs": {"a": {"type": "object"}}})
