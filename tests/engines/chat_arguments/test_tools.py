"""Tools: calls, results and faults, the same tests for every engine."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pytest_lmstrix.checks.requests.loaded import LoadedModel
from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.engines.request import Unable
from tests.engines.chat_arguments.engines import NO_LLAMACPP, STAND_INS, get_weather, loaded_in
from tests.standin.lmstudio import StandInModel
from tests.standin.lmstudio.models.behaviours import CallsTool, Says
from tests.standin.tiny_models import write_tiny_model


def test_a_tool_is_called(stand_in: LoadedModel) -> None:
    reply = stand_in.chat("Use get_weather", max_tokens=60, tools=[get_weather])
    assert reply.tool_call.name == "get_weather"
    assert reply.tool_call.arguments == {"city": "Paris", "days": 1}


def test_two_tools_are_called(stand_in: LoadedModel) -> None:
    other = {"name": "get_time", "parameters": {"type": "object", "properties": {}}}
    reply = stand_in.chat("Use get_weather and get_time", max_tokens=60, tools=[get_weather, other])
    assert [(call.name, call.fault) for call in reply.tool_calls] == [
        ("get_weather", None),
        ("get_time", None),
    ]
    with pytest.raises(AssertionError, match="2 tools were called: get_weather, get_time"):
        _ = reply.tool_call


def test_results_of_tools_reach_the_model_with_their_calls(stand_in: LoadedModel) -> None:
    reply = stand_in.chat("Use get_weather", max_tokens=60, tools=[get_weather])
    result = {"role": "tool", "content": "rain", "tool_call_id": reply.tool_call.id}
    history = [{"role": "user", "content": "Use get_weather"}, reply.message, result]
    answer = stand_in.chat(history, max_tokens=60, tools=[get_weather])
    assert answer.text == 'get_weather of {"city": "Paris", "days": 1} gives rain.'
    assert (answer.tool_calls, stand_in.failed) == ((), False)


TWO_CALLS: list[dict[str, Any]] = [
    {"role": "user", "content": "What is the weather in Rome and Oslo?"},
    {"role": "assistant", "content": None, "tool_calls": [
        {"id": "a", "name": "get_weather", "arguments": {"city": "Rome"}},
        {"id": "b", "name": "get_weather", "arguments": {"city": "Oslo"}},
    ]},
    {"role": "tool", "content": "snow", "tool_call_id": "b"},
    {"role": "tool", "content": "sun", "tool_call_id": "a"},
]  # fmt: skip


def test_results_of_two_tools_are_not_mixed_up(stand_in: LoadedModel) -> None:
    answer = stand_in.chat(TWO_CALLS, max_tokens=60, tools=[get_weather])
    first, second = '{"city": "Oslo"}', '{"city": "Rome"}'
    assert answer.text == f"get_weather of {first} gives snow. get_weather of {second} gives sun."
    again = [*TWO_CALLS, answer.message, {"role": "user", "content": "Say hello"}]
    assert stand_in.chat(again, max_tokens=60, fill=0.5).text == "Hello!"


def templated(cleanup: ExitStack, folder: Path, template: str) -> LoadedModel:
    """Load a tiny model with this chat template in llama.cpp."""
    from pytest_lmstrix.engines.llamacpp.engine import LlamaCppEngine

    engine = LlamaCppEngine(load_timeout=120, reply_timeout=120)
    cleanup.callback(engine.close)
    path = write_tiny_model(folder / "model.gguf", tokenizer__chat_template=template)
    return loaded_in(engine, cleanup, source=str(path))


@NO_LLAMACPP
def test_llamacpp_shows_results_of_tools_to_the_template(tmp_path: Path) -> None:
    template = (
        "{% if messages | length > 3 %}{{ raise_exception('seen ' ~ (messages | tojson)) }}"
        "{% endif %}{{ messages[0].content }}{{ tools }}"
    )
    with pytest.raises(Failure, match="seen") as failure, ExitStack() as cleanup:
        templated(cleanup, tmp_path, template).chat(TWO_CALLS, max_tokens=2)
    text = failure.value.text
    seen, _ = json.JSONDecoder().raw_decode(text, text.index("seen [") + len("seen "))
    assert [call["id"] for call in seen[1]["tool_calls"]] == ["a", "b"]
    called = [call["function"] for call in seen[1]["tool_calls"]]
    assert [json.loads(each["arguments"])["city"] for each in called] == ["Rome", "Oslo"]
    assert seen[2:] == [
        {"role": "tool", "content": "snow", "name": "get_weather", "tool_call_id": "b"},
        {"role": "tool", "content": "sun", "name": "get_weather", "tool_call_id": "a"},
    ]


@NO_LLAMACPP
def test_a_template_without_a_role_for_tools_is_less_than_it_takes(tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}{% if m.role == 'tool' %}"
        "{{ raise_exception('Unexpected message role.') }}{% endif %}{{ m.content }}{% endfor %}"
    )
    with ExitStack() as cleanup:
        loaded = templated(cleanup, tmp_path, template)
        with pytest.raises(Unable, match=r"Unexpected message role\."):
            loaded.chat(TWO_CALLS, max_tokens=2)
        with pytest.raises(RuntimeError, match=r"required by the test: .*"):
            loaded.chat(TWO_CALLS, max_tokens=2, required=True)
        assert not loaded.failed


FAULTS = {
    "fenced": Says(text='```json\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n```'),
    "wrong_name": CallsTool(name="get_wether", arguments='{"city": "Paris"}'),
    "not_an_object": CallsTool(name="get_weather", arguments='"Paris"'),
    "cut_off": CallsTool(name="get_weather", arguments='{"city": "Par'),
    "in_reasoning": Says(
        text='<think>{"name": "get_weather", "arguments": {"city": "Paris"}}</think>Done.'
    ),
    "wrong_arguments": CallsTool(name="get_weather", arguments='{"town": "Paris"}'),
}


@pytest.mark.parametrize("start", STAND_INS, ids=lambda start: start.__name__)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_tool_call_has_its_fault(start: Any, fault: str) -> None:
    model = StandInModel(key="tiny", trained_for_tool_use=True, behaviours=(FAULTS[fault],))
    with ExitStack() as cleanup:
        reply = start(cleanup, model).chat("Use it", max_tokens=60, tools=[get_weather])
    (call,) = reply.tool_calls
    assert (call.fault, bool(call.detail)) == (fault, True)
    with pytest.raises(AssertionError, match=f"{fault}: "):
        _ = reply.tool_call


@pytest.mark.parametrize("start", STAND_INS, ids=lambda start: start.__name__)
def test_no_tool_call_is_named_so(start: Any) -> None:
    model = StandInModel(
        key="tiny", trained_for_tool_use=True, behaviours=(Says(text="It is sunny."),)
    )
    with ExitStack() as cleanup:
        reply = start(cleanup, model).chat("Hello", max_tokens=60, tools=[get_weather])
    assert reply.tool_calls == ()
    with pytest.raises(AssertionError, match=r"no tool was called\nIt is sunny\."):
        _ = reply.tool_call
