"""Mistakes in the arguments of a request are the test's, and raised before the engine is asked."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from pytest_lmstrix.checks.loader import ModelLoader
from pytest_lmstrix.checks.requests.history import behind_filler, read_messages
from pytest_lmstrix.checks.requests.loaded import LoadedModel
from pytest_lmstrix.core.types import Message, Model, ToolCall
from tests.engines.silence import Silent
from tests.standin.fake_engine import FakeEngine


@dataclass
class Odd:
    anything: Callable[..., Any]


@pytest.fixture
def loaded() -> LoadedModel:
    engine = FakeEngine()
    loader = ModelLoader(
        lambda model, gone: engine, host_lock=lambda *_: nullcontext(), watch=Silent()
    )
    return loader.load(Model(id="tiny", engine="fake"), 1024)


def untyped(city):  # type: ignore[no-untyped-def]
    return city


def many(*cities: str) -> None:
    pass


A_CALL = ToolCall(name="a", arguments={}, id="1")
CALLED: list[dict[str, Any]] = [
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": None, "tool_calls": [A_CALL]},
    {"role": "tool", "content": "b"},
]


def called(**changed: Any) -> list[dict[str, Any]]:
    call = {"name": "a", "arguments": "{}", "id": "1", **changed}
    return [{"role": "assistant", "content": "", "tool_calls": [call]}, CALLED[2]]


MISTAKES: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"messages": 42}, TypeError, "messages must be a str or a list of messages, got 42"),
    ({"messages": [42]}, TypeError, "a message must be a Message or a dict, got 42"),
    ({"messages": []}, ValueError, "messages must not be empty"),
    ({"messages": [{"role": "user"}]}, ValueError, "has the keys 'role' and 'content', got 'role'"),
    (
        {"messages": {"role": "tool", "content": "a", "tool_id": "b"}},
        ValueError,
        "'content' (of 'tool' also 'name', 'tool_call_id'), got 'role', 'content', 'tool_id'",
    ),
    ({"messages": [*CALLED[:2], CALLED[0]]}, ValueError, "no result of tool calls: 'a'; a message"),
    ({"messages": CALLED[:2]}, ValueError, "no result of tool calls: 'a'"),
    ({"messages": [*CALLED, CALLED[2]]}, ValueError, "must follow the tool calls of an assistant"),
    (
        {"messages": [*CALLED[:2], {**CALLED[2], "tool_call_id": "2"}]},
        ValueError,
        "no tool call has the id '2'; choose from '1'",
    ),
    (
        {"messages": [*CALLED[:2], {**CALLED[2], "name": "b"}]},
        ValueError,
        "the tool call '1' is of 'a', not 'b'",
    ),
    ({"messages": called(arguments="[1]")}, ValueError, "must be an object of JSON, got '[1]'"),
    ({"messages": called(arguments="{")}, ValueError, "must be an object of JSON, got '{'"),
    ({"messages": called(arguments='{"x": NaN}')}, ValueError, "must be an object of JSON, got"),
    ({"messages": called(name=5)}, TypeError, "a tool call has a name and arguments, got"),
    ({"messages": called(id=5)}, TypeError, "the id of a tool call must be a str, got 5"),
    ({"messages": {**CALLED[1], "tool_calls": [5]}}, TypeError, "must be a ToolCall or a dict"),
    ({"messages": {**CALLED[1], "tool_calls": "a"}}, TypeError, "tool_calls must be a list"),
    (
        {"messages": Message(role="user", content="", tool_calls=(A_CALL,))},
        ValueError,
        "a message of 'user' has no tool calls",
    ),
    ({"messages": {"role": "usr", "content": ""}}, ValueError, "'usr' is not a valid role; choose"),
    ({"messages": {"role": "user", "content": 4}}, TypeError, "content of a message must be a str"),
    ({"system": 4}, TypeError, "system must be a str, got 4"),
    (
        {"messages": [Message(role="system", content="a")], "system": "b"},
        ValueError,
        "got system=... and messages that begin with one of the system",
    ),
    ({"max_tokens": "5"}, TypeError, "max_tokens must be an int, got '5'"),
    ({"max_tokens": True}, TypeError, "max_tokens must be an int, got True"),
    ({"max_tokens": 0}, ValueError, "max_tokens must be from 1 to"),
    ({"temperature": "hot"}, TypeError, "temperature must be a number, got 'hot'"),
    ({"temperature": -1}, ValueError, "temperature must be from 0 to 100, got -1"),
    ({"temperature": float("nan")}, ValueError, "temperature must be from 0 to 100, got nan"),
    ({"seed": 1.5}, TypeError, "seed must be an int, got 1.5"),
    ({"seed": -1}, ValueError, "seed must be from 0 to"),
    ({"stop": 5}, TypeError, "stop must be a str or a list of them, got 5"),
    ({"stop": [5]}, TypeError, "a text of stop must be a str, got 5"),
    ({"stop": ""}, ValueError, "a text of stop must not be empty"),
    ({"schema": 5}, TypeError, "schema must be a JSON schema (a dict) or a type, got 5"),
    ({"schema": {"type": "objekt"}}, ValueError, "schema is not a valid JSON schema: $.type"),
    ({"schema": {"const": object()}}, TypeError, "schema must be JSON"),
    ({"schema": Odd}, TypeError, "schema: no JSON schema can be made for"),
    ({"tools": "get"}, TypeError, "tools must be a list of functions or JSON schemas, got 'get'"),
    ({"tools": [5]}, TypeError, "a tool must be a function or a JSON schema, got 5"),
    ({"tools": [untyped]}, TypeError, "tool 'untyped': city has no type hint"),
    ({"tools": [many]}, TypeError, "tool 'many': *cities: 'str' cannot be given by name"),
    ({"tools": [{"description": "x"}]}, TypeError, "a tool has a name, a description and"),
    ({"tools": [{"name": "a b"}]}, ValueError, "'a b' is not a valid name of a tool"),
    ({"tools": [{"name": "a"}, {"name": "a"}]}, ValueError, "two tools have the name 'a'"),
    (
        {"tools": [{"name": "a", "parameters": {"type": "objekt"}}]},
        ValueError,
        "parameters of tool 'a' is not a valid JSON schema",
    ),
    ({"images": "a.png"}, TypeError, "images must be a list of paths or bytes, got 'a.png'"),
    ({"images": [5]}, TypeError, "an image must be a path or bytes, got 5"),
    ({"images": [b"text"]}, ValueError, "not an image that is known"),
    ({"images": ["no-such.png"]}, FileNotFoundError, "no-such.png"),
    (
        {"messages": {"role": "assistant", "content": "a"}, "images": [b"GIF89a"]},
        ValueError,
        "images belong to the last message, which must be of the user",
    ),
    ({"fill": 1.5}, ValueError, "fill must be a share between 0 and 1, or tokens, got 1.5"),
    ({"fill": "half"}, TypeError, "fill must be an int, got 'half'"),
    ({"fill": 0}, ValueError, "fill must be from 1 to"),
    ({"required": "yes"}, TypeError, "required must be True or False, got 'yes'"),
]


@pytest.mark.parametrize(("given", "kind", "text"), MISTAKES, ids=[text for _, _, text in MISTAKES])
def test_a_mistake_is_raised_before_the_engine_is_asked(
    loaded: LoadedModel, given: dict[str, Any], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind) as raised:
        loaded.chat(**{"messages": "Hello", "max_tokens": 5, **given})
    assert text in str(raised.value)
    assert not loaded.failed
    assert loaded.replies == []


def test_a_prompt_that_is_no_text_is_a_mistake(loaded: LoadedModel) -> None:
    with pytest.raises(TypeError, match="a prompt must be a str, got 42"):
        loaded.complete(42, max_tokens=5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a text must be a str, got 42"):
        loaded.count_tokens(42)  # type: ignore[arg-type]
    assert not loaded.failed


def test_parsed_needs_a_schema(loaded: LoadedModel) -> None:
    with pytest.raises(ValueError, match="`parsed` needs a request with schema="):
        _ = loaded.chat("Hello", max_tokens=5).parsed


def test_results_of_tools_are_linked_to_their_calls() -> None:
    function = {"name": "b", "arguments": '{"city": "Paris"}'}
    given = [
        *CALLED[:1],
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "x", "type": "function", "function": function}, {"name": "c", "arguments": {}},
        ]},
        {"role": "tool", "content": "of b", "tool_call_id": "x", "name": "b"},
        {"role": "tool", "content": "of c", "tool_call_id": ""},
        {"role": "assistant", "content": "", "tool_calls": [
            msgspec.structs.replace(A_CALL, id="", fault="cut_off", detail="gone")
        ]},
        Message(role="tool", content="of a"),
    ]  # fmt: skip
    history = read_messages(given)
    assert [(m.content, m.tool_call_id, m.tool_name) for m in history if m.role == "tool"] == [
        ("of b", "x", "b"),
        ("of c", "call_0", "c"),
        ("of a", "call_1", "a"),
    ]
    assert [each for message in history for each in message.tool_calls] == [
        ToolCall(name="b", arguments={"city": "Paris"}, id="x"),
        ToolCall(name="c", arguments={}, id="call_0"),
        ToolCall(name="a", arguments={}, id="call_1"),
    ]
    assert read_messages(history) == history
    assert msgspec.to_builtins(history[0]) == {"role": "user", "content": "Hello"}


def test_arguments_with_half_a_character_can_be_sent() -> None:
    history = read_messages(called(arguments='{"city": "Paris \\ud83d"}'))
    (call,) = history[0].tool_calls
    assert call.arguments == {"city": "Paris \ufffd"}
    assert msgspec.json.encode(history)


def test_filler_leaves_a_call_and_its_result_together() -> None:
    history = behind_filler("Long ago.", read_messages(CALLED))
    assert [message.content for message in history] == ["Long ago.\n\nHello", "", "b"]
    assert [len(message.tool_calls) for message in history] == [0, 1, 0]
    (alone,) = behind_filler("Long ago.", read_messages({"role": "system", "content": "Hi"}))
    assert (alone.role, alone.content) == ("system", "Long ago.\n\nHi")
