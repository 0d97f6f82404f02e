"""Schemas, seeds, stop texts, histories, filler, images and thinking, in every engine."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from pytest_lmstrix.checks.requests.loaded import LoadedModel
from pytest_lmstrix.core.types import Message
from pytest_lmstrix.engines.openai.engine import OpenAiEngine
from pytest_lmstrix.engines.request import Unable
from tests.engines.chat_arguments.engines import (
    CONTEXT,
    PNG,
    SCHEMA,
    TINY,
    loaded_in,
    ollama,
    openai,
)
from tests.standin.lmstudio import StandInModel
from tests.standin.lmstudio.models.behaviours import Reasons
from tests.standin.openai import Dialect, Faults, OpenAiServer


class Capital(msgspec.Struct):
    city: str
    number: int


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


def test_images_reach_the_model(stand_in: LoadedModel, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(PNG)
    reply = stand_in.chat("What do you see?", max_tokens=20, images=[path, PNG])
    assert reply.text == "I see 2 images."


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
