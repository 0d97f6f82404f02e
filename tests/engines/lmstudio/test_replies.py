"""Replies of LM Studio: their measurements, reasoning and ends."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Message
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.reasoning import split_reasoning
from tests.engines.lmstudio.studio import Watched
from tests.standin.lmstudio import Crashes, Fault, Reasons, Says, StandInModel


def test_completion_is_raw_at_the_requested_temperature(studio: Any) -> None:
    own = studio()
    instance = own.load()
    reply = instance.complete("2 + 3 =", max_tokens=4)
    assert reply.text.strip() == "5"
    config = own.server.predictions()[0].config
    assert config["llm.prediction.temperature"] == 0
    assert config["llm.prediction.maxPredictedTokens"] == {"checked": True, "value": 4}
    assert config["llm.prediction.contextOverflowPolicy"] == "stopAtLimit"
    assert "llm.prediction.promptTemplate" in config
    instance.complete("2 + 3 =", max_tokens=4, temperature=0.7)
    assert own.server.predictions()[1].config["llm.prediction.temperature"] == 0.7
    instance.unload()


def test_a_reply_has_the_measurements_of_the_server(studio: Any) -> None:
    own = studio()
    progress = Watched()
    instance = own.load(8192, progress)
    prompt = "It was a quiet day. " * 200
    reply = instance.complete(prompt, max_tokens=8)
    tokens = instance.count_tokens(prompt)
    assert reply.prompt_tokens is not None
    assert tokens <= reply.prompt_tokens <= tokens + 8
    assert reply.completion_tokens is not None
    assert 0 < reply.completion_tokens <= 8
    assert reply.decode_tokens_per_second == 50
    assert reply.cached_prompt_tokens == 0
    assert reply.ttft_seconds is not None
    assert reply.prefill_tokens_per_second == reply.prompt_tokens / reply.ttft_seconds
    assert progress.prefilled[-1] == (tokens, tokens)
    instance.unload()


def test_a_possibly_cached_prefill_is_not_measured(studio: Any) -> None:
    own = studio()
    instance = own.load(8192)
    prompt = "It was a quiet day. " * 200
    instance.complete(prompt, max_tokens=2)
    again = instance.complete(f"{prompt}2 + 3 =", max_tokens=2)
    assert (again.prefill_tokens_per_second, again.cached_prompt_tokens) == (None, None)
    other = instance.complete(f"Now for something else. {prompt}", max_tokens=2)
    assert other.prefill_tokens_per_second is not None
    assert other.cached_prompt_tokens is None
    instance.unload()


def test_stop_reasons(studio: Any) -> None:
    own = studio()
    instance = own.load()
    story = "Once upon a time there was a king. Once upon a time"
    assert instance.complete(story, max_tokens=1).stop_reason == "length"
    assert instance.complete("2 + 3 =", max_tokens=50).stop_reason == "stop"
    instance.unload()


def test_reasoning_is_separated_from_the_answer(studio: Any) -> None:
    own = studio(StandInModel(key="tiny", behaviours=(Reasons(tokens=5),)))
    instance = own.load()
    asked = (
        Message(role="system", content="Be brief."),
        Message(role="user", content="What is 1 + 1?"),
        Message(role="assistant", content="2"),
        Message(role="user", content="What is 2 + 3?"),
    )
    reply = instance.chat(asked, max_tokens=50)
    assert reply.text.strip() == "5"
    assert reply.reasoning
    assert "<think>" not in reply.text + reply.reasoning
    assert own.server.predictions()[0].config["llm.prediction.temperature"] == 0
    assert "llm.prediction.promptTemplate" not in own.server.predictions()[0].config
    spent = instance.chat(asked, max_tokens=3)
    assert (spent.text, spent.stop_reason) == ("", "length")
    assert spent.reasoning
    instance.unload()


@pytest.mark.parametrize(
    ("said", "reasoning", "text"),
    [
        ("<think>\nhm\n</think>\n\n5", "hm", "5"),
        ("hm</think>5", "hm", "5"),
        ("<think>hm", "hm", ""),
        ("5 <think> 6", "", "5 <think> 6"),
        (" 5\n", "", " 5\n"),
        ("", "", ""),
    ],
    ids=["closed", "opened by the template", "budget spent", "inside", "none", "empty"],
)
def test_split_reasoning(said: str, reasoning: str, text: str) -> None:
    assert split_reasoning(said) == (reasoning, text)


@settings(deadline=None)
@given(st.text().filter(lambda text: "think>" not in text))
def test_text_without_tags_is_the_answer(text: str) -> None:
    assert split_reasoning(text) == ("", text)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["<think>", "</think>", "5", " ", "\n", "hm"])))
def test_splitting_reasoning_keeps_all_words(parts: list[str]) -> None:
    said = "".join(parts)
    reasoning, text = split_reasoning(said)
    for word in ("5", "hm"):
        assert (reasoning + text).count(word) == said.count(word)


def test_an_overlong_prompt_is_a_failure(studio: Any) -> None:
    own = studio()
    instance = own.load(512)
    with pytest.raises(Failure, match="n_keep") as failed:
        instance.complete("word " * 600, max_tokens=4)
    assert failed.value.verdict is Verdict.CONTEXT_TOO_LARGE
    assert instance.complete("2 + 3 =", max_tokens=4).text.strip() == "5"
    instance.unload()


def test_an_instance_that_dies_is_crashed_not_missing(studio: Any) -> None:
    own = studio(StandInModel(key="tiny", behaviours=(Crashes(at="predict"),)))
    instance = own.load()
    for _ in range(2):
        with pytest.raises(Failure) as failed:
            instance.complete("2 + 3 =", max_tokens=4)
        assert failed.value.verdict is Verdict.CRASHED
    instance.unload()


def test_an_instance_unloaded_during_a_reply(studio: Any) -> None:
    own = studio(faults=(Fault(where="fragment", kind="hang"),))
    instance = own.load(progress=Watched(on_prefill=lambda: take_away()))

    def take_away() -> None:
        if instance.identifier in own.server.loaded():
            own.server.unload_for_user(instance.identifier)

    with pytest.raises(Failure, match="Model unloaded") as failed:
        instance.complete("2 + 3 =", max_tokens=4)
    assert failed.value.verdict is Verdict.CRASHED


@pytest.mark.parametrize(
    ("reason", "verdict"),
    [
        ("modelUnloaded", Verdict.CRASHED),
        ("userStopped", Verdict.HOST_TROUBLE),
        ("failed", Verdict.ENGINE_ERROR),
    ],
)
def test_an_aborted_reply_is_a_failure(studio: Any, reason: str, verdict: Verdict) -> None:
    instance = studio(StandInModel(key="tiny", stats={"stopReason": reason})).load()
    with pytest.raises(Failure) as failed:
        instance.complete("2 + 3 =", max_tokens=4)
    assert failed.value.verdict is verdict
    instance.unload()


@pytest.mark.parametrize("reason", ["engineDied", "somethingNew"])
def test_a_reason_newer_than_the_sdk_does_not_spoil_an_answer(studio: Any, reason: str) -> None:
    instance = studio(StandInModel(key="tiny", stats={"stopReason": reason})).load()
    reply = instance.complete("2 + 3 =", max_tokens=4)
    assert (reply.text.strip(), reply.stop_reason) == ("5", None)
    instance.unload()


@pytest.mark.parametrize(
    ("reason", "verdict", "words"),
    [
        ("engineDied", Verdict.CRASHED, "engine died before it answered"),
        ("somethingNew", Verdict.UNREACHABLE, "this LM Studio is newer than the SDK"),
    ],
)
def test_a_newer_reason_without_an_answer_is_not_held_against_the_model(
    studio: Any, reason: str, verdict: Verdict, words: str
) -> None:
    silent = StandInModel(key="tiny", stats={"stopReason": reason}, behaviours=(Says(text=" "),))
    instance = studio(silent).load()
    with pytest.raises(Failure, match=words) as failed:
        instance.complete("2 + 3 =", max_tokens=4)
    assert failed.value.verdict is verdict
    instance.unload()


def test_no_prompt_tokens_counted_is_not_a_count(studio: Any) -> None:
    instance = studio(StandInModel(key="tiny", stats={"promptTokensCount": 0})).load()
    assert instance.complete("2 + 3 =", max_tokens=4).prompt_tokens is None
    instance.unload()


@pytest.mark.parametrize(("text", "full"), [("", True), ("Hel", False)])
def test_a_context_that_is_full_before_the_answer_is_too_small(
    studio: Any, text: str, full: bool
) -> None:
    # Bug tracker 2339: a prompt that is too long gives an empty answer, and no error.
    stats = {"stopReason": "contextLengthReached"}
    own = studio(StandInModel(key="tiny", stats=stats, behaviours=(Says(text=text),)))
    instance = own.load()
    if full:
        with pytest.raises(Failure, match="no room for the prompt") as failed:
            instance.complete("2 + 3 =", max_tokens=4)
        assert failed.value.verdict is Verdict.CONTEXT_TOO_LARGE
    else:
        assert instance.complete("2 + 3 =", max_tokens=4).stop_reason == "length"
    instance.unload()
