"""Values of answers by JSON schemas and types, and tools of functions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import pytest

from pytest_lmstrix.checks.requests.schema import read_schema
from pytest_lmstrix.checks.requests.tool_calls import grade_calls
from pytest_lmstrix.checks.requests.tools import read_tools
from pytest_lmstrix.core.types import Reply, ToolCall

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


class CityStruct(msgspec.Struct):
    city: str


@dataclass
class CityData:
    city: str


class CityDict(TypedDict):
    city: str


class Pydantic:
    """What is used of a pydantic model."""

    def __init__(self, city: str) -> None:
        self.city = city

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        return CITY

    @classmethod
    def model_validate_json(cls, text: str) -> Pydantic:
        value = json.loads(text)
        if not isinstance(value.get("city"), str):
            raise ValueError("1 validation error for Pydantic")
        return cls(value["city"])


@pytest.mark.parametrize("given", [CITY, CityStruct, CityData, CityDict, Pydantic])
def test_an_answer_is_validated(given: Any) -> None:
    schema = read_schema(given)
    assert schema.json["type"] == "object"
    assert schema.json["properties"]["city"]["type"] == "string"
    value = schema.convert(' {"city": "Paris"}\n')
    assert (value["city"] if isinstance(value, dict) else value.city) == "Paris"
    for wrong in ("{}", '{"city": 5}', "[]", "Paris", ""):
        with pytest.raises((ValueError, AttributeError)):
            schema.convert(wrong)


@pytest.mark.parametrize("given", [CITY, CityStruct])
def test_why_a_schema_is_not_kept(given: Any) -> None:
    schema = read_schema(given)
    for text, reason in (
        ('{"city": 5}', r"\$\.city"),
        ('```json\n{"city": "Paris"}\n```', "the answer is in a code fence"),
        ("  ", "the answer is empty"),
    ):
        with pytest.raises(ValueError, match=reason):
            schema.convert(text)


def test_a_schema_reads_nothing_from_the_network() -> None:
    schema = read_schema({"$ref": "https://example.invalid/schema.json"})
    with pytest.raises(TypeError, match="a reference leads nowhere"):
        schema.convert("5")


def test_a_function_is_a_tool() -> None:
    def book(
        city: CityStruct,
        kind: Literal["train", "plane"],
        days: Annotated[int, msgspec.Meta(ge=1)] = 1,
    ) -> None:
        """Book a journey."""

    (tool,) = read_tools([book])
    assert (tool.name, tool.description) == ("book", "Book a journey.")
    assert tool.parameters["required"] == ["city", "kind"]
    assert tool.parameters["properties"]["kind"] == {"enum": ["plane", "train"]}
    assert tool.parameters["properties"]["days"]["minimum"] == 1
    assert "CityStruct" in tool.parameters["$defs"]
    good = {"city": {"city": "Paris"}, "kind": "train"}
    (call,) = grade_calls(Reply(text="", tool_calls=(_call("book", good),)), [tool])
    assert (call.fault, call.arguments) == (None, good)
    for wrong in ({**good, "days": 0}, {**good, "more": 1}, {"kind": "train"}):
        (call,) = grade_calls(Reply(text="", tool_calls=(_call("book", wrong),)), [tool])
        assert call.fault == "wrong_arguments"


def _call(name: str, arguments: Any) -> ToolCall:
    return ToolCall(name=name, arguments=json.dumps(arguments))


TOOLS = read_tools(
    [{"name": "find", "parameters": CITY}, {"type": "function", "function": {"name": "stop"}}]
)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('Sure: {"name": "find", "arguments": {"city": "Paris"}}', "in_text"),
        ('<tool_call>\n{"name": "find", "arguments": {"city": "Paris"}}\n</tool_call>', "in_text"),
        ('{"function": {"name": "find", "arguments": {"city": "Paris"}}}', "in_text"),
        ('{"tool": "stop"}', "in_text"),
        ('```\n{"name": "find", "parameters": {}}\n```', "fenced"),
        ('```json\n{"name": "find", "argu', "cut_off"),
        ('{"name": "fi', "cut_off"),
        ("I use find.", None),
        ('{"name": "Paris", "size": 5}', None),
        ('{"city": "Paris"}', None),
        ("{{{{", None),
    ],
)
def test_a_call_in_the_text_is_found(text: str, fault: str | None) -> None:
    found = [call.fault for call in grade_calls(Reply(text=text), TOOLS)]
    assert found == ([] if fault is None else [fault])
    thought = [call.fault for call in grade_calls(Reply(text="Done.", reasoning=text), TOOLS)]
    expected = "cut_off" if fault == "cut_off" else "in_reasoning"
    assert thought == ([] if fault is None else [expected])


@pytest.mark.parametrize(
    ("name", "arguments", "fault"),
    [
        ("find", '{"city": "Paris"}', None),
        ("find", {"city": "Paris"}, None),
        ("stop", "", None),
        ("stop", None, None),
        ("fnd", '{"city": "Paris"}', "wrong_name"),
        ("", "", "wrong_name"),
        ("find", '"{\\"city\\": 5}"', "not_an_object"),
        ("find", '["Paris"]', "not_an_object"),
        ("find", "Paris", "not_an_object"),
        ("find", '{"city": "Pa', "cut_off"),
        ("find", '{"city": ', "cut_off"),
        ("find", "{}", "wrong_arguments"),
    ],
)
def test_a_call_is_graded(name: str, arguments: Any, fault: str | None) -> None:
    reply = Reply(text="", tool_calls=(ToolCall(name=name, arguments=arguments),))
    (call,) = grade_calls(reply, TOOLS)
    assert call.fault == fault
    assert bool(call.detail) is (fault is not None)
    assert fault is not None or isinstance(call.arguments, dict)
