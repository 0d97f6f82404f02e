"""The optional arguments of requests: the same tests for every engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pytest_lmstrix.checks.loader import ModelLoader
from pytest_lmstrix.checks.requests.loaded import LoadedModel
from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Message, Model
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.base import Engine
from pytest_lmstrix.engines.openai.engine import OpenAiEngine
from pytest_lmstrix.engines.request import Unable
from tests.engines.silence import Silent
from tests.standin import weights
from tests.standin.fake_engine import FakeEngine
from tests.standin.lmstudio import LmStudioServer, StandInModel
from tests.standin.lmstudio.models.behaviours import CallsTool, Reasons, Says
from tests.standin.ollama import OllamaServer
from tests.standin.openai import Dialect, Faults, OpenAiServer
from tests.standin.tiny_models import write_tiny_model

CONTEXT = 2048
TINY = StandInModel(key="tiny", vision=True, trained_for_tool_use=True)
PNG = b"\x89PNG\r\n\x1a\n" + b"not looked at by stand-ins"
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "number": {"type": "integer"}},
    "required": ["city", "number"],
    "additionalProperties": False,
}


WEATHER: list[dict[str, Any]] = [
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": "", "tool_calls": [{"name": "a", "arguments": {}}]},
    {"role": "tool", "content": "sun"},
]


class Capital(msgspec.Struct):
    city: str
    number: int


def get_weather(city: str, days: int = 1) -> str:
    """Return the weather."""
    return f"{city} {days}"


def loaded_in(engine: Engine, cleanup: ExitStack, **model: Any) -> LoadedModel:
    loader = ModelLoader(
        lambda model, gone: engine, host_lock=lambda *_: nullcontext(), watch=Silent()
    )
    cleanup.callback(loader.unload)
    named = Model(**{"id": "tiny", "engine": engine.name, **model})
    return loader.load(named, CONTEXT)


def lmstudio(cleanup: ExitStack, model: StandInModel = TINY) -> LoadedModel:
    from pytest_lmstrix.engines.lmstudio.engine import LmStudioEngine

    server = cleanup.enter_context(LmStudioServer([model]))
    cleanup.callback(lambda: server.violations == [] or pytest.fail(str(server.violations)))
    engine = LmStudioEngine(server.host, load_timeout=60, reply_timeout=60)
    cleanup.callback(engine.close)
    return loaded_in(engine, cleanup)


def ollama(cleanup: ExitStack, model: StandInModel = TINY) -> LoadedModel:
    from pytest_lmstrix.engines.ollama.engine import OllamaEngine

    server = cleanup.enter_context(OllamaServer([model]))
    engine = OllamaEngine(server.host, load_timeout=60, reply_timeout=60)
    cleanup.callback(engine.close)
    return loaded_in(engine, cleanup)


def openai(
    cleanup: ExitStack, model: StandInModel = TINY, faults: Faults | None = None
) -> LoadedModel:
    from pytest_lmstrix.engines.openai.engine import OpenAiEngine

    server = cleanup.enter_context(OpenAiServer(model, CONTEXT, Dialect.VLLM, faults))
    engine = OpenAiEngine(server.host, reply_timeout=60)
    cleanup.callback(engine.close)
    return loaded_in(engine, cleanup)


def llamacpp(cleanup: ExitStack) -> LoadedModel:
    from pytest_lmstrix.engines.llamacpp.engine import LlamaCppEngine

    try:
        path = str(weights.smollm2())
    except Failure as failure:
        if failure.verdict is not Verdict.UNREACHABLE:
            raise
        pytest.skip(f"no model at hand: {failure.text}")
    engine = LlamaCppEngine(load_timeout=120, reply_timeout=120)
    cleanup.callback(engine.close)
    return loaded_in(engine, cleanup, source=path)


NO_LLAMACPP = pytest.mark.skipif(find_spec("xllamacpp") is None, reason="needs xllamacpp")
STAND_INS = (lmstudio, ollama, openai)


@pytest.fixture(
    scope="module",
    params=[*STAND_INS, pytest.param(llamacpp, marks=NO_LLAMACPP)],
    ids=lambda start: start.__name__,
)
def loaded(request: pytest.FixtureRequest) -> Iterator[LoadedModel]:
    with ExitStack() as cleanup:
        yield request.param(cleanup)


@pytest.fixture(scope="module", params=STAND_INS, ids=lambda start: start.__name__)
def stand_in(request: pytest.FixtureRequest) -> Iterator[LoadedModel]:
    with ExitStack() as cleanup:
        yield request.param(cleanup)


def test_an_answer_keeps_a_json_schema(loaded: LoadedModel) -> None:
    reply = loaded.chat("Which is the capital of France?", max_tokens=60, schema=SCHEMA)
    assert reply.schema_error == ""
    assert reply.enforced
    assert reply.parsed.keys() == {"city", "number"}
    assert type(reply.parsed["number"]) is int


def test_an_answer_is_read_as_a_type(loaded: LoadedModel) -> None:
    reply = loaded.chat("Which is the capital of France?", max_tokens=60, schema=Capital)
    assert isinstance(reply.parsed, Capital)


def test_a_completion_keeps_a_schema(loaded: LoadedModel) -> None:
    reply = loaded.complete("The capital of France as JSON: ", max_tokens=60, schema=SCHEMA)
    assert reply.parsed.keys() == {"city", "number"}


def test_a_seed_makes_an_answer_repeatable(loaded: LoadedModel) -> None:
    def ask(seed: int) -> str:
        return loaded.chat("Tell me a story", max_tokens=12, temperature=1.5, seed=seed).text

    # Two in a row: with the same cache an engine computes the same.
    assert ask(1) == ask(1) or ask(1) == ask(1)
    assert len({ask(seed) for seed in range(4)}) > 1


def test_an_answer_ends_at_a_stop_text(loaded: LoadedModel) -> None:
    prompt = "one two three four five six.\none two three four five six.\none two"
    assert "five" in loaded.complete(prompt, max_tokens=8).text
    assert "five" not in loaded.complete(prompt, max_tokens=8, stop="five").text
    assert "four" not in loaded.complete(prompt, max_tokens=8, stop=["five", "four"]).text


def test_a_history_has_a_system_message(loaded: LoadedModel) -> None:
    history = [
        {"role": "user", "content": "Say hello"},
        {"role": "assistant", "content": "Hello!"},
        Message(role="user", content="Say hello"),
    ]
    assert loaded.chat(history, system="You are brief.", max_tokens=8).text


def test_a_question_is_behind_a_filled_context(loaded: LoadedModel) -> None:
    for fill, tokens in ((0.25, CONTEXT // 4), (300, 300)):
        reply = loaded.chat("Say hello", max_tokens=8, fill=fill)
        assert reply.prompt_tokens is not None
        assert tokens - 60 <= reply.prompt_tokens <= tokens + 64
    assert "5" in loaded.complete("2 + 2 = 4\n2 + 3 =", max_tokens=4, fill=0.2).text


def test_more_filler_than_the_context_is_more_than_it_can(loaded: LoadedModel) -> None:
    with pytest.raises(Unable, match=r"48,000 tokens and an answer of 8 do not fit .* 2,048"):
        loaded.chat("Say hello", max_tokens=8, fill=48_000)
    with pytest.raises(RuntimeError, match="required by the test: a prompt of 48,000 tokens"):
        loaded.chat("Say hello", max_tokens=8, fill=48_000, required=True)


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


def test_images_reach_the_model(stand_in: LoadedModel, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(PNG)
    reply = stand_in.chat("What do you see?", max_tokens=20, images=[path, PNG])
    assert reply.text == "I see 2 images."


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


@pytest.mark.parametrize("start", [lmstudio, ollama], ids=lambda start: start.__name__)
def test_images_for_a_blind_model_are_more_than_it_can(start: Any) -> None:
    model = StandInModel(key="tiny", trained_for_tool_use=True)
    with ExitStack() as cleanup:
        loaded = start(cleanup, model)
        with pytest.raises(Unable, match="this model cannot see images"):
            loaded.chat("What do you see?", max_tokens=20, images=[PNG])
        assert not loaded.failed


@NO_LLAMACPP
def test_llamacpp_cannot_see_images_and_calls_tools() -> None:
    with ExitStack() as cleanup:
        loaded = llamacpp(cleanup)
        with pytest.raises(Unable, match="images need the projector"):
            loaded.chat("What do you see?", max_tokens=20, images=[PNG])
        reply = loaded.chat("Weather in Paris?", max_tokens=60, tools=[get_weather])
        assert all(call.fault or call.name == "get_weather" for call in reply.tool_calls)


def test_what_a_server_refuses_is_more_than_it_can() -> None:
    with ExitStack() as cleanup:
        faults = Faults(refuses=("tools", "response_format"), refuses_images=True)
        loaded = openai(cleanup, faults=faults)
        with pytest.raises(Unable, match="tools is not supported"):
            loaded.chat("Use it", max_tokens=20, tools=[get_weather])
        with pytest.raises(Unable, match="image_url is not supported"):
            loaded.chat("Look", max_tokens=20, images=[PNG])
        reply = loaded.chat("Say hello", max_tokens=20, schema=SCHEMA)
        assert not reply.enforced
        assert reply.schema_error
        with pytest.raises(AssertionError, match=r"the schema is not kept: .*\nHello!"):
            _ = reply.parsed
        with pytest.raises(RuntimeError, match=r"required by the test: .*response_format"):
            loaded.chat("Say hello", max_tokens=20, schema=SCHEMA, required=True)
        assert not loaded.failed


def test_a_model_thinks_where_that_is_asked() -> None:
    with ExitStack() as cleanup:
        model = StandInModel(key="tiny", behaviours=(Reasons(tokens=9),))
        loaded = ollama(cleanup, model)
        assert "hmm" in loaded.chat("Say hello", max_tokens=60, thinking=True).reasoning
        assert loaded.chat("Say hello", max_tokens=60, thinking=False).reasoning == ""
        assert loaded.chat("Say hello", max_tokens=60).reasoning == ""
        with pytest.raises(TypeError, match="thinking must be True, False or None, got 'on'"):
            loaded.chat("Say hello", max_tokens=60, thinking="on")


def test_thinking_is_handed_to_the_chat_template() -> None:
    with OpenAiServer(TINY, CONTEXT, Dialect.LLAMACPP) as server, ExitStack() as cleanup:
        loaded = loaded_in(OpenAiEngine(server.host, reply_timeout=60), cleanup)
        for thinking in (True, False, None):
            loaded.chat("Say hello", max_tokens=9, thinking=thinking)
        sent = [
            body.get("chat_template_kwargs") for path, body in server.requests if "chat" in path
        ]
        assert sent == [{"enable_thinking": True}, {"enable_thinking": False}, None]
    with ExitStack() as cleanup:
        loaded = openai(cleanup, faults=Faults(refuses=("chat_template_kwargs",)))
        with pytest.raises(Unable, match="chat_template_kwargs is not supported"):
            loaded.chat("Say hello", max_tokens=9, thinking=True)
        with pytest.raises(Unable, match="Ollama reports that this model cannot think"):
            ollama(cleanup).chat("Say hello", max_tokens=9, thinking=True)


def test_an_engine_with_the_old_signature_does_what_it_can() -> None:
    with ExitStack() as cleanup:
        loaded = loaded_in(FakeEngine(), cleanup)
        assert loaded.chat("2+3=", max_tokens=4, fill=0.5).text == "5"
        unenforced = loaded.chat("2+3=", max_tokens=4, schema={"type": "integer"})
        assert (unenforced.parsed, unenforced.enforced) == (5, False)
        with pytest.raises(Unable, match="engine 'fake' takes no tools in chat"):
            loaded.chat("2+3=", max_tokens=4, tools=[get_weather])
        with pytest.raises(Unable, match="engine 'fake' takes no tools in chat"):
            loaded.chat(WEATHER, max_tokens=4)
        with pytest.raises(Unable, match="engine 'fake' takes no seed in chat"):
            loaded.chat("2+3=", max_tokens=4, seed=1)
        with pytest.raises(Unable, match="engine 'fake' takes no stop in complete"):
            loaded.complete("2+3=", max_tokens=4, stop="5")
        assert json.loads(loaded.complete("2+3=", max_tokens=4).text) == 5
