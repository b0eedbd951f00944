"""From a type to a response_format, and from an answer to an object."""

import pickle
from dataclasses import dataclass
from typing import Literal, TypedDict

import msgspec
import pydantic
import pytest

from unbroken import Client, ProviderError
from unbroken.errors import LocalProtocolError, OutputMismatch, UnbrokenError
from unbroken.messages import Message, Request, Text
from unbroken.response import Choice, Response
from unbroken.schema import closed, find_mismatch
from unbroken.structured import output_format
from unbroken.wire import anthropic_messages, openai_chat


class PydanticWeather(pydantic.BaseModel):
    city: str
    days: list[int] = []
    sky: Literal["clear", "grey"] | None = None


class StructWeather(msgspec.Struct):
    """The weather."""

    city: str
    days: list[int] = []
    sky: Literal["clear", "grey"] | None = None


@dataclass
class ClassWeather:
    city: str
    days: list[int]
    sky: Literal["clear", "grey"] | None = None


class DictWeather(TypedDict):
    city: str
    days: list[int]
    sky: Literal["clear", "grey"] | None


SCHEMA = {
    "title": "Schema Weather",
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "array", "items": {"type": "integer"}},
        "sky": {"enum": ["clear", "grey", None]},
    },
}
KINDS = [PydanticWeather, StructWeather, ClassWeather, DictWeather, SCHEMA]
each = pytest.mark.parametrize(
    "wanted", KINDS, ids=["pydantic", "struct", "dataclass", "dict", "schema"]
)
ROME = '{"city":"Rome","days":[1,2],"sky":"grey"}'


def answered(text=ROME, end="complete", finish="stop", **more):
    choice = Choice(text=text, finish_reason=finish, **more)
    return Response(provider="sim", model="m", end=end, choices=(choice,))


@each
def test_the_schema_is_strict_and_says_everything(wanted):
    said = output_format(wanted).response_format
    schema = said["json_schema"]["schema"]

    assert said["type"] == "json_schema"
    assert said["json_schema"]["strict"] is True
    assert schema["type"] == "object"
    assert schema["required"] == ["city", "days", "sky"]
    assert closed(schema)
    assert find_mismatch(msgspec.json.decode(ROME), schema) == ""


@each
def test_a_fitting_answer_becomes_an_object(wanted):
    found = output_format(wanted).parse(answered())

    if isinstance(wanted, dict) or wanted is DictWeather:
        assert found == {"city": "Rome", "days": [1, 2], "sky": "grey"}
    else:
        assert type(found) is wanted
        assert (found.city, found.days, found.sky) == ("Rome", [1, 2], "grey")


@each
@pytest.mark.parametrize(
    "text",
    [
        "",
        "Here you are:",
        '{"city":"Ro',
        '{"city":7,"days":[],"sky":null}',
        '{"city":"R","days":["x"]}',
    ],
)
def test_an_answer_that_does_not_fit_is_an_error_that_holds_it(wanted, text):
    response = answered(text)

    with pytest.raises(OutputMismatch, match="does not fit the response_format") as caught:
        output_format(wanted).parse(response)
    assert caught.value.response is response
    assert (caught.value.provider, caught.value.model) == ("sim", "m")
    assert isinstance(caught.value, UnbrokenError)
    assert not isinstance(caught.value, ProviderError)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"end": None}, "still coming"),
        ({"end": "truncated"}, "not complete .truncated"),
        ({"finish": "length"}, "cut short .length"),
        ({"finish": "content_filter"}, "cut short .content_filter"),
        ({"refusal": "I can't."}, "refused: I can't"),
    ],
)
def test_an_answer_that_is_not_whole_is_no_object_even_if_it_reads_like_one(given, reason):
    with pytest.raises(OutputMismatch, match=reason):
        output_format(StructWeather).parse(answered(**given))


def test_the_parameter_itself_is_sent_as_it_is():
    given = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": False}}

    assert output_format(given).response_format is given
    assert output_format(given).parse(answered())["city"] == "Rome"
    with pytest.raises(OutputMismatch, match=r"\$\.city: 7 is not of type"):
        output_format(given).parse(answered('{"city": 7}'))


def test_any_json_and_plain_text():
    assert output_format({"type": "json_object"}).parse(answered("[1]")) == [1]
    assert output_format({"type": "text"}).parse(answered("hi")) == "hi"
    with pytest.raises(OutputMismatch):
        output_format({"type": "json_object"}).parse(answered("hi"))


def test_a_format_of_one_provider_alone_is_sent_as_it_is():
    given = {"type": "grammar", "grammar": "root ::= [0-9]+"}

    assert output_format(given).response_format is given


def test_free_keys_can_be_asked_for_but_not_enforced():
    said = output_format(dict[str, int]).response_format["json_schema"]

    assert said["strict"] is False
    assert output_format(dict[str, int]).parse(answered('{"a":1}')) == {"a": 1}


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Weather of Rome!", "Weather_of_Rome"),
        ("", "output"),
        ("x" * 99, "x" * 64),
        ("é", "output"),
    ],
)
def test_names_have_only_the_letters_that_are_allowed(title, name):
    said = output_format({**SCHEMA, "title": title}).response_format

    assert said["json_schema"]["name"] == name


@pytest.mark.parametrize("wanted", [object(), 3, type("Plain", (), {})])
def test_what_has_no_schema_is_refused(wanted):
    with pytest.raises(LocalProtocolError, match="no JSON schema can be made"):
        output_format(wanted)


def test_a_running_answer_is_read_as_it_grows_and_a_finished_one_is_checked():
    wanted = output_format(StructWeather)
    half = Response(choices=(Choice(text='{"city":"Ro'),), reads=wanted.parse)
    whole = msgspec.structs.replace(answered(), reads=wanted.parse)

    assert half.partial == {"city": "Ro"}
    assert whole.parsed == StructWeather("Rome", [1, 2], "grey")
    assert whole.partial == {"city": "Rome", "days": [1, 2], "sky": "grey"}
    assert answered().parsed is None
    with pytest.raises(OutputMismatch):
        print(half.parsed)


@each
def test_each_dialect_says_the_schema_in_its_own_way(wanted):
    said = output_format(wanted).response_format
    request = Request(model="m", messages=(Message("user", (Text("hi"),)),), response_format=said)
    chat = msgspec.json.decode(openai_chat.CODEC.dialect.encode_request(request))
    messages = msgspec.json.decode(anthropic_messages.CODEC.dialect.encode_request(request))

    assert chat["response_format"] == said
    assert messages["output_config"]["format"]["type"] == "json_schema"
    assert closed(messages["output_config"]["format"]["schema"])


@each
@pytest.mark.parametrize("model", ["openai/gpt-4o", "anthropic/claude-haiku-5-5"])
def test_the_simulator_answers_with_data_token_by_token(wanted, model, simulator):
    form = output_format(wanted)
    seen = []
    with Client(transport=simulator, api_key="k") as client:
        with client.stream(model, "How is Rome?", response_format=form.response_format) as stream:
            for _ in stream.text:
                seen.append(stream.response.partial)

    assert len(seen) > 5
    assert any(isinstance(part, dict) and "city" in part for part in seen[:-1])
    assert form.parse(stream.response) is not None


class Town(msgspec.Struct):
    city: str


@pytest.mark.parametrize("wanted", [Town, SCHEMA])
def test_an_answer_that_is_data_can_be_pickled(wanted):
    answer = msgspec.structs.replace(answered(), reads=output_format(wanted).parse)

    assert pickle.loads(pickle.dumps(answer)).parsed == answer.parsed
